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

    value: None where no window was found; inf where the errors are rounding's from the first on.
    """

    errors: dict[int, float]
    value: float | None

    def at_least(self, order: float) -> bool:
        """value >= order - SLACK."""
        return self.value is not None and self.value >= order - SLACK

    def __str__(self) -> str:
        errors = " ".join(f"{error:.1e}" for error in self.errors.values())
        spread = f"error {errors} at n = {min(self.errors)}..{max(self.errors)}"
        if self.value is None:
            return f"no two successive slopes agree to {AGREE}; {spread}"
        return "exact to rounding" if math.isinf(self.value) else spread


def measured(error: Callable[[int], float], *, first: int, last: int) -> Slope:
    """The slope of `error`, which is relative, at n = first, 2*first, ... up to `last` or down to rounding.

    The window is the finest three errors whose two slopes agree. Only errors near rounding may be finer than it: else
    a method whose first-order error shows late would be taken for what it is at first.
    """
    errors: dict[int, float] = {}
    n = first
    while n <= last:
        errors[n] = error(n)
        if not errors[n] > FLOOR:  # rounding, or no number
            break
        n *= 2
    return Slope(errors, _window(list(errors.values())))


def _window(errors: list[float]) -> float | None:
    if errors[0] <= FLOOR:
        return math.inf
    while len(errors) >= 3 and all(math.isfinite(error) for error in errors):
        if errors[-1] > 0:
            coarse, fine = (math.log2(a / b) for a, b in pairwise(errors[-3:]))
            if abs(coarse - fine) <= AGREE:
                return fine
        if errors[-1] > NEAR_FLOOR:
            return None
        errors = errors[:-1]
    return None
