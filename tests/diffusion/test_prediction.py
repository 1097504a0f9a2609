"""Parameterizations: all say the same x0 and eps, have their limits, and refuse what they do not determine."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import EDM, PARAMETERIZATIONS, Parameterization, eps_from_x0, to_eps, to_x0

F64 = torch.float64
PURE, CLEAN = Level.of(0.0, 1.0), Level.of(1.0, 0.0)


def truth(level: Level, parameterization: Parameterization) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, eps, x and the right output F at `level`."""
    generator = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, 4, 3, 5, generator=generator, dtype=F64)
    p, q = (left_align(c, x0) for c in parameterization(level))
    alpha, sigma = level.like(x0)
    return x0, eps, alpha * x0 + sigma * eps, p * x0 + q * eps


@pytest.mark.parametrize("scale", [1.0, 0.03, 40.0])
@pytest.mark.parametrize("lam", [-3.0, -1.0, 0.0, 0.4, 2.5])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_x0_and_eps_at_interior_levels(name: str, lam: float, scale: float):
    parameterization = PARAMETERIZATIONS[name]
    level = Level.from_lam(lam).scaled(scale)
    x0, eps, x, F = truth(level, parameterization)
    pq = parameterization(level)
    assert torch.allclose(to_x0(F, x, level, pq), x0, rtol=0, atol=2e-13 * math.exp(max(0.0, -lam)))
    assert torch.allclose(to_eps(F, x, level, pq), eps, rtol=0, atol=2e-13 * math.exp(max(0.0, lam)))


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_one_level_per_item_and_per_channel(name: str):
    parameterization = PARAMETERIZATIONS[name]
    for shape in ((4,), (4, 3)):
        level = Level.from_lam(torch.linspace(-2, 2, math.prod(shape), dtype=F64).reshape(shape))
        x0, eps, x, F = truth(level, parameterization)
        pq = parameterization(level)
        assert torch.allclose(to_x0(F, x, level, pq), x0, rtol=0, atol=1e-12)
        assert torch.allclose(to_eps(F, x, level, pq), eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_limits(name: str, scale: float):
    parameterization = PARAMETERIZATIONS[name]
    clean, pure = CLEAN.scaled(scale), PURE.scaled(scale)
    x0, _, x, F = truth(clean, parameterization)
    assert torch.allclose(to_x0(F, x, clean, parameterization(clean)), x0, rtol=1e-14, atol=1e-14)
    x0, eps, x, F = truth(pure, parameterization)
    assert torch.allclose(to_eps(F, x, pure, parameterization(pure)), eps, rtol=1e-14, atol=1e-14)
    if name != "eps":
        assert torch.allclose(to_x0(F, x, pure, parameterization(pure)), x0, rtol=1e-14, atol=1e-14)
    _, eps, x, F = truth(clean, parameterization)
    if name != "x0":
        assert torch.allclose(to_eps(F, x, clean, parameterization(clean)), eps, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_batch_may_mix_ends_and_interior(name: str):
    parameterization = PARAMETERIZATIONS[name]
    both = Level.from_lam(torch.tensor([math.inf, 1.0, 0.0, -1.0], dtype=F64))
    x0, _, x, F = truth(both, parameterization)
    assert torch.allclose(to_x0(F, x, both, parameterization(both)), x0, rtol=0, atol=1e-13)
    both = Level.from_lam(torch.tensor([-math.inf, 1.0, 0.0, -1.0], dtype=F64))
    _, eps, x, F = truth(both, parameterization)
    assert torch.allclose(to_eps(F, x, both, parameterization(both)), eps, rtol=0, atol=1e-12)


def test_what_is_not_determined_is_refused():
    x = torch.ones(2, 1)
    eps, x0 = PARAMETERIZATIONS["eps"], PARAMETERIZATIONS["x0"]
    mixed = Level.from_lam(torch.tensor([0.0, -math.inf]))
    for level in (PURE, mixed):
        with pytest.raises(ValueError, match=r"alpha = 0 .*start the levels at alpha > 0"):
            to_x0(x, x, level, eps(level))
    mixed = Level.from_lam(torch.tensor([0.0, math.inf]))
    for level in (CLEAN, mixed):
        with pytest.raises(ValueError, match="eps at sigma = 0"):
            to_eps(x, x, level, x0(level))
        with pytest.raises(ValueError, match="eps at sigma = 0"):
            eps_from_x0(x, x, level)


def test_formulas():
    level = Level.of(3.0, 4.0)
    expected = {"eps": (0, 1), "x0": (1, 0), "v": (-0.8, 0.6), "flow": (-1, 1)}
    for name, pq in expected.items():
        assert [float(c) for c in PARAMETERIZATIONS[name](level)] == pytest.approx(pq, rel=1e-15)


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
    for parameterization in PARAMETERIZATIONS.values():
        assert to_x0(x, x, level, parameterization(level)).dtype == torch.float32
        assert to_eps(x, x, level, parameterization(level)).dtype == torch.float32
