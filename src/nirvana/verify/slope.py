"""The order at which an error falls, measured inside its asymptotic window."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

AGREE = 0.1
"""Two successive slopes inside the window differ by no more."""

SLACK = 0.15
"""A slope may lie so far below the declared order."""

FLOOR = 2e-12
"""Relative errors below are rounding's."""

NEAR_FLOOR = 50 * FLOOR
"""Errors below are so near to rounding that their slopes need not agree."""


@dataclass(frozen=True)
class Slope:
    """Errors by number of steps, doubled each time, and the slope where they follow a power law.

    value: None where no window was found; inf where the errors are rounding's from the first on; the smallest of all
    slopes where the errors come down to rounding before two agree.
    """

    errors: dict[int, float]
    value: float | None

    def at_least(self, order: float) -> bool:
        """value >= order - SLACK."""
        return self.value is not None and self.value >= order - SLACK

    @property
    def late(self) -> float:
        """The mean slope of the last three doublings, asymptotic or not; inf at rounding, -inf at no number."""
        late = list(self.errors.values())[-4:]
        if not math.isfinite(late[-1]):
            return -math.inf
        return math.inf if late[-1] <= FLOOR else math.log2(late[0] / late[-1]) / max(1, len(late) - 1)

    @property
    def listed(self) -> str:
        """The errors."""
        errors = " ".join(f"{error:.1e}" for error in self.errors.values())
        return f"error {errors} at n = {min(self.errors)}..{max(self.errors)}"

    def __str__(self) -> str:
        if self.value is None:
            return f"no two successive slopes agree to {AGREE}; {self.listed}"
        return "exact to rounding" if math.isinf(self.value) else self.listed


def measured(error: Callable[[int], float], *, first: int, last: int, early: bool = False) -> Slope:
    """The slope of `error`, which is relative, at n = first, 2*first, ... up to `last` or down to rounding.

    The window is the finest three errors whose two slopes agree. Only errors near rounding may be finer than it: else
    a method whose first-order error shows late would be taken for what it is at first. For the same reason it is only
    `early` that three slopes which agree to half of AGREE end the search. Where there is no window up to `last`, it may
    lie at the next doubling: two are tried.
    """
    errors: dict[int, float] = {}
    n = first
    while n <= last or (n <= 4 * last and _window(list(errors.values())) is None):
        errors[n] = error(n)
        if not errors[n] > FLOOR or (early and _settled(list(errors.values()))):  # `not >`: or no number
            break
        n *= 2
    return Slope(errors, _window(list(errors.values())))


def _settled(errors: list[float]) -> bool:
    slopes = [math.log2(a / b) for a, b in pairwise(errors[-4:])]
    return len(slopes) == 3 and max(slopes) - min(slopes) <= AGREE / 2


def _window(errors: list[float]) -> float | None:
    if errors[0] <= FLOOR:
        return math.inf
    if not all(math.isfinite(error) for error in errors):
        return None
    above = [error for error in errors if error > FLOOR]
    slopes = [math.log2(a / b) for a, b in pairwise(above)]
    for end in range(len(slopes), 1, -1):
        if abs(slopes[end - 1] - slopes[end - 2]) <= AGREE:
            return slopes[end - 1]
        if above[end] > NEAR_FLOOR:
            break
    if errors[-1] > NEAR_FLOOR:
        return None
    clear = [slope for slope, error in zip(slopes, above[1:], strict=True) if error > NEAR_FLOOR]
    return min(clear, default=None)
