"""Preconditioned: the scale property, codes, conditions, dtypes, learned variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from nirvana.diffusion.denoiser import NOISE_CODES, Cond, Denoiser, Native, NoiseCode, Preconditioned, TableCode
from nirvana.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import (
    EDM,
    PARAMETERIZATIONS,
    X0,
    Eps,
    Flow,
    FlowVelocity,
    Parameterization,
    Score,
    Velocity,
    eps_from_x0,
)
from nirvana.diffusion.schedule import Cosine, RectifiedFlow, Tabulated

F64 = torch.float64
CASES: dict[str, Parameterization] = {
    **PARAMETERIZATIONS,
    "velocity-flow": FlowVelocity(RectifiedFlow()),
    "velocity-cosine": FlowVelocity(Cosine()),
}


class Recorder(nn.Module):
    """A network that mixes everything it is given, and keeps what it was given."""

    def __init__(
        self,
        slots: tuple[str, ...] = (),
        dtype: torch.dtype = F64,
        answer: Callable[[Tensor, Tensor], Tensor] = lambda x, noise: torch.tanh(x) + noise.reshape(-1, 1, 1) / 700,
    ) -> None:
        super().__init__()
        self.slots = frozenset(slots)
        self.weight = nn.Parameter(torch.ones((), dtype=dtype))
        self.answer = answer
        self.calls: list[tuple[Tensor, Tensor, Cond]] = []

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        self.calls.append((x, noise, cond))
        return self.answer(x, noise)


def preconditioned(
    net: nn.Module | None = None,
    parameterization: Parameterization | None = None,
    native: Native = "unit",
    c_in: Literal["none", "edm"] = "none",
    c_noise: NoiseCode | None = None,
    sigma_data: float = 0.5,
    learned_variance: bool = False,
) -> Preconditioned:
    return Preconditioned(
        net or Recorder(),
        parameterization or Velocity(),
        native=native,
        c_in=c_in,
        c_noise=c_noise or NOISE_CODES["angle"],
        sigma_data=sigma_data,
        learned_variance=learned_variance,
    )


def state(generator_seed: int = 1) -> Tensor:
    return torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(generator_seed), dtype=F64)


@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
@pytest.mark.parametrize("c_in", ["none", "edm"])
@pytest.mark.parametrize("name", CASES)
def test_denoising_does_not_depend_on_the_scale(name: str, c_in: Literal["none", "edm"], native: Native):
    x = state()
    for code in NOISE_CODES.values():
        denoiser = preconditioned(None, CASES[name], native, c_in, code)
        for level in (Level.of(0.6, 0.9), Level.from_lam(torch.tensor([-2.0, 0.1, 3.0], dtype=F64))):
            expected = denoiser(x, level, {}).x0
            for c in (0.01, 3.7, 900.0):
                assert torch.allclose(denoiser(c * x, level.scaled(c), {}).x0, expected, rtol=1e-12, atol=1e-13)


def gaussian() -> GaussianDenoiser:
    root = torch.randn(10, 10, generator=torch.Generator().manual_seed(4), dtype=F64) / 3
    return GaussianDenoiser(state(5)[0], root @ root.T)


def mixture() -> MixtureDenoiser:
    return MixtureDenoiser(torch.tensor([1.0, 2.0, 0.5]), state(6), torch.tensor([0.3, 0.05, 0.1]))


def as_network(oracle: Denoiser, name: str, native: Native) -> Callable[[Level], Preconditioned]:
    """The oracle as a network that predicts F = p*x0 + q*eps, for one level."""

    def at(level: Level) -> Preconditioned:
        asked = level.scaled(level.scale_to(native))
        p, q = CASES[name](asked)

        def answer(x: Tensor, noise: Tensor) -> Tensor:
            del noise
            x0 = oracle(x, asked, {}).x0
            eps = x / asked.sigma if asked.is_pure_noise else eps_from_x0(x, x0, asked)
            return p * x0 + q * eps

        return preconditioned(Recorder(answer=answer), CASES[name], native)

    return at


@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
@pytest.mark.parametrize("oracle", [gaussian(), mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("name", CASES)
def test_all_parameterizations_are_the_same_denoiser(name: str, oracle: Denoiser, native: Native):
    x = state()
    for lam in (-3.0, -1.0, 0.0, 0.7, 2.5):
        level = Level.from_lam(lam).scaled(1.9)
        expected = oracle(x, level, {}).x0
        found = as_network(oracle, name, native)(level)(x, level, {}).x0
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    pure, clean = Level.of(0.0, 1.9), Level.of(1.9, 0.0)
    if name not in ("eps", "score") and native != "ratio":
        found = as_network(oracle, name, native)(pure)(x, pure, {}).x0
        assert torch.allclose(found, oracle(x, pure, {}).x0, rtol=0, atol=1e-12)
    found = preconditioned(Recorder(answer=lambda x, noise: x), CASES[name], native)(x, clean, {}).x0
    assert torch.allclose(found, x / 1.9, rtol=0, atol=1e-12)


@pytest.mark.parametrize("oracle", [gaussian(), mixture()], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("lam", [-3.0, 0.0, 2.0])
def test_the_score_is_the_gradient_of_log_p(lam: float, oracle: GaussianDenoiser | MixtureDenoiser):
    level, x = Level.from_lam(lam), state().requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(x, level).sum(), x)
    x = x.detach()
    x0 = oracle(x, level, {}).x0
    p, q = Score()(level)
    assert torch.allclose(p * x0 + q * eps_from_x0(x, x0, level), score, rtol=1e-11, atol=1e-11)
    denoiser = preconditioned(Recorder(answer=lambda x, noise: score), Score())
    assert torch.allclose(denoiser(x, level, {}).x0, x0, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
def test_a_level_is_checked_without_a_call(native: Native):
    pure, inner = Level.of(0.0, 1.0), Level.of(0.3, 0.5)
    for name in CASES:
        net = Recorder()
        denoiser = preconditioned(net, CASES[name], native)
        denoiser.check_level(inner)
        if native == "ratio" or name in ("eps", "score"):
            with pytest.raises(ValueError, match="start the levels at alpha > 0"):
                denoiser.check_level(pure)
        else:
            denoiser.check_level(pure)
        assert net.calls == []


@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
def test_the_network_is_asked_at_its_native_scale(native: Native):
    net = Recorder()
    x, level = state(), Level.of(3.0, 4.0)
    out = preconditioned(net, native=native).output(x, level, {})
    scale = {"unit": 1 / 5, "ratio": 1 / 3, "sum": 1 / 7}[native]
    assert torch.allclose(net.calls[0][0], scale * x, rtol=1e-15, atol=0)
    assert torch.allclose(out.x_native, scale * x, rtol=1e-15, atol=0)
    assert float(out.level_native.alpha) == pytest.approx(3 * scale, rel=1e-15)
    assert float(out.level_native.sigma) == pytest.approx(4 * scale, rel=1e-15)


@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
def test_edm_inputs_have_unit_variance(native: Native):
    net = Recorder()
    x, level = state(), Level.of(1.0, 3.0)
    preconditioned(net, native=native, c_in="edm", sigma_data=0.7).output(x, level, {})
    assert torch.allclose(net.calls[0][0], x / math.sqrt(9 + 0.49), rtol=1e-14, atol=0)


@pytest.mark.parametrize("lam", [-2.0, 0.3, torch.tensor([-1.0, 0.0, 2.0], dtype=F64)], ids=["-2", "0.3", "batch"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("native", ["unit", "ratio", "sum"])
def test_a_network_that_is_right_gives_x0(native: Native, name: str, lam: float | Tensor):
    x0, eps = state(1), state(2)
    level = Level.from_lam(lam).scaled(1.7)
    parameterization = CASES[name]
    sizes = {"unit": level.norm, "ratio": level.alpha, "sum": level.alpha + level.sigma}
    p, q = (left_align(c, x0) for c in parameterization(level.scaled(1 / sizes[native])))
    net = Recorder(answer=lambda x, noise: p * x0 + q * eps)
    alpha, sigma = level.like(x0)
    denoiser = preconditioned(net, parameterization, native)
    assert torch.allclose(denoiser(alpha * x0 + sigma * eps, level, {}).x0, x0, rtol=0, atol=1e-12)
    out = denoiser.output(alpha * x0 + sigma * eps, level, {})
    assert torch.allclose(left_align(out.pq[0], x0) * x0 + left_align(out.pq[1], x0) * eps, out.F, rtol=0, atol=1e-13)


def test_codes():
    for level in (Level.of(1.0, 1.0), Level.of(0.02, 0.02)):
        codes = {name: float(code(level)) for name, code in NOISE_CODES.items()}
        assert codes == pytest.approx({"angle": 500, "flow_time": 500, "edm": 0}, abs=1e-12)
    assert float(NOISE_CODES["flow_time"](Level.of(0.75, 0.25))) == pytest.approx(250)
    assert float(NOISE_CODES["edm"](Level.of(1.0, 80.0))) == pytest.approx(math.log(80) / 4)
    ends = Level.from_lam(torch.tensor([-math.inf, math.inf]))
    assert NOISE_CODES["angle"](ends).tolist() == NOISE_CODES["flow_time"](ends).tolist() == [1000, 0]
    assert NOISE_CODES["edm"](ends).tolist() == [3, -3]


def test_table_code_is_the_index_from_zero():
    table = Tabulated.from_beta(torch.linspace(1e-4, 0.02, 1000, dtype=F64))
    code = TableCode(table)
    assert torch.equal(code(Level(table.alpha[1:], table.sigma[1:]).scaled(5.0)), torch.arange(1000.0, dtype=F64))
    assert float(code(Level.from_lam(math.inf))) == 0
    assert float(code(Level.from_lam(-math.inf))) == 999


def test_one_code_per_item():
    net = Recorder()
    x = state()
    preconditioned(net)(x, Level.of(1.0, 1.0), {})
    assert net.calls[-1][1].tolist() == pytest.approx([500, 500, 500])
    preconditioned(net)(x, Level.from_angle(torch.tensor([0.0, math.pi / 4, math.pi / 2], dtype=F64)), {})
    assert net.calls[-1][1].tolist() == pytest.approx([0, 500, 1000])
    with pytest.raises(ValueError, match=r"one level per item, shape \(\) or \(3,\), got \(3, 2\)"):
        preconditioned(net, Eps())(torch.zeros(3, 2, 5), Level.from_lam(torch.zeros(3, 2, dtype=F64)), {})


def test_levels_per_item_equal_one_at_a_time():
    denoiser = preconditioned(None, Flow(), "sum", "edm")
    x, lam = state(), torch.tensor([-1.0, 0.4, 2.0], dtype=F64)
    together = denoiser(x, Level.from_lam(lam), {}).x0
    alone = torch.cat([denoiser(x[i : i + 1], Level.from_lam(lam[i]), {}).x0 for i in range(3)])
    assert torch.allclose(together, alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_dtype_of_the_network_is_entered_and_left(dtype: torch.dtype):
    net = Recorder(("vector", "tokens_mask"), dtype, answer=lambda x, noise: x)
    cond = {"vector": torch.ones(3, 4), "tokens_mask": torch.ones(3, 2, dtype=torch.bool)}
    prediction = preconditioned(net, X0())(state(), Level.from_angle(math.pi / 2 * 0.9973), cond)
    x, noise, seen = net.calls[0]
    assert x.dtype == seen["vector"].dtype == dtype
    assert seen["tokens_mask"].dtype == torch.bool
    assert noise.dtype == torch.float32 and float(noise[0]) == pytest.approx(997.3, rel=1e-6)
    assert prediction.x0.dtype == F64


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ({}, "needs the condition 'tokens' .given: none"),
        ({"tokens": torch.zeros(3, 1)}, "needs the condition 'vector' .given: tokens"),
        ({"vectors": torch.zeros(3, 1)}, "no condition 'vectors'; did you mean 'vector'. .it takes: tokens, vector"),
        ({"zzz": torch.zeros(3, 1)}, r"no condition 'zzz' \(it takes"),
        ({"tokens": torch.zeros(3, 1), "vector": torch.zeros(2, 1)}, "'vector' has shape .2, 1., the batch has 3"),
        ({"tokens": torch.zeros(3, 1), "vector": torch.zeros(())}, "'vector' has shape"),
    ],
)
def test_slots_that_do_not_match_are_refused_before_the_call(cond: Cond, message: str):
    net = Recorder(("vector", "tokens"))
    with pytest.raises(ValueError, match=message):
        preconditioned(net)(state(), Level.of(1.0, 1.0), cond)
    assert net.calls == []


def test_learned_variance_is_the_second_half_of_the_channels():
    net = Recorder(answer=lambda x, noise: torch.cat([x, 7 * x], dim=1))
    x, level = state(), Level.of(0.6, 0.8)
    prediction = preconditioned(net, X0(), learned_variance=True)(x, level, {})
    assert torch.allclose(prediction.x0, x, rtol=1e-15, atol=0)
    assert prediction.var_frac is not None and torch.allclose(prediction.var_frac, 7 * x, rtol=1e-15, atol=0)
    assert preconditioned(None, X0())(x, level, {}).var_frac is None


@pytest.mark.parametrize("learned", [False, True])
def test_a_wrong_number_of_channels_is_refused(learned: bool):
    net = Recorder(answer=lambda x, noise: torch.cat([x] * (1 if learned else 2), dim=1))
    with pytest.raises(ValueError, match=f"expected {4 if learned else 2} channels"):
        preconditioned(net, learned_variance=learned)(state(), Level.of(1.0, 1.0), {})


def test_ends():
    x = state()
    pure, clean = Level.of(0.0, 2.0), Level.of(2.0, 0.0)
    for parameterization in (X0(), Velocity(), Flow(), EDM()):
        for native in ("unit", "sum"):
            denoiser = preconditioned(None, parameterization, native)
            assert bool(denoiser(x, pure, {}).x0.isfinite().all())
            assert torch.allclose(denoiser(x, clean, {}).x0, x / 2, rtol=1e-14, atol=1e-15)
    with pytest.raises(ValueError, match="start the levels at alpha > 0"):
        preconditioned(None, Eps())(x, pure, {})
    with pytest.raises(ValueError, match="start the levels at alpha > 0"):
        preconditioned(None, EDM(), "ratio")(x, pure, {})


def test_unknown_choices_are_refused():
    for wrong in ({"native": "nit"}, {"c_in": "vp"}):
        choices = {"native": "unit", "c_in": "none"} | wrong
        with pytest.raises(Exception, match=r"nit|vp"):
            Preconditioned(Recorder(), Flow(), c_noise=NOISE_CODES["angle"], **choices)  # pyright: ignore


def test_gradients_reach_the_network_and_the_state():
    net = Recorder(answer=lambda x, noise: x)
    denoiser = preconditioned(net, Flow(), "sum", "edm")
    x = state().requires_grad_()
    net.answer = lambda x, noise: net.weight * x
    denoiser(x, Level.of(0.5, 0.5), {}).x0.sum().backward()
    assert net.weight.grad is not None and float(net.weight.grad) != 0
    assert x.grad is not None and bool((x.grad != 0).all())
