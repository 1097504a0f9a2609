"""Langevin dynamics, worked out exactly on Gaussians: what law they keep, how soon they mix, who gets the steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nirvana.diffusion import GaussianDenoiser, Level, Noise, Prediction, RectifiedFlow, uniform
from nirvana.diffusion.inpaint import Langevin, Observed
from nirvana.verify.impulses import Affine, affine_map

F64 = torch.float64


def at_one_level(
    method: Langevin, denoiser: GaussianDenoiser, level: Level, known: Tensor, turns: int
) -> tuple[Affine, Tensor]:
    """The map of `turns` steps at `level`, and the covariance C of x there."""
    size, levels = len(known), [level, Level.of(1.0, 0.0)]
    (edit,) = Langevin(turns, method.size, method.friction).edits(Observed(torch.zeros(size), known), levels)

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return denoiser(x, level, {}, nxt)

    def walk(x: Tensor, noise: Noise) -> Tensor:
        return edit(x, level, denoise, noise)

    cov = level.alpha**2 * denoiser.cov + level.sigma**2 * torch.eye(size, dtype=F64)
    return affine_map(walk, size), cov


def of_curvature(k: float, level: Level) -> GaussianDenoiser:
    """A number whose -log p at `level` has the curvature k in q = x/sigma: variance sigma^2/k."""
    variance = level.sigma**2 * (1 / k - 1) / level.alpha**2
    return GaussianDenoiser(torch.zeros(1, dtype=F64), variance.reshape(1, 1))


@pytest.mark.parametrize("size", [0.6, 1.0, 1.9])
@pytest.mark.parametrize("k", [0.05, 0.5, 1.0])
def test_the_law_is_exact_at_every_stable_size(size: float, k: float):
    level = Level.of(2.0, 0.5)
    found, cov = at_one_level(Langevin(1, size, 0.7), of_curvature(k, level), level, torch.tensor([False]), 600)
    assert float(found.of_x.abs()) < 1e-8
    assert float(found.cov(torch.zeros(1, 1, dtype=F64))) == pytest.approx(float(cov), rel=1e-8)


def test_the_first_kick_is_half_of_one():
    """q -> q + h/2 (1 + c) (p - h/2 k q), c = exp(-friction h)."""
    level, k, h = Level.of(1.0, 0.7), 0.4, 1.2
    found, _ = at_one_level(Langevin(1, h, 0.3), of_curvature(k, level), level, torch.tensor([False]), 1)
    drift = h / 2 * (1 + math.exp(-0.3 * h))
    assert float(found.of_x) == pytest.approx(1 - drift * h / 2 * k, rel=1e-12)
    assert float(found.of_noise[0]) == pytest.approx(0.7 * drift, rel=1e-12)


def test_it_mixes_in_one_over_the_root_of_the_curvature():
    """Overdamped, with the same drift a step, exp(-k size^2/2 n) is left after n steps: it takes 1/k."""
    level, size = Level.of(1.0, 0.7), 1.0
    for k in (0.04, 0.01, 0.0025):
        turns = round(8 / (size * math.sqrt(k)))
        method = Langevin(1, size, 2 * math.sqrt(k))
        found, _ = at_one_level(method, of_curvature(k, level), level, torch.tensor([False]), turns)
        assert float(found.of_x.abs()) < 0.01
        assert math.exp(-k * size**2 / 2 * turns) > 0.4


def test_at_a_level_the_free_part_is_drawn_given_the_known():
    cov = torch.tensor([[1.0, 0.9, 0.3], [0.9, 1.0, 0.5], [0.3, 0.5, 1.5]], dtype=F64)
    denoiser, level = GaussianDenoiser(torch.zeros(3, dtype=F64), cov), Level.of(0.8, 0.6)
    known = torch.tensor([True, False, False])
    found, of_x = at_one_level(Langevin(1, 1.2, 0.5), denoiser, level, known, 300)
    x = torch.tensor([0.7, -3.0, 5.0], dtype=F64)
    truth = GaussianDenoiser(torch.zeros(3, dtype=F64), of_x).given(known, x[:1])
    assert torch.equal(found.mean(x)[:1], x[:1])
    assert torch.allclose(found.mean(x)[1:], truth.mean, rtol=0, atol=1e-8)
    assert torch.allclose(found.cov(torch.zeros(3, 3, dtype=F64))[1:, 1:], truth.cov, rtol=0, atol=1e-8)


def test_steps_are_shared_out_by_the_way_in_lam():
    levels = [Level.from_lam(lam) for lam in (-math.inf, -2.0, -1.0, 2.0, 3.0, math.inf)]
    assert Langevin(6).turns(levels) == [0, 4, 4, 12, 4]
    assert Langevin(6).turns(levels[1:]) == [4, 4, 12, 4]
    assert Langevin(6).turns(levels[:2]) == [0] and Langevin(6).turns(levels[1:3]) == [6]
    for n in (3, 10, 50):
        turns = Langevin(3).turns(uniform(RectifiedFlow(), n))
        assert len(turns) == n and sum(turns) == 3 * (n - 1) and min(turns) >= 0
    assert Langevin(0).turns(levels) == [0] * 5
