"""Likelihood against closed forms: the density of the flow, the variational bound, bytes and bits."""

from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.exact import BoxDenoiser, DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.likelihood import (
    Bound,
    Estimate,
    ExactTrace,
    Flow,
    HutchinsonTrace,
    bits_per_dim,
    bound_terms,
    byte_decoder,
    density_decoder,
    flow_density,
    ladder,
    noise_terms,
    signs,
    uniform_terms,
    variational_bound,
)
from nirvana.diffusion.markov import Chain
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import Key, SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.schedule import linear_betas

F64 = torch.float64
DATA = Level.of(1.0, 0.0)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gaussian(D: int = 4) -> GaussianDenoiser:
    root = randn(D, D, seed=1)
    return GaussianDenoiser(randn(D, seed=2), root @ root.T / D + 0.1 * torch.eye(D, dtype=F64))


def mixture() -> MixtureDenoiser:
    return MixtureDenoiser(
        torch.tensor([1.0, 2.0, 0.5, 0.7, 0.3]),
        randn(5, 8, seed=0),
        torch.tensor([0.3, 0.05, 0.2, 0.1, 0.5], dtype=F64),
    )


def rising(n: int, high: float = 7.0, low: float = -7.0, *, pure: bool = False, norm: float = 1.0) -> list[Level]:
    """lam evenly from `high` down to `low`, the last level pure noise where it is asked for."""
    level = Level.from_lam(torch.linspace(high, low, n + 1, dtype=F64))
    alpha, sigma = level.alpha.clone(), level.sigma.clone()
    if pure:
        alpha[-1], sigma[-1] = 0.0, 1.0
    return walk(Level(alpha * norm, sigma * norm))


@dataclass(frozen=True)
class Keyed:
    """Unit normals by key, all rows from one generator: quicker for thousands of rows."""

    shape: tuple[int, ...]

    def initial(self) -> Tensor:
        raise AssertionError("a bound starts from data")

    def path(self, now: Level, nxt: Level) -> Tensor:
        raise AssertionError("a bound walks no path")

    def fresh(self, key: Key) -> Tensor:
        return randn(*self.shape, seed=zlib.crc32(repr(key).encode()))


@dataclass(frozen=True)
class Says:
    """A denoiser that always says the same x0, and counts."""

    x0: Tensor
    levels: list[Level]

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.levels.append(level)
        return Prediction(self.x0.expand_as(x))


# The density of the flow.


