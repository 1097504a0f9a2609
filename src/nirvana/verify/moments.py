"""Stochastic solvers: the order of their mean and covariance on a Gaussian, exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from torch import Tensor

from nirvana.diffusion import Level
from nirvana.verify.finding import Finding
from nirvana.verify.impulses import Affine, affine
from nirvana.verify.problems import WithVariance, gaussian
from nirvana.verify.settings import SCHEDULES, interior, whole
from nirvana.verify.slope import SLACK, Slope, measured
from nirvana.verify.walks import AnySolver, Counted

DIMENSIONS = 2
FIRST = 8
"""The fewest steps an order is measured with."""


def moments(solver: AnySolver, name: str, schedule: str, spacing: str, last: int, *, early: bool = False) -> Finding:
    """As `trajectory` walks, mean and covariance converge to those of the last level: at least `started_order`."""
    slopes, _, calls = _slopes(solver, lambda n: interior(SCHEDULES[schedule](), spacing, n), last, early)
    worst, declared = min(slopes, key=lambda which: _value(slopes[which])), float(solver.started_order)
    passed = all(slope.at_least(declared) for slope in slopes.values())
    detail = f"{worst}: {slopes[worst]}"
    return Finding("moments", name, f"{schedule} {spacing}", passed, detail, declared, slopes[worst].value, calls)


def full_range(solver: AnySolver, name: str, schedule: str, last: int, *, early: bool = False) -> Finding:
    """From the schedule's noise to clean data, with its exact ends: the order is reported, and is at least 1.

    An error below 2 r^2, r the ratio from which the last step goes to 0, will do (see `order.full_range`).
    """
    slopes, levels, _ = _slopes(solver, lambda n: whole(SCHEDULES[schedule](), n), last, early)
    worst = min(slopes, key=lambda which: slopes[which].late)
    rest, least = 2 * float(levels[-2].ratio) ** 2, float(min(1, solver.order))
    passed = all(s.late >= least - SLACK or s.errors[max(s.errors)] <= rest for s in slopes.values())
    detail = f"{worst}: {slopes[worst].listed}"
    return Finding("full range", name, schedule, passed, detail, least, slopes[worst].late)


def _slopes(
    solver: AnySolver, grid: Callable[[int], list[Level]], last: int, early: bool
) -> tuple[dict[str, Slope], list[Level], int]:
    """The slopes of mean and covariance, the finest levels, and the network calls along them."""
    problem, calls, finest = gaussian(DIMENSIONS), dict[int, int](), list[Level]()

    @cache
    def walked(n: int) -> Affine:
        finest[:] = grid(n)
        denoiser = Counted(WithVariance(problem.denoiser))
        found = affine(solver, denoiser, DIMENSIONS, finest)
        calls[n] = denoiser.calls // 2  # it walks once to see what is drawn
        return found

    def mean(n: int) -> float:
        found = walked(n)
        return _relative(found.mean(problem.moments(finest[0])[0]), problem.moments(finest[-1])[0])

    def covariance(n: int) -> float:
        found = walked(n)
        return _relative(found.cov(problem.moments(finest[0])[1]), problem.moments(finest[-1])[1])

    slopes = {
        "mean": measured(mean, first=FIRST, last=last, early=early),
        "covariance": measured(covariance, first=FIRST, last=last, early=early),
    }
    return slopes, finest, calls[max(calls)]


def _value(slope: Slope) -> float:
    return float("-inf") if slope.value is None else slope.value


def _relative(found: Tensor, true: Tensor) -> float:
    """The distance in units of the true one; 0 where both are 0, as where a first step from pure noise forgets it."""
    off = float((found - true).norm())
    return off / float(true.norm()) if off else 0.0
