"""Runge-Kutta solvers: several evaluations within a step, none remembered; fixed steps, or steps of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Coefficient, Level, between, combined, float64, left_align, moved
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver.coordinate import Coordinate, VelocityInAngle, corrections
from nirvana.diffusion.solver.protocol import Denoise, Memoryless, Step

SMALLEST = 1e-6
"""The smallest share of a step that an adaptive solver tries before it gives up."""


@dataclass(frozen=True)
class Tableau:
    """c: where in the step each stage lies, the first at 0. through: for each next stage, and at last for the end, the
    stages whose polynomial leads there, integrated exactly. embedded: those that lead to the end at a lower order.

    In a coordinate without exponential these are tableaus of numbers: a polynomial through stages has the weights of
    its quadrature. With the exponential of `DataInLam` and `NoiseInLam` they are the single-step DPM-Solvers.
    """

    order: int
    c: tuple[float, ...]
    through: tuple[tuple[int, ...], ...]
    embedded: tuple[int, ...] = ()


EULER = Tableau(1, (0.0,), ((0,),))
HEUN = Tableau(2, (0.0, 1.0), ((0,), (0, 1)))
MIDPOINT = Tableau(2, (0.0, 1 / 2), ((0,), (1,)))
HEUN3 = Tableau(3, (0.0, 1 / 3, 2 / 3), ((0,), (0, 1), (0, 2)))
"""Heun's method of order 3; in lam the single-step DPM-Solver of order 3."""
BOGACKI_SHAMPINE = Tableau(3, (0.0, 1 / 2, 3 / 4), ((0,), (1,), (0, 1, 2)), embedded=(1,))
"""b = (2/9, 1/3, 4/9). The embedded one is the midpoint rule, since no stage may lie at the clean end of a step."""


_ANY = Level.from_ratio(1.0), Level.from_ratio(0.5)


@dataclass(frozen=True)
class _Leg:
    """(regular, alpha and sigma of the target, c_x, c_0, d of `now` and of the later stages in `through`).

    regular is 1 where q is finite at both ends and no stage lies at a clean level, else 0: the step is then of first
    order, and its stages, which lie anywhere, count for nothing.
    """

    tableau: Tableau
    coordinate: Coordinate
    to: int
    through: tuple[int, ...]

    @property
    def later(self) -> tuple[int, ...]:
        """`through` without `now`."""
        return tuple(j for j in self.through if j)

    def __call__(self, now: Level, nxt: Level) -> tuple[Tensor, ...]:
        q, q_nxt, c = self.coordinate.position(now), self.coordinate.position(nxt), self.tableau.c
        regular = q.isfinite() & q_nxt.isfinite() & ((nxt.sigma > 0) | (max(c) < 1))
        begin, end = (_where_level(regular, a, b) for a, b in zip((now, nxt), _ANY, strict=True))
        q, length = self.coordinate.position(begin), self.coordinate.position(end) - self.coordinate.position(begin)
        levels = [begin, *(end if part == 1 else self.coordinate.level(q + part * length) for part in c[1:]), end]
        target, others = levels[self.to], [levels[j] for j in self.later]
        d = corrections(self.coordinate, begin, target, others, through_now=0 in self.through)
        ends = (now, nxt) if self.to == len(c) else (begin, target)
        c_x, c_0, _ = self.coordinate.first(*ends)
        return regular.double(), target.alpha, target.sigma, c_x, c_0, *(torch.where(regular, w, 0.0) for w in d)


def _where_level(here: Tensor, a: Level, b: Level) -> Level:
    return Level(torch.where(here, a.alpha, b.alpha), torch.where(here, a.sigma, b.sigma))


