"""Stochastic solvers: the order of their mean and covariance on a Gaussian, exactly."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from nirvana.diffusion import uniform
from nirvana.verify.finding import Finding
from nirvana.verify.impulses import affine
from nirvana.verify.problems import WithVariance, gaussian
from nirvana.verify.settings import SCHEDULES, interior
from nirvana.verify.slope import Slope, measured
from nirvana.verify.walks import AnySolver, Counted

DIMENSIONS = 2
FIRST = 8
"""The fewest steps an order is measured with."""


def moments(solver: AnySolver, name: str, schedule: str, spacing: str, last: int) -> Finding:
    """As `trajectory` walks, mean and covariance at the last level converge to the marginal: at least `started_order`."""
    return _finding("moments", name, schedule, spacing, solver, solver.started_order, last)


def full_range(solver: AnySolver, name: str, schedule: str, last: int) -> Finding:
    """From the schedule's noise to clean data, with its exact ends: the order is reported, and at least 1 (or its own).

    The first level's marginal is the exact one, so a schedule that ends short of pure noise costs nothing.
    """
    return _finding("full range", name, schedule, "full", solver, min(solver.started_order, 1), last)


def _finding(
    proof: str, name: str, schedule: str, spacing: str, solver: AnySolver, declared: int, last: int
) -> Finding:
    along, problem = SCHEDULES[schedule](), gaussian(DIMENSIONS)
    calls: list[int] = []

    @cache
    def errors(n: int) -> tuple[float, float]:
        levels = uniform(along, n) if spacing == "full" else interior(along, spacing, n)
        denoiser = Counted(WithVariance(problem.denoiser))
        found = affine(solver, denoiser, DIMENSIONS, levels)
        calls.append(denoiser.calls // 2)  # it walks once to see what is drawn
        start, end = problem.moments(levels[0]), problem.moments(levels[-1])
        return _relative(found.mean(start[0]), end[0]), _relative(found.cov(start[1]), end[1])

    slopes = {
        "mean": measured(lambda n: errors(n)[0], first=FIRST, last=last),
        "covariance": measured(lambda n: errors(n)[1], first=FIRST, last=last),
    }
    worst = min(slopes, key=lambda which: _value(slopes[which]))
    passed = all(slope.at_least(declared) for slope in slopes.values())
    detail = f"{worst}: {slopes[worst]}"
    return Finding(proof, name, f"{schedule} {spacing}", passed, detail, declared, slopes[worst].value, calls[-1])


def _value(slope: Slope) -> float:
    return float("-inf") if slope.value is None else slope.value


def _relative(found: Tensor, true: Tensor) -> float:
    return float((found - true).norm() / true.norm())
