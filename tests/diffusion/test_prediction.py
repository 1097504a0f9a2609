"""Parameterizations: all say the same x0 and eps, have their limits, and refuse what they do not determine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import (
    EDM,
    PARAMETERIZATIONS,
    FlowVelocity,
    Parameterization,
    Score,
    eps_from_x0,
    to_eps,
    to_x0,
)
from nirvana.diffusion.schedule import VE, Cosine, LinearVP, RectifiedFlow, derivative, zero_terminal_snr

F64 = torch.float64
PURE, CLEAN = Level.of(0.0, 1.0), Level.of(1.0, 0.0)
CASES: dict[str, Parameterization] = {
    **PARAMETERIZATIONS,
    "velocity-flow": FlowVelocity(RectifiedFlow()),
    "velocity-cosine": FlowVelocity(Cosine()),
    "velocity-zero-vp": FlowVelocity(zero_terminal_snr(LinearVP())),
    "velocity-ve": FlowVelocity(VE()),
}
NO_X0_AT_NOISE = {"eps", "score", "velocity-ve"}
NO_EPS_AT_DATA = {"x0", "score", "velocity-cosine", "velocity-zero-vp"}


def truth(level: Level, parameterization: Parameterization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, eps, x and the right output F at `level`."""
    generator = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, 4, 3, 5, generator=generator, dtype=F64)
    p, q = (left_align(c, x0) for c in parameterization(level))
    alpha, sigma = level.like(x0)
    # A score at sigma = 0 is infinite, but a network says something: whatever it is.
    return x0, eps, alpha * x0 + sigma * eps, (p * x0 + q * eps).nan_to_num(7.0, 7.0, -7.0)


@pytest.mark.parametrize("scale", [1.0, 0.03, 40.0])
@pytest.mark.parametrize("lam", [-3.0, -1.0, 0.0, 0.4, 2.5])
@pytest.mark.parametrize("name", CASES)
def test_x0_and_eps_at_interior_levels(name: str, lam: float, scale: float):
    parameterization = CASES[name]
    level = Level.from_lam(lam).scaled(scale)
    x0, eps, x, F = truth(level, parameterization)
    pq = parameterization(level)
    assert torch.allclose(to_x0(F, x, level, pq), x0, rtol=0, atol=2e-13 * math.exp(max(0.0, -lam)))
    assert torch.allclose(to_eps(F, x, level, pq), eps, rtol=0, atol=2e-13 * math.exp(max(0.0, lam)))