@dataclass(frozen=True)
class RungeKutta(Memoryless):
    """x_nxt = first-order step + sum_j d_j f_j over the stages of a tableau, in a coordinate (see `coordinate`).

    In `NoiseInRatio` EULER is DDIM with eta = 0, and HEUN is that of EDM (Karras et al. 2022, algorithm 1); MIDPOINT
    in `NoiseInLam` is DPM-Solver-2 (k-diffusion's DPM-2), in `DataInLam` DPM-Solver++ 2S, where HEUN3 is 3S. Where the
    coordinate is infinite at an end of a step, or a stage would lie at sigma = 0, the step is DDIM's, with one call:
    the local error of one such step is of order 2, so orders up to 2 stay true, and higher ones hold between the ends.
    tolerance: within each step take steps of its own, an item each, as large as the error allows: the root mean square
    of error/(1 + |x|) at unit norm (`BOGACKI_SHAMPINE` in `VelocityInAngle`, regular at both ends).
    Raises ValueError for noise in the coordinate, and for a tolerance that is not positive or in another coordinate or
    tableau; in a step, where no step is small enough for the tolerance.
    """

    tableau: Tableau
    coordinate: Coordinate
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.coordinate.eta:
            raise ValueError("a Runge-Kutta solver is deterministic: give a coordinate with eta = 0")
        if self.tolerance is None:
            return
        if not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance}: give a positive number, such as 1e-3")
        if not self.tableau.embedded or not isinstance(self.coordinate, VelocityInAngle):
            raise ValueError(
                "adaptive steps take a tableau with an embedded solution, and the coordinate VelocityInAngle"
            )

    @property
    def order(self) -> int:
        """That of the tableau."""
        return self.tableau.order

    @property
    def deterministic(self) -> bool:
        """It draws no noise."""
        return True

    def calls(self, levels: Sequence[Level]) -> int | None:
        """One for each stage, one in a step that is DDIM's; None where it adapts."""
        if self.tolerance is not None:
            return None
        rows = (between(self._leg(len(self.tableau.c)), now, nxt) for now, nxt in pairwise(levels))
        return sum(len(self.tableau.c) if _holds(torch.any, regular) else 1 for regular, *_ in rows)

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: None, noise: Noise
    ) -> tuple[Step, None]:
        """x from `now` to `nxt`. Raises ValueError where sigma_now = 0."""
        del noise
        if self.tolerance is not None:
            return self._adapted(denoise, x, now, nxt, self.tolerance), state
        x_nxt, prediction, _ = self._moved(denoise, x, now, nxt)
        return Step(now, nxt, x_nxt, prediction), state

    def _leg(self, to: int) -> _Leg:
        return _Leg(self.tableau, self.coordinate, to, self.tableau.through[to - 1])

    def _moved(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level) -> tuple[Tensor, Prediction, Tensor]:
        """(x at `nxt`, the prediction at `now`, x at `nxt` by the embedded solution where there is a tolerance)."""
        prediction, c = denoise(x, now, nxt), self.tableau.c
        values = [self.coordinate.value(x, prediction.x0, now)]

        def led(leg: _Leg) -> tuple[Tensor, Level]:
            regular, alpha, sigma, c_x, c_0, *d = between(leg, now, nxt)
            seen = [values[j] for j in (0, *leg.later) if j < len(values)]
            there = combined((c_x, x), (c_0, prediction.x0), *zip(d, seen, strict=False))
            exactly = c[leg.to] == 1 and _holds(torch.all, regular) if leg.to < len(c) else True
            return there, nxt if exactly else Level(float64(alpha), float64(sigma))

        end = self._leg(len(c))
        if _holds(torch.any, between(end, now, nxt)[0]):
            for to in range(1, len(c)):
                there, level = led(self._leg(to))
                values.append(self.coordinate.value(there, denoise(there, level, nxt).x0, level))
        x_nxt = led(end)[0]
        lower = x_nxt if self.tolerance is None else led(replace(end, through=self.tableau.embedded))[0]
        return x_nxt, prediction, lower

    def _adapted(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, tolerance: float) -> Step:
        """Every item goes through shares of the step of its own, from 0 to 1, at unit norm.

        An item that has arrived waits at `now`, where what is evaluated counts for nothing.
        """
        start = left_align(1 / now.norm, x) * x
        here, first = start, None
        share, size = torch.zeros(len(x), dtype=torch.float64), torch.ones(len(x), dtype=torch.float64)
        while bool((share < 1).any()):
            goes = share < 1
            begin = torch.where(goes, share, 0.0)
            end = (begin + size).clamp(max=1)
            stands = _where(goes, here, start)
            there, prediction, lower = self._moved(denoise, stands, _part(now, nxt, begin), _part(now, nxt, end))
            first = prediction if first is None else first
            scale = 1 + torch.maximum(stands.abs(), there.abs())
            off = float64(((there - lower) / scale).flatten(1).square().mean(1).sqrt()) / tolerance
            kept = goes & (off <= 1)
            here, share = _where(kept, there, here), torch.where(kept, end, share)
            grown = (end - begin) * (0.9 * off.clamp(min=1e-9) ** (-1 / self.order)).clamp(0.2, 5)
            size = torch.where(goes, grown, 1.0)
            if not bool((size > SMALLEST).all()):
                raise ValueError(
                    f"no step is small enough for the tolerance {tolerance}: the predictions jump or are no numbers"
                )
        return Step(now, nxt, left_align(nxt.norm, x) * here, cast(Prediction, first))


def _holds(of: Callable[[Tensor], Tensor], regular: Coefficient) -> bool:
    return bool(of(torch.as_tensor(regular) > 0))


def _where(items: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a for the items that are True, b for the others."""
    return torch.where(moved(items, a.device).reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _part(now: Level, nxt: Level, share: Tensor) -> Level:
    """The level at a share of the angle from `now` to `nxt`, one share an item."""
    whole = nxt.angle - now.angle
    return Level.from_angle(now.angle + share.reshape(-1, *[1] * (whole.ndim - 1)) * whole)
