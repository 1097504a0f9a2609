"""Level samplers by their quantiles, weights by what they are in the papers, the hybrid by its gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nirvana.diffusion.denoiser import AngleCode, Cond, Native, Output, Preconditioned
from nirvana.diffusion.level import Level
from nirvana.diffusion.markov import Chain
from nirvana.diffusion.noise import sample_rng
from nirvana.diffusion.objective import (
    DiscreteUniform,
    EDMLogNormal,
    EDMWeight,
    FlowWeight,
    Gains,
    LevelSampler,
    LogitNormal,
    MinSNR,
    Objective,
    OfLam,
    SameSpace,
    Simple,
    Uniform,
    Weight,
    stratified,
)
from nirvana.diffusion.prediction import EDM, X0, Eps, Flow, Parameterization, Velocity
from nirvana.diffusion.schedule import Cosine, RectifiedFlow, cosine_betas, linear_betas

F64 = torch.float64
DATA = 0.5  # sigma_data

# Level samplers.

QUANTILES = torch.tensor([0.02, 0.158655253931457, 0.5, 0.841344746068543, 0.99], dtype=F64)
NORMAL = torch.tensor([-2.053748910631823, -1.0, 0.0, 1.0, 2.3263478740408408], dtype=F64)


def test_uniform_is_uniform_in_the_time_of_its_schedule() -> None:
    for schedule in (RectifiedFlow(), Cosine()):
        torch.testing.assert_close(schedule.time(Uniform(schedule)(QUANTILES).lam), QUANTILES, rtol=1e-12, atol=0)


def test_logit_normal_is_normal_in_the_logit_of_the_time() -> None:
    level = LogitNormal(RectifiedFlow(), mean=0.3, std=1.7)(QUANTILES)
    torch.testing.assert_close(torch.logit(level.sigma), 0.3 + 1.7 * NORMAL, rtol=1e-12, atol=1e-12)
    plain = LogitNormal(Cosine())(QUANTILES)
    torch.testing.assert_close(torch.logit(Cosine().time(plain.lam)), NORMAL, rtol=1e-12, atol=1e-12)


def test_edm_log_normal_is_normal_in_the_log_of_the_ratio() -> None:
    torch.testing.assert_close(EDMLogNormal()(QUANTILES).ratio.log(), -1.2 + 1.2 * NORMAL, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(EDMLogNormal(0.4, 2.0)(QUANTILES).ratio.log(), 0.4 + 2 * NORMAL, rtol=1e-12, atol=1e-12)


def test_discrete_uniform_gives_every_step_of_the_chain_the_same_share() -> None:
    chain = Chain(cosine_betas(7))
    u = (torch.arange(70, dtype=F64) + 0.5) / 70
    assert chain.step_of(DiscreteUniform(chain)(u)).tolist() == [t for t in range(1, 8) for _ in range(10)]
    assert chain.step_of(DiscreteUniform(chain)(torch.tensor([0.0, 1 - 2.0**-53], dtype=F64))).tolist() == [1, 7]


SAMPLERS: list[LevelSampler] = [
    Uniform(RectifiedFlow()),
    Uniform(Cosine()),
    LogitNormal(RectifiedFlow()),
    EDMLogNormal(),
    DiscreteUniform(Chain(linear_betas(9))),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_no_draw_is_an_exact_end_and_noise_rises_with_u(sampler: LevelSampler) -> None:
    level = sampler(torch.tensor([0.0, 0.3, 0.7, 1 - 2.0**-24]))
    assert level.lam.isfinite().all()
    assert (level.lam.diff() < 0).all()
    assert level.alpha.dtype == F64


@pytest.mark.parametrize("u", [1.0, -1e-9, math.nan])
def test_uniforms_outside_their_interval_are_refused(u: float) -> None:
    for sampler in SAMPLERS:
        with pytest.raises(ValueError, match="0 <= u < 1"):
            sampler(torch.tensor([0.5, u]))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_stratified_has_one_sample_in_each_stratum_of_any_run_of_indices(batch: int) -> None:
    for first in (0, 5, 10**12 + 3):
        index = torch.arange(first, first + batch)
        u = torch.cat([torch.rand(1, generator=sample_rng(3, int(i), "level"), dtype=F64) for i in index])
        got = stratified(u, index, batch)
        assert sorted((got * batch).floor().long().tolist()) == list(range(batch))
        torch.testing.assert_close((got * batch).frac(), u, rtol=0, atol=1e-12)  # uniform within its stratum
        alone = torch.cat([stratified(u[i : i + 1], index[i : i + 1], batch) for i in range(batch)])
        assert torch.equal(got, alone)  # of the sample alone, not of its batch


def test_stratified_stays_below_one_and_refuses_no_strata() -> None:
    u = stratified(torch.tensor([1 - 2.0**-53], dtype=F64), torch.tensor([999]), 1000)
    assert u < 1
    assert u * 1000 > 999.9
    with pytest.raises(ValueError, match="at least 1 stratum"):
        stratified(torch.tensor([0.5]), torch.tensor([0]), 0)


# The loss of a network in the spaces of the papers.


class Toy(nn.Module):
    """A network that mixes its channels; the last ones are the variance where it has them."""

    slots = frozenset[str]()

    def __init__(self, out: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.mix = nn.Parameter(torch.randn(out, 3, dtype=F64, generator=generator))
        self.shift = nn.Parameter(torch.randn(out, 1, dtype=F64, generator=generator))

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        return torch.einsum("oc,bcs->bos", self.mix, x) + self.shift * (1 + noise[:, None, None] / 1000)


def denoiser(parameterization: Parameterization, native: Native, learned_variance: bool = False) -> Preconditioned:
    net = Toy(6 if learned_variance else 3)
    return Preconditioned(
        net, parameterization, native=native, c_in="edm", c_noise=AngleCode(), learned_variance=learned_variance
    )


NETWORKS: dict[str, tuple[Parameterization, Native]] = {
    "eps": (Eps(), "unit"),
    "x0": (X0(), "unit"),
    "v": (Velocity(), "unit"),
    "flow": (Flow(), "sum"),
    "edm": (EDM(DATA), "ratio"),
}
LEVELS = Level.from_lam(torch.tensor([-3.0, -0.4, 0.0, 0.9, 4.0])).scaled(torch.tensor([1.0, 2.0, 1.0, 0.3, 1.0]))


def batch() -> tuple[Tensor, Tensor]:
    x0, eps = torch.randn(2, 5, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(8))
    return x0, eps


def loss_and_x0_error(network: str, weight: Weight) -> tuple[Tensor, Tensor]:
    """Per-sample loss, and the mean squared error of the x0 the denoiser predicts."""
    x0, eps = batch()
    model = denoiser(*NETWORKS[network])
    loss = Objective(Uniform(Cosine()), weight).loss(model, x0, eps, LEVELS, {})
    torch.testing.assert_close(loss.total, loss.per_sample.mean())
    assert torch.equal(loss.lam, LEVELS.lam)
    assert torch.equal(loss.terms["mse"], loss.per_sample)
    assert loss.total.requires_grad
    assert not loss.terms["mse"].requires_grad
    at = LEVELS.like(x0)
    predicted = model(at.alpha * x0 + at.sigma * eps, LEVELS, {}).x0
    return loss.per_sample, (predicted - x0).square().mean((1, 2))


def paper_target(network: str, x0: Tensor, eps: Tensor) -> Tensor:
    """What each network is regressed on, as its paper says it."""
    ratio = LEVELS.ratio.reshape(-1, 1, 1)
    unit = LEVELS.unit().like(x0)
    if network == "edm":  # Karras et al. 2022, eq. 8: (y - c_skip (y + n)) / c_out
        c_skip = DATA**2 / (ratio**2 + DATA**2)
        c_out = ratio * DATA / torch.sqrt(ratio**2 + DATA**2)
        return (x0 - c_skip * (x0 + ratio * eps)) / c_out
    targets: dict[str, Tensor] = {"eps": eps, "x0": x0, "v": unit.alpha * eps - unit.sigma * x0, "flow": eps - x0}
    return targets[network]


@pytest.mark.parametrize("network", list(NETWORKS))
def test_same_space_is_the_plain_mse_of_the_output(network: str) -> None:
    x0, eps = batch()
    at = LEVELS.like(x0)
    out = denoiser(*NETWORKS[network]).output(at.alpha * x0 + at.sigma * eps, LEVELS, {})
    got, _ = loss_and_x0_error(network, SameSpace())
    expected = (out.F - paper_target(network, x0, eps)).square().mean((1, 2))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_simple_is_the_mse_of_eps_whatever_the_network_says(network: str) -> None:
    x0, eps = batch()
    at = LEVELS.like(x0)
    x = at.alpha * x0 + at.sigma * eps
    predicted = (x - at.alpha * denoiser(*NETWORKS[network])(x, LEVELS, {}).x0) / at.sigma
    got, _ = loss_and_x0_error(network, Simple())
    torch.testing.assert_close(got, (predicted - eps).square().mean((1, 2)), rtol=1e-9, atol=0)


ON_X0: dict[str, tuple[Weight, Callable[[Tensor], Tensor]]] = {
    "simple": (Simple(), lambda ratio: ratio**-2),
    "min-snr": (MinSNR(), lambda ratio: (ratio**-2).clamp(max=5)),
    "min-snr 0.5": (MinSNR(0.5), lambda ratio: (ratio**-2).clamp(max=0.5)),
    "edm": (EDMWeight(DATA), lambda ratio: (ratio**2 + DATA**2) / (ratio * DATA) ** 2),
    "flow": (FlowWeight(), lambda ratio: (1 + 1 / ratio).clamp(max=20) ** 2),
    "flow 0.5": (FlowWeight(0.5), lambda ratio: (1 + 1 / ratio).clamp(max=2) ** 2),
    "of lam": (OfLam(lambda lam: 1 / (1 + torch.exp(-lam))), lambda ratio: 1 / (1 + ratio)),
}


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("name", list(ON_X0))
def test_a_weight_counts_the_x0_error_by_its_formula(network: str, name: str) -> None:
    weight, formula = ON_X0[name]
    got, x0_error = loss_and_x0_error(network, weight)
    torch.testing.assert_close(got, formula(LEVELS.ratio) * x0_error, rtol=1e-9, atol=0)
    one = torch.ones_like(LEVELS.lam)
    on_x0 = weight(Gains.of(LEVELS, (one, 0 * one)))
    torch.testing.assert_close(on_x0, formula(LEVELS.ratio), rtol=1e-12, atol=0)


def test_flow_weight_on_a_flow_network_is_no_weight() -> None:
    weighted, _ = loss_and_x0_error("flow", FlowWeight(0.0))
    plain, _ = loss_and_x0_error("flow", SameSpace())
    torch.testing.assert_close(weighted, plain, rtol=1e-12, atol=0)


def test_edm_weight_on_an_edm_network_is_no_weight() -> None:
    weighted, _ = loss_and_x0_error("edm", EDMWeight(DATA))
    plain, _ = loss_and_x0_error("edm", SameSpace())
    torch.testing.assert_close(weighted, plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_loss_does_not_depend_on_the_scale_of_the_level(network: str) -> None:
    x0, eps = batch()
    objective = Objective(Uniform(Cosine()), MinSNR())
    a, b = (objective.loss(denoiser(*NETWORKS[network]), x0, eps, level, {}) for level in (LEVELS, LEVELS.scaled(5.0)))
    torch.testing.assert_close(a.per_sample, b.per_sample, rtol=1e-12, atol=0)


def test_levels_may_differ_by_channel_and_one_level_serves_a_batch() -> None:
    weight = OfLam(lambda lam: 2 + torch.tanh(lam))
    p, q = Velocity()(LEVELS.unit())
    whole = weight(Gains.of(LEVELS.unit(), (p, q)))

    @dataclass
    class Zero:
        """A network without a say, whose output would be right at F* = -sigma*x0 + alpha*eps."""

        def output(self, x: Tensor, level: Level, cond: Cond) -> Output:
            return Output(torch.zeros_like(x), x, level, None, Velocity()(level))

    by_channel = Level(LEVELS.unit().alpha[None], LEVELS.unit().sigma[None])
    x0, eps = batch()[0].reshape(1, 5, 12), batch()[1].reshape(1, 5, 12)
    got = Objective(Uniform(Cosine()), weight).loss(Zero(), x0, eps, by_channel, {})
    target = p[:, None] * x0 + q[:, None] * eps
    torch.testing.assert_close(got.per_sample, (whole[:, None] * target.square()).mean((1, 2)), rtol=1e-12, atol=0)
    one, many = (
        Objective(Uniform(Cosine()), weight).loss(Zero(), x0.reshape(5, 12), eps.reshape(5, 12), level, {})
        for level in (Level.of(0.6, 0.8), Level(torch.full((5,), 0.6, dtype=F64), torch.full((5,), 0.8, dtype=F64)))
    )
    assert torch.equal(one.per_sample, many.per_sample)


def test_coefficients_are_float64_and_the_loss_has_the_dtype_of_the_data() -> None:
    x0, eps = (v.float() for v in batch())
    # in float32 alpha = 1 - 1e-9 would leave no noise; the error of x0 has to survive the division by it
    level = Level.from_lam(torch.full((5,), 9.0))
    loss = Objective(Uniform(Cosine()), EDMWeight(DATA)).loss(denoiser(EDM(DATA), "ratio"), x0, eps, level, {})
    exact = Objective(Uniform(Cosine()), EDMWeight(DATA)).loss(
        denoiser(EDM(DATA), "ratio"), x0.double(), eps.double(), level, {}
    )
    assert loss.per_sample.dtype == torch.float32
    torch.testing.assert_close(loss.per_sample.double(), exact.per_sample, rtol=1e-3, atol=0)


# The ends of the levels.


@pytest.mark.parametrize("network", ["eps", "x0", "v", "flow", "edm"])
@pytest.mark.parametrize("weight", [SameSpace(), Simple(), MinSNR(), EDMWeight(DATA)], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("end", [Level.of(0.0, 1.0), Level.of(1.0, 0.0)], ids=["noise", "data"])
def test_at_an_end_a_weight_is_its_limit_or_infinite_but_never_nan(network: str, weight: Weight, end: Level) -> None:
    parameterization, _ = NETWORKS[network]
    near = Level.from_lam(-16.0 if end.is_pure_noise else 16.0)
    limit, got = (weight(Gains.of(level, parameterization(level))) for level in (near, end))
    if limit > 1e10:
        assert got == math.inf
    else:
        torch.testing.assert_close(got, limit, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("network", "weight", "level"),
    [
        ("x0", Simple(), Level.of(1.0, 0.0)),
        ("eps", EDMWeight(DATA), Level.of(0.0, 1.0)),
        ("v", OfLam(torch.exp), Level.of(1.0, 0.0)),
        ("eps", OfLam(torch.exp), Level.of(0.0, 1.0)),
        ("v", OfLam(lambda lam: lam * math.nan), Level.of(0.6, 0.8)),
    ],
)
def test_a_weight_that_is_not_finite_is_refused(network: str, weight: Weight, level: Level) -> None:
    x0, eps = batch()
    pair = Level(torch.stack([torch.tensor(0.5), level.alpha]), torch.stack([torch.tensor(0.5), level.sigma]))
    with pytest.raises(ValueError, match=f"weight at lam = ({level.lam.item():g}|0) is not finite.*another weight"):
        Objective(Uniform(Cosine()), weight).loss(denoiser(NETWORKS[network][0], "unit"), x0[:2], eps[:2], pair, {})


# The hybrid objective.

CHAIN = Chain(linear_betas(40, 1e-3, 0.3))
STEPS = torch.tensor([1, 2, 9, 30, 40])


def hybrid(vb_weight: float) -> Objective:
    return Objective(DiscreteUniform(CHAIN), Simple(), CHAIN, vb_weight)


def eight_bit() -> tuple[Tensor, Tensor]:
    x0, eps = batch()
    return (x0.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1, eps


@pytest.mark.parametrize("network", ["eps", "x0", "v", "flow"])
def test_the_vb_term_is_the_chains_and_its_share_is_the_weight(network: str) -> None:
    x0, eps = eight_bit()
    model = denoiser(*NETWORKS[network], learned_variance=True)
    level = CHAIN.level(STEPS)
    loss = hybrid(0.01).loss(model, x0, eps, level, {})
    x_t = CHAIN.q_jump(x0, STEPS, eps)
    expected = CHAIN.T * CHAIN.term(x0, STEPS, model(x_t, level, {}), "learned")
    torch.testing.assert_close(loss.terms["vb"], expected, rtol=1e-9, atol=0)
    plain = hybrid(0.0).loss(model, x0, eps, level, {})
    assert "vb" not in plain.terms
    torch.testing.assert_close(loss.terms["mse"], plain.per_sample, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.per_sample, plain.per_sample + 0.01 * expected, rtol=1e-9, atol=0)


def test_the_mean_over_steps_and_noise_of_the_vb_term_is_the_bound() -> None:
    x0, eps = eight_bit()
    model = denoiser(Velocity(), "unit", learned_variance=True)
    bound = CHAIN.vlb(model, x0, lambda t: eps, {}, "learned")
    every = [
        hybrid(1.0).loss(model, x0, eps, CHAIN.level(torch.tensor(t)), {}).terms["vb"] for t in range(1, CHAIN.T + 1)
    ]
    torch.testing.assert_close(torch.stack(every).mean(0) + bound.prior, bound.total, rtol=1e-9, atol=0)


def test_the_bound_trains_the_variance_and_never_the_mean() -> None:
    x0, eps = eight_bit()
    model = denoiser(Eps(), "unit", learned_variance=True)
    net = model.net
    assert isinstance(net, Toy)

    def gradients(vb_weight: float) -> Tensor:
        loss = hybrid(vb_weight).loss(model, x0, eps, CHAIN.level(STEPS), {})
        return torch.cat(torch.autograd.grad(loss.total, [net.mix, net.shift]), dim=1)

    without, light, heavy = gradients(0.0), gradients(0.001), gradients(1000.0)
    assert without[:3].abs().min() > 0
    assert torch.equal(light[:3], without[:3])
    assert torch.equal(heavy[:3], without[:3])
    assert without[3:].abs().max() == 0
    assert light[3:].abs().min() > 0
    torch.testing.assert_close(heavy[3:], 1e6 * light[3:], rtol=1e-9, atol=0)


@dataclass
class Affine:
    """The exact network for scalar data N(0.2, 0.3^2), with one learned variance fraction for every x."""

    var_frac: Tensor

    def output(self, x: Tensor, level: Level, cond: Cond) -> Output:
        total = (level.alpha * 0.3) ** 2 + level.sigma**2
        F = level.sigma / total * (x - level.alpha * 0.2)  # E[eps | x]
        return Output(F, x, level, self.var_frac.expand_as(x), Eps()(level))


@pytest.mark.parametrize("t", [2, 7, 25, 40])
def test_the_learned_variance_is_optimal_at_the_true_variance_of_the_reverse_step(t: int) -> None:
    step = torch.tensor([t])
    level = CHAIN.level(torch.tensor(t))
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    of_x0 = 0.3**2 * level.sigma**2 / ((level.alpha * 0.3) ** 2 + level.sigma**2)  # Var(x0 | x_t)
    true = CHAIN.q_posterior(zero, zero, step)[1] + CHAIN.q_posterior(one, zero, step)[0] ** 2 * of_x0
    small, large = (CHAIN.log_sigma_theta(zero, step, kind) for kind in ("small", "large"))
    best = ((true.log() - small) / (large - small)).item()
    assert 0 < best < 1

    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(6))
    weights = (weights[:, None] * weights[None, :]).flatten() / weights.sum() ** 2
    x0 = (0.2 + 0.3 * nodes).repeat_interleave(6)[:, None]
    eps = nodes.repeat(6)[:, None]

    def slope(at: float) -> float:
        var_frac = torch.tensor(at, dtype=F64, requires_grad=True)
        loss = hybrid(1.0).loss(Affine(var_frac), x0, eps, level, {})
        (gradient,) = torch.autograd.grad((weights * loss.per_sample).sum(), var_frac)
        return gradient.item()

    below, above = slope(best - 0.05), slope(best + 0.05)
    assert below < 0 < above
    assert abs(slope(best)) < 1e-6 * min(-below, above)


def test_the_hybrid_names_what_it_lacks() -> None:
    x0, eps = eight_bit()
    with pytest.raises(ValueError, match=r"'learned' needs a network with a variance output.*learned_variance=True"):
        hybrid(0.1).loss(denoiser(Eps(), "unit"), x0, eps, CHAIN.level(STEPS), {})
    with pytest.raises(ValueError, match="is no level of this chain"):
        hybrid(0.1).loss(denoiser(Eps(), "unit", learned_variance=True), x0, eps, LEVELS, {})
    with pytest.raises(ValueError, match="needs the chain"):
        Objective(Uniform(Cosine()), Simple(), vb_weight=0.1)
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="vb_weight is"):
            hybrid(bad)
