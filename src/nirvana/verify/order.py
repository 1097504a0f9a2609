"""Deterministic solvers: the order of their error against exact trajectories, primed, started, and there and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nirvana.diffusion import Level
from nirvana.diffusion.level import rewalked
from nirvana.verify.cases import Case, case
from nirvana.verify.finding import Finding
from nirvana.verify.problems import WithVariance
from nirvana.verify.settings import RAMP, SCHEDULES, interior, ramp, whole
from nirvana.verify.slope import SLACK, measured
from nirvana.verify.walks import AnySolver, Counted, Silence, ended, primed

PROBLEM = "mixture"
FIRST = 16
"""The fewest steps an order is measured with."""

Attempt = Callable[[Counted, Case, list[Level]], float]
"""(denoiser, exact trajectories, levels) -> relative error."""


def primed_order(
    solver: AnySolver, name: str, schedule: str, spacing: str, last: int, *, early: bool = False
) -> Finding:
    """With exact history: at least `order`. Interior levels.

    The first steps start from the exact trajectory. They are short ones that double, because a corrector goes back to
    an x of its own, which no one can put right: there it leaves an error too small to be seen.
    """

    def attempt(denoiser: Counted, exact: Case, levels: list[Level]) -> float:
        levels = rewalked([*ramp(levels[0], levels[1]), *levels[1:]])
        history = exact.along(levels[: RAMP + solver.order])
        return exact.error(primed(solver, denoiser, history, levels, Silence()))

    return _finding("order", name, schedule, spacing, solver.order, attempt, last, early)


def started_order(
    solver: AnySolver, name: str, schedule: str, spacing: str, last: int, *, early: bool = False
) -> Finding:
    """As `trajectory` walks: at least `started_order`. Interior levels."""

    def attempt(denoiser: Counted, exact: Case, levels: list[Level]) -> float:
        return exact.error(_end(solver, denoiser, exact.x, levels))

    return _finding("started order", name, schedule, spacing, solver.started_order, attempt, last, early)


def full_range(solver: AnySolver, name: str, schedule: str, last: int, *, early: bool = False) -> Finding:
    """From the schedule's noise to clean data, with its exact ends: the order is reported, and is at least 1.

    The last step, from a ratio r to 0, leaves an error near r^2 whatever the solver, and a schedule that ends at r > 0
    keeps it; so an error below 2 r^2 will do.
    """
    along, levels = SCHEDULES[schedule](), list[Level]()

    def error(n: int) -> float:
        levels[:] = whole(along, n)
        exact = case(PROBLEM, levels)
        return exact.error(ended(solver, WithVariance(exact.problem.denoiser), exact.x, levels, Silence()))

    slope = measured(error, first=FIRST, last=last, early=early)
    least, rest = slope.errors[max(slope.errors)], 2 * float(levels[-2].ratio) ** 2
    passed = slope.late >= 1 - SLACK or least <= rest
    return Finding("full range", name, schedule, passed, slope.listed, 1.0, slope.late)


def round_trip(solver: AnySolver, name: str, schedule: str, spacing: str, last: int, *, early: bool = False) -> Finding:
    """Encoding along rising levels and then decoding comes back: at least `started_order`. Interior levels."""

    def attempt(denoiser: Counted, exact: Case, levels: list[Level]) -> float:
        noisy = _end(solver, denoiser, exact.end, rewalked(levels[::-1]))
        return exact.error(_end(solver, denoiser, noisy, levels))

    return _finding("round trip", name, schedule, spacing, solver.started_order, attempt, last, early)


def _end(solver: AnySolver, denoiser: Counted, x: Tensor, levels: list[Level]) -> Tensor:
    return ended(solver, denoiser, x, levels, Silence())


def _finding(
    proof: str, name: str, schedule: str, spacing: str, declared: int, attempt: Attempt, last: int, early: bool
) -> Finding:
    along, calls = SCHEDULES[schedule](), 0

    def error(n: int) -> float:
        nonlocal calls
        levels = interior(along, spacing, n)
        exact = case(PROBLEM, levels)
        denoiser = Counted(WithVariance(exact.problem.denoiser))
        found = attempt(denoiser, exact, levels)
        calls = denoiser.calls
        return found

    slope = measured(error, first=FIRST, last=last, early=early)
    passed = slope.at_least(float(declared))
    return Finding(proof, name, f"{schedule} {spacing}", passed, str(slope), float(declared), slope.value, calls)
