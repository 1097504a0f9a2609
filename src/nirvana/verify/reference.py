"""Trajectories of the probability flow to rounding: a solver of its own kind, which shares no line with `solver/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion import Denoiser, GaussianDenoiser, Level

TOLERANCE = 2e-13
"""Of one extrapolation, relative to the largest |x|: what float64 leaves of 15 digits."""

_PARTS = (2, 4, 6, 8, 10, 12, 14, 16)
_DEEPEST = 24


@dataclass(frozen=True, eq=False)
class Reference:
    """The exact trajectory through `x` at `start`, sigma > 0; `at(level)` is its x there, to TOLERANCE.

    In the angle a, x/norm = y obeys dy/da = (cos(a) y - x0)/sin(a), regular at alpha = 0 and at sigma = 0. A Gaussian's
    is in closed form; a mixture's is found by extrapolation of the modified midpoint rule to order 16 (Bulirsch & Stoer
    1966; Hairer, Norsett & Wanner 1993, II.9), halving the interval until two columns agree.
    """

    denoiser: Denoiser
    x: Float[Tensor, "b *s"]
    start: Level

    def at(self, level: Level) -> Float[Tensor, "b *s"]:
        """x at `level`. Raises ValueError where no interval is short enough."""
        return self.along([level])[0]

    def along(self, levels: Sequence[Level]) -> list[Float[Tensor, "b *s"]]:
        """x at each of `levels`, one after the other."""
        if isinstance(self.denoiser, GaussianDenoiser):
            return [self.denoiser.transport(self.x, self.start, level) for level in levels]
        y, angle, found = self.x / self.start.norm, float(self.start.angle), list[Tensor]()
        for level in levels:
            y, angle = integrate(self._slope, y, angle, float(level.angle)), float(level.angle)
            found.append(y * level.norm)
        return found

    def _slope(self, angle: float, y: Tensor) -> Tensor:
        if angle == 0:
            return torch.zeros_like(y)  # the score is finite where the density is smooth, and eps = -sigma*score
        level = Level.from_angle(angle)
        return (level.alpha * y - self.denoiser(y, level, {}).x0) / level.sigma


def integrate(slope: Callable[[float, Tensor], Tensor], y: Tensor, a: float, b: float) -> Tensor:
    """y(b) of dy/da = slope(a, y), y(a) = y, to TOLERANCE. Raises ValueError where that is out of reach."""
    todo = [(a, b, 0)]
    while todo:
        low, high, depth = todo.pop()
        found = _extrapolated(slope, y, low, high)
        if found is not None:
            y = found
        elif depth == _DEEPEST:
            raise ValueError(f"no reference solution near {low}: the problem is too stiff")
        else:
            middle = (low + high) / 2
            todo += [(middle, high, depth + 1), (low, middle, depth + 1)]
    return y


def _extrapolated(slope: Callable[[float, Tensor], Tensor], y: Tensor, a: float, b: float) -> Tensor | None:
    """Neville's table in the square of the step; None where its last two columns disagree."""
    if a == b:
        return y
    rows: list[list[Tensor]] = []
    for j, parts in enumerate(_PARTS):
        row = [_midpoint(slope, y, a, b, parts)]
        for k in range(1, j + 1):
            row.append(row[-1] + (row[-1] - rows[-1][k - 1]) / ((parts / _PARTS[j - k]) ** 2 - 1))
        if j and float((row[-1] - row[-2]).abs().max()) <= TOLERANCE * max(1.0, float(row[-1].abs().max())):
            return row[-1]
        rows.append(row)
    return None


def _midpoint(slope: Callable[[float, Tensor], Tensor], y: Tensor, a: float, b: float, parts: int) -> Tensor:
    h = (b - a) / parts
    before, now = y, y + h * slope(a, y)
    for i in range(1, parts):
        before, now = now, before + 2 * h * slope(a + i * h, now)
    return now