@pytest.mark.parametrize("norm", [1.0, 3.0])
def test_a_mixture_to_four_digits(norm: float) -> None:
    """From data with hardly any noise (sigma/alpha = 5e-5) to pure noise; the norm of the levels changes the unit."""
    x, levels = randn(8, 8, seed=3), rising(640, 10.0, pure=True, norm=norm)
    alpha = float(levels[0].alpha)
    found = flow_density(mixture(), alpha * x, levels, SOLVERS["unipc-3"](), cond={}, trace=ExactTrace())
    density = found.log_prob + 8 * math.log(alpha)  # of x in place of alpha x
    assert torch.allclose(density, mixture().log_prob(x, DATA), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp-2m", 2), ("dpmpp-3s", 3), ("unipc-2", 3)])
def test_the_error_has_the_order_of_the_solver(name: str, order: int) -> None:
    oracle, x, errors = gaussian(), randn(6, 4, seed=4), list[float]()
    for n in (40, 80, 160):
        levels = rising(n, 3.0, -3.0)
        found = flow_density(oracle, x, levels, SOLVERS[name](), cond={}, trace=ExactTrace())
        # The prior at the last level is exact for the oracle's own density there.
        prior = -0.5 * (found.latent**2 + math.log(2 * math.pi)).sum(1)
        exact = oracle.log_prob(x, levels[0]) - oracle.log_prob(oracle.transport(x, levels[0], levels[-1]), levels[-1])
        errors.append(float((found.log_prob - prior - exact).abs().max()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(slopes) >= order - 0.15, (errors, slopes)
    assert errors[-1] < 10.0**-order


def test_the_latent_is_where_the_flow_leads() -> None:
    oracle, x = gaussian(), randn(6, 2, 2, seed=4)
    shaped = GaussianDenoiser(oracle.mean.reshape(2, 2), torch.eye(4, dtype=F64) * 0.3)
    levels = rising(200, 3.0, pure=True, norm=2.0)
    found = flow_density(shaped, x, levels, SOLVERS["unipc-3"](), cond={}, trace=ExactTrace())
    expected = shaped.transport(x, levels[0], levels[-1]) / 2
    assert torch.allclose(found.latent, expected, rtol=0, atol=1e-5)


def test_all_probes_together_give_the_exact_trace() -> None:
    """The mean over every vector of signs is the trace itself: unbiased, and nothing to do with chance."""
    probes = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=F64)
    for oracle in (gaussian(), MixtureDenoiser(torch.ones(3), randn(3, 4, seed=5), torch.full((3,), 0.2))):
        x, levels = randn(1, 4, seed=6), rising(30)
        solver = SOLVERS["unipc-2"]()
        each = flow_density(oracle, x.expand(16, 4), levels, solver, cond={}, trace=HutchinsonTrace(probes))
        exact = flow_density(oracle, x, levels, solver, cond={}, trace=ExactTrace())
        assert float(each.log_prob.std()) > 0.01
        assert float(each.log_prob.mean() - exact.log_prob[0]) == pytest.approx(0, abs=1e-10)


def test_the_standard_error_covers() -> None:
    """Of 400 estimates of 16 probes each, t-intervals of 90% hold the exact value in 90%."""
    oracle, items, n = gaussian(6), 400, 16
    levels, solver = rising(12, 3.0, -3.0), SOLVERS["dpmpp-2m"]()
    x = randn(1, 6, seed=7)
    probes = signs(randn(items * n, 6, seed=8))
    each = flow_density(oracle, x.expand(items * n, 6), levels, solver, cond={}, trace=HutchinsonTrace(probes))
    exact = float(flow_density(oracle, x, levels, solver, cond={}, trace=ExactTrace()).log_prob)
    estimate = Estimate.of(each.log_prob.reshape(n, items))
    held = (estimate.mean - exact).abs() <= 1.753 * estimate.standard_error  # t of 15 degrees of freedom
    assert 0.85 <= float(held.double().mean()) <= 0.95
    assert float(estimate.mean.std()) == pytest.approx(float(estimate.standard_error.mean()), rel=0.1)


def test_two_estimates_differ_by_two_errors() -> None:
    estimate = Estimate.of(torch.tensor([[1.0], [3.0]]))
    assert (float(estimate.mean), float(estimate.standard_error)) == pytest.approx((2, 1))


def test_one_estimate_has_no_error() -> None:
    estimate = Estimate.of(torch.tensor([[1.0, 2.0]]))
    assert estimate.mean.tolist() == [1, 2] and bool(estimate.standard_error.isnan().all())


def test_signs_are_signs() -> None:
    z = signs(torch.tensor([[-0.3, 0.0, 2.0]]))
    assert z.tolist() == [[-1.0, 1.0, 1.0]]


def test_a_density_is_refused_where_there_is_none() -> None:
    x, solver = randn(2, 4, seed=1), SOLVERS["ddim"]()
    with pytest.raises(ValueError, match="levels of rising noise"):
        flow_density(gaussian(), x, rising(4)[::-1], solver, cond={}, trace=ExactTrace())
    with pytest.raises(ValueError, match="without a derivative"):
        flow_density(Says(x[:1], []), x, rising(4), solver, cond={}, trace=ExactTrace())
    with pytest.raises(ValueError, match="deterministic solver"):
        flow_density(gaussian(), x, rising(4), SOLVERS["ddpm"](), cond={}, trace=ExactTrace())


def test_a_denoiser_with_a_memory_starts_afresh() -> None:
    x, levels, solver = randn(2, 4, seed=1), rising(4), SOLVERS["ddim"]()

    class Forgetful(GaussianDenoiser):
        def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
            raise AssertionError("the old memory is used")

        def fresh(self) -> GaussianDenoiser:
            return gaussian()

    old = Forgetful(gaussian().mean, torch.eye(4))
    found = flow_density(old, x, levels, solver, cond={}, trace=ExactTrace())
    assert torch.equal(
        found.log_prob, flow_density(gaussian(), x, levels, solver, cond={}, trace=ExactTrace()).log_prob
    )


# The variational bound.


def test_a_ladder_has_the_levels_it_says() -> None:
    for T in (2, 7, 100_000):
        chain = ladder((-5.0, 6.5), T)
        steps = torch.tensor([1, 2, T // 2 + 1, T])
        expected = 6.5 - 11.5 * (steps.double() - 1) / (T - 1)
        assert chain.T == T
        assert torch.allclose(chain.level(steps).lam, expected, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="at least 2 levels in a finite range"):
        ladder((1.0, -1.0), 10)
    with pytest.raises(ValueError, match="at least 2 levels in a finite range"):
        ladder((-1.0, 1.0), 1)


def bound(chain: Chain, denoiser: object, x0: Tensor, calls: int | None = None, key: int = 0) -> Bound:
    noise = Keyed(tuple(x0.shape))
    decoder = density_decoder(chain, "large")
    return variational_bound(chain, denoiser, x0, cond={}, noise=noise, decoder=decoder, calls=calls, key=key)  # pyright: ignore


def test_the_terms_are_those_of_the_papers() -> None:
    """A constant x0_theta: KL_t = (SNR_{t-1} - SNR_t) |x0 - x0_theta|^2/2, the prior and the decoder in closed form."""
    chain, x0 = ladder((-2.0, 3.0), 9), randn(3, 4, seed=9)
    says = Says(randn(1, 4, seed=10), [])
    found = bound(chain, says, x0)
    off = ((x0 - says.x0) ** 2).sum(1)
    snr = chain.level(torch.arange(1, 10)).snr
    assert torch.equal(found.steps, torch.arange(2, 10).expand(3, 8))
    assert torch.allclose(found.diffusion, off[:, None] * (snr[:-1] - snr[1:]) / 2, rtol=1e-9)
    last = chain.level(torch.tensor(9))
    kl = 0.5 * (last.alpha**2 * x0**2 + last.sigma**2 - 1 - 2 * torch.log(last.sigma)).sum(1)
    assert torch.allclose(found.prior, kl, rtol=1e-9)
    beta = float(chain.beta[0])
    assert torch.allclose(found.decoder, off / (2 * beta) + 2 * math.log(2 * math.pi * beta), rtol=1e-9)
    assert torch.allclose(found.total, found.prior + found.decoder + found.diffusion.sum(1))
    assert len(says.levels) == 9


def test_the_whole_sum_is_the_chain_s_own_bound() -> None:
    chain = Chain(linear_betas(12, 0.01, 0.3))
    x0 = torch.randint(0, 256, (3, 5), generator=torch.Generator().manual_seed(1)).double() / 127.5 - 1
    noise = SeededNoise([4, 5, 6], (5,), dtype=F64)
    oracle = gaussian(5)
    own = chain.vlb(oracle, x0, lambda t: noise.fresh(("bound", 0, "eps", t)), {}, "small")
    decoder = byte_decoder(chain, "small")
    found = variational_bound(chain, oracle, x0, cond={}, noise=noise, decoder=decoder)
    assert torch.allclose(bits_per_dim(found.total, 5), own.total, rtol=1e-12)
    assert torch.allclose(bits_per_dim(found.decoder, 5), own.terms[:, 0], rtol=1e-12)
    assert torch.allclose(bits_per_dim(found.diffusion, 5), own.terms[:, 1:], rtol=1e-12)


@pytest.mark.parametrize("calls", [2, 4, 13])
def test_a_drawn_bound_is_unbiased(calls: int) -> None:
    """Each stratum gives one step, weighted by its size; over many draws the sum is that of all steps."""
    chain, x0 = ladder((-1.0, 0.5), 30), randn(1, 4, seed=9).expand(3000, 4)
    says = Says(torch.zeros(1, 4, dtype=F64), [])
    found, whole = bound(chain, says, x0, calls), bound(chain, says, x0[:1])
    assert len(says.levels) == calls + 30 and found.diffusion.shape == (3000, calls - 1)
    drawn = [sorted(set(column.tolist())) for column in found.steps.unbind(1)]
    assert [t for steps in drawn for t in steps] == list(range(2, 31))
    estimate = Estimate.of(found.diffusion.sum(1)[:, None])
    assert abs(float(estimate.mean) - float(whole.diffusion.sum())) < 4 * float(estimate.standard_error)
    if calls > 2:  # each stratum draws on its own
        assert float(torch.corrcoef(found.steps[:, :2].T.double())[0, 1].abs()) < 0.1
    other = bound(chain, says, x0, calls, key=1)
    assert not torch.equal(other.steps, found.steps)


def test_a_bound_takes_two_to_T_calls() -> None:
    for calls in (1, 10):
        with pytest.raises(ValueError, match="takes 2 to 9 calls, got"):
            bound(ladder((-2.0, 3.0), 9), gaussian(), randn(2, 4, seed=1), calls)


def test_the_bound_lies_below_the_density_and_tightens_with_T() -> None:
    oracle = MixtureDenoiser(torch.ones(3), randn(3, 2, seed=11), torch.full((3,), 0.05, dtype=F64))
    x0, repeats = randn(4, 2, seed=12), 1024
    gaps: list[Estimate] = []
    for T, calls in ((8, None), (32, None), (128, None), (100_000, 128)):
        found = bound(ladder((-7.0, 5.0), T), oracle, x0.repeat(repeats, 1), calls).total
        gaps.append(Estimate.of((found.reshape(repeats, 4) + oracle.log_prob(x0, DATA)).mean(1, keepdim=True)))
    for gap in gaps[:3]:
        assert float(gap.mean) > 5 * float(gap.standard_error)
    for looser, tighter in pairwise(gaps):
        assert float(tighter.mean) < 0.5 * float(looser.mean)
    assert abs(float(gaps[3].mean)) < 3 * float(gaps[3].standard_error) < 0.15


# Bytes.


def test_a_uniform_box_has_eight_bits() -> None:
    """Every byte alike: 8 bits per dimension through the flow, uniform dequantisation and the change of unit."""
    x0 = torch.randint(0, 256, (32, 48), generator=torch.Generator().manual_seed(2)).double() / 127.5 - 1
    box = BoxDenoiser(-1 - 1 / 255, 1 + 1 / 255)
    flow = Flow(box, {}, rising(96), SOLVERS["unipc-3"]())
    terms = uniform_terms(flow, x0, HutchinsonTrace(signs(randn(32, 48, seed=3))), randn(32, 48, seed=4))
    assert list(terms) == ["flow", "bins"]
    assert bits_per_dim(terms["bins"], 48).tolist() == pytest.approx([math.log2(127.5)] * 32)
    assert float(bits_per_dim(sum(terms.values()), 48).mean()) == pytest.approx(8, abs=0.01)  # pyright: ignore


def test_the_density_of_spread_bytes_is_that_of_x_over_alpha() -> None:
    """At a first level of much noise, where alpha is not nearly 1; in data units, by change of variables."""
    x0, levels = four_pictures()[:, :4], rising(200, 0.5, pure=True)
    alpha = float(levels[0].alpha)
    terms = uniform_terms(
        Flow(gaussian(), {}, levels, SOLVERS["unipc-3"]()), x0, ExactTrace(), torch.zeros(4, 4, dtype=F64)
    )
    expected = -(gaussian().log_prob(alpha * x0, levels[0]) + 4 * math.log(alpha))
    assert torch.allclose(terms["flow"], expected, rtol=0, atol=1e-4)


def test_uniform_dequantisation_is_uniform_in_the_bin() -> None:
    """The flow sees alpha z, z within half a bin of x0, evenly."""
    seen: list[Tensor] = []

    def spy(x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        seen.append(x.detach())
        return Prediction(0 * x)

    levels, x0 = rising(2), torch.full((4000, 1), 51 / 255, dtype=F64)
    uniform_terms(Flow(spy, {}, levels, SOLVERS["ddim"]()), x0, ExactTrace(), randn(4000, 1, seed=5))
    off = (seen[0] / float(levels[0].alpha) - x0) * 255 / 2
    assert float(off.min()) >= -0.5 and float(off.max()) <= 0.5
    assert float(off.mean()) == pytest.approx(0, abs=0.02) and float(off.var()) == pytest.approx(1 / 12, rel=0.05)


def four_pictures() -> Tensor:
    return torch.randint(0, 256, (4, 16), generator=torch.Generator().manual_seed(3)).double() / 127.5 - 1


def test_a_flow_that_knows_four_pictures_holds_each_for_a_quarter() -> None:
    pictures = four_pictures()
    chain = ladder((-7.0, 7.0), 1000)
    flow = Flow(DatasetDenoiser(pictures), {}, rising(400), SOLVERS["unipc-3"]())
    decoder = byte_decoder(chain, "large")
    terms = noise_terms(flow, pictures, ExactTrace(), randn(4, 16, seed=6), decoder)
    assert float(terms["decoder"].abs().max()) < 1e-3
    assert sum(terms.values()).tolist() == pytest.approx([math.log(4)] * 4, abs=0.01)  # pyright: ignore


def test_the_flow_of_spread_pictures_is_at_the_level_it_says() -> None:
    """At sigma/alpha = 0.37 the four are still far apart: log q - log p is log 4, and alpha is not nearly 1."""
    pictures, chain = four_pictures(), ladder((-7.0, 1.0), 1000)
    flow = Flow(DatasetDenoiser(pictures), {}, rising(200, 1.0, pure=True), SOLVERS["unipc-3"]())
    terms = noise_terms(flow, pictures, ExactTrace(), 0.3 * randn(4, 16, seed=6), byte_decoder(chain, "large"))
    assert terms["flow"].tolist() == pytest.approx([math.log(4)] * 4, abs=0.02)


def test_the_bound_of_one_that_knows_four_pictures_is_a_quarter_too() -> None:
    pictures, repeats = four_pictures().repeat(64, 1), 64
    chain = ladder((-7.0, 7.0), 100_000)
    found = variational_bound(
        chain,
        DatasetDenoiser(four_pictures()),
        pictures,
        cond={},
        noise=Keyed((256, 16)),
        decoder=byte_decoder(chain, "large"),
        calls=100,
    )
    terms = bound_terms(found)
    assert list(terms) == ["prior", "diffusion", "decoder"]
    total = Estimate.of(sum(terms.values()).reshape(repeats, 4).mean(1, keepdim=True))  # pyright: ignore
    assert abs(float(total.mean) - math.log(4)) < 3 * float(total.standard_error) < 0.2


def test_bits_are_nats_by_log_two_and_dimensions() -> None:
    assert bits_per_dim(torch.tensor([6 * math.log(2)], dtype=F64), 3).tolist() == pytest.approx([2.0])