@pytest.mark.parametrize("name", CASES)
def test_one_level_per_item_and_per_channel(name: str):
    parameterization = CASES[name]
    for shape in ((4,), (4, 3)):
        level = Level.from_lam(torch.linspace(-2, 2, math.prod(shape), dtype=F64).reshape(shape))
        x0, eps, x, F = truth(level, parameterization)
        pq = parameterization(level)
        assert torch.allclose(to_x0(F, x, level, pq), x0, rtol=0, atol=1e-12)
        assert torch.allclose(to_eps(F, x, level, pq), eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize("name", CASES)
def test_limits(name: str, scale: float):
    parameterization = CASES[name]
    clean, pure = CLEAN.scaled(scale), PURE.scaled(scale)
    x0, _, x, F = truth(clean, parameterization)
    assert torch.allclose(to_x0(F, x, clean, parameterization(clean)), x0, rtol=1e-14, atol=1e-14)
    x0, eps, x, F = truth(pure, parameterization)
    assert torch.allclose(to_eps(F, x, pure, parameterization(pure)), eps, rtol=1e-14, atol=1e-14)
    if name not in NO_X0_AT_NOISE:
        assert torch.allclose(to_x0(F, x, pure, parameterization(pure)), x0, rtol=1e-14, atol=1e-14)
    _, eps, x, F = truth(clean, parameterization)
    if name not in NO_EPS_AT_DATA:
        assert torch.allclose(to_eps(F, x, clean, parameterization(clean)), eps, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_may_mix_ends_and_interior(name: str):
    parameterization = CASES[name]
    both = Level.from_lam(torch.tensor([math.inf, 1.0, 0.0, -1.0], dtype=F64))
    x0, _, x, F = truth(both, parameterization)
    assert torch.allclose(to_x0(F, x, both, parameterization(both)), x0, rtol=0, atol=1e-13)
    both = Level.from_lam(torch.tensor([-math.inf, 1.0, 0.0, -1.0], dtype=F64))
    _, eps, x, F = truth(both, parameterization)
    assert torch.allclose(to_eps(F, x, both, parameterization(both)), eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_what_is_not_determined_is_refused(name: str):
    x, parameterization = torch.ones(2, 1), CASES[name]
    ends = {"x0": (to_x0, NO_X0_AT_NOISE, -math.inf), "eps": (to_eps, NO_EPS_AT_DATA, math.inf)}
    says = {"x0": r"alpha = 0 .*start the levels at alpha > 0", "eps": "eps at sigma = 0"}
    for what, (convert, undetermined, end) in ends.items():
        for lam in (torch.tensor(end), torch.tensor([0.0, end])):
            level = Level.from_lam(lam)
            if name not in undetermined:
                assert bool(convert(x, x, level, parameterization(level)).isfinite().all())
                continue
            with pytest.raises(ValueError, match=says[what]):
                convert(x, x, level, parameterization(level))


def test_x0_does_not_tell_eps_where_there_is_none():
    x = torch.ones(2, 1)
    for level in (CLEAN, Level.from_lam(torch.tensor([0.0, math.inf]))):
        with pytest.raises(ValueError, match="eps at sigma = 0"):
            eps_from_x0(x, x, level)


def test_formulas():
    level = Level.of(3.0, 4.0)
    expected = {"eps": (0, 1), "x0": (1, 0), "v": (-0.8, 0.6), "flow": (-1, 1), "score": (0, -0.25)}
    for name, pq in expected.items():
        assert [float(c) for c in PARAMETERIZATIONS[name](level)] == pytest.approx(pq, rel=1e-15)


def test_a_flow_velocity_is_the_derivative_of_x_along_the_schedule():
    """dx/dt of x_t = alpha(t) x0 + sigma(t) eps by finite differences, at any scale of the level it is asked at."""
    x0, eps, h = *torch.randn(2, 5, dtype=F64), 1e-6
    t = torch.tensor(0.37, dtype=F64)
    for schedule in (Cosine(), LinearVP(), VE(), RectifiedFlow()):
        x = [float(level.alpha) * x0 + float(level.sigma) * eps for level in (schedule(t - h), schedule(t + h))]
        for c in (1.0, 0.03):
            p, q = FlowVelocity(schedule)(schedule(t).scaled(c))
            assert torch.allclose(p * x0 + q * eps, (x[1] - x[0]) / (2 * h), rtol=1e-7, atol=1e-8)
            assert torch.allclose(torch.stack([p, q]), torch.stack(derivative(schedule, t)), rtol=1e-9, atol=0)
    flow, u = FlowVelocity(RectifiedFlow())(PURE), PARAMETERIZATIONS["flow"](PURE)
    assert [float(c) for c in flow] == [float(c) for c in u] == [-1, 1]


def test_a_score_at_another_scale_is_the_gradient_there():
    """x -> c x divides the gradient of log p by c."""
    level = Level.of(0.6, 0.8)
    assert float(Score()(level.scaled(10.0))[1]) == pytest.approx(float(Score()(level)[1]) / 10, rel=1e-15)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_edm_is_c_skip_and_c_out(sigma: float):
    """Karras et al. 2022, table 1: D = c_skip x + c_out F, at alpha = 1; F has unit variance for data of sigma_data."""
    data = 0.7
    level = Level.of(1.0, sigma)
    pq = EDM(data)(level)
    F, x = torch.randn(2, 5, 4, dtype=F64)
    c_skip, c_out = data**2 / (sigma**2 + data**2), sigma * data / math.sqrt(sigma**2 + data**2)
    assert torch.allclose(to_x0(F, x, level, pq), c_skip * x + c_out * F, rtol=1e-12, atol=1e-13)
    p, q = pq
    assert float(p**2 * data**2 + q**2) == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("lam", [-4.0, 0.0, 3.0])
def test_eps_from_x0(lam: float):
    level = Level.from_lam(lam).scaled(2.0)
    x0, eps, x, _ = truth(level, PARAMETERIZATIONS["eps"])
    assert torch.allclose(eps_from_x0(x, x0, level), eps, rtol=0, atol=1e-13)


def test_the_state_keeps_its_dtype():
    level, x = Level.from_lam(torch.tensor([0.2, 0.3])), torch.ones(2, 3)
    for parameterization in CASES.values():
        assert to_x0(x, x, level, parameterization(level)).dtype == torch.float32
        assert to_eps(x, x, level, parameterization(level)).dtype == torch.float32
