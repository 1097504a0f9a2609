"""The reference's own integration, and the standard problems."""

from __future__ import annotations

import math

import pytest
import torch

from nirvana.diffusion import Level, sample_rng
from nirvana.verify.cases import case
from nirvana.verify.distribution import Swift
from nirvana.verify.problems import PROBLEMS, gaussian, mixture
from nirvana.verify.reference import Reference, integrate
from nirvana.verify.settings import RAMP, SCHEDULES, SPACINGS, interior, ramp

F64 = torch.float64


def test_it_integrates_to_rounding():
    y = torch.tensor([1.0, 2.0], dtype=F64)
    assert torch.allclose(integrate(lambda a, y: a * y, y, 0.0, 3.0), y * math.exp(4.5), rtol=1e-12, atol=0)
    back = integrate(lambda a, y: a * y, y * math.exp(4.5), 3.0, 0.0)
    assert torch.allclose(back, y, rtol=1e-12, atol=0)
    assert torch.equal(integrate(lambda a, y: y / 0, y, 1.0, 1.0), y)


def test_what_cannot_be_integrated_is_refused():
    with pytest.raises(ValueError, match="no reference solution near 0"):
        integrate(lambda a, y: torch.full_like(y, math.nan), torch.ones(1, dtype=F64), 0.0, 1.0)


def test_a_case_is_on_one_trajectory():
    levels = interior(SCHEDULES["ve"](), "uneven", 6)
    exact = case("mixture", levels)
    *_, last = exact.along(levels)
    assert exact.error(last) < 1e-12
    assert exact.error(exact.end * 1.01) == pytest.approx(0.01)
    there = Reference(exact.problem.denoiser, exact.end, levels[-1]).at(levels[0])
    assert torch.allclose(there, exact.x, rtol=0, atol=1e-10)


def test_a_trajectory_from_pure_noise_to_clean_data():
    levels = [Level.of(0.0, 1.0), Level.of(1.0, 0.0)]
    exact = case("gaussian", levels)
    integrated = Reference(lambda x, level, cond, nxt=None: exact.problem.denoiser(x, level, cond), exact.x, levels[0])
    assert exact.error(integrated.at(levels[1])) < 1e-11


@pytest.mark.parametrize("name", PROBLEMS)
def test_draws_are_of_the_problem(name: str):
    """E[x0 | x] has the mean of the draws, and x0 - E[x0 | x] is uncorrelated with it: both hold for no other law."""
    problem, level = PROBLEMS[name](), Level.of(0.8, 0.6)
    x0 = problem.draw(20_000, sample_rng(1, 0, "draws"))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    predicted = problem.denoiser(level.alpha * x0 + level.sigma * noise, level, {}).x0
    assert float((x0 - predicted).mean(0).abs().max()) < 0.02
    assert float(((x0 - predicted) * predicted).mean(0).abs().max()) < 0.02
    assert torch.equal(problem.at(level, 5, seed=3), problem.at(level, 5, seed=3))


def test_moments_of_the_gaussian():
    problem, level = gaussian(2), Level.of(0.5, 2.0)
    mean, cov = problem.moments(level)
    x = problem.at(level, 200_000, seed=1)
    assert torch.allclose(x.mean(0), mean, atol=0.02) and torch.allclose(torch.cov(x.T), cov, atol=0.05)


def test_swift_is_the_mixture():
    problem = mixture()
    for level in (Level.of(0.0, 1.0), Level.of(0.6, 0.8), Level.of(1.0, 0.05), Level.of(1.0, 7.0)):
        x = problem.at(level, 50, seed=4)
        found, true = Swift(problem.denoiser)(x, level, {}).x0, problem.denoiser(x, level, {}).x0
        assert torch.allclose(found, true, rtol=0, atol=1e-11)


@pytest.mark.parametrize("spacing", [*SPACINGS, "lam"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_interior_levels_fall_between_the_same_ends(schedule: str, spacing: str):
    levels = interior(SCHEDULES[schedule](), spacing, 8)
    lam = torch.stack([level.lam for level in levels])
    assert len(levels) == 9 and bool((lam.diff() > 0).all())
    assert lam[[0, -1]].tolist() == pytest.approx([-1.3, 1.3], abs=1e-6)


def test_uneven_steps_alternate_and_a_ramp_doubles():
    assert SPACINGS["uneven"](4).diff().tolist() == pytest.approx([1 / 6, 2 / 6, 1 / 6, 2 / 6])
    levels = ramp(Level.of(0.0, 1.0), Level.of(1.0, 0.0))
    assert len(levels) == RAMP
    steps = torch.stack([level.alpha for level in [*levels, Level.of(1.0, 0.0)]]).diff()
    assert steps[0] == steps[1] and torch.allclose(steps[2:] / steps[1:-1], torch.full((RAMP - 2,), 2.0, dtype=F64))
