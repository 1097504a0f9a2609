"""Multistep solvers: the polynomial through the last evaluations, integrated exactly; one call a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, between, combined
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.solver.coordinate import Coordinate, DataInLam, corrections
from nirvana.diffusion.solver.protocol import Denoise, Step


@dataclass(frozen=True, eq=False)
class History:
    """What a multistep solver saw: levels and the values of f there, oldest first."""

    levels: tuple[Level, ...] = ()
    values: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class _Predictor:
    """(c_x, c_0, s, d of each level but the last) of neighbouring levels, oldest first: the step to the last.

    Where f is x0, d of `now` has c_0 in it.
    """

    coordinate: Coordinate

    def __call__(self, *levels: Level) -> tuple[Tensor, ...]:
        *before, now, nxt = levels
        c_x, c_0, s = self.coordinate.first(now, nxt)
        of_now, *of_before = corrections(self.coordinate, now, nxt, before)
        if isinstance(self.coordinate, DataInLam):
            c_0, of_now = torch.zeros_like(c_0), of_now + c_0
        return c_x, c_0, s, *of_before, of_now


@dataclass(frozen=True)
class _Corrector:
    """What d becomes with the last of the levels among the nodes of the step to it, less what it was without."""

    coordinate: Coordinate

    def __call__(self, *levels: Level) -> tuple[Tensor, ...]:
        *before, now, nxt = levels
        without = *corrections(self.coordinate, now, nxt, before), torch.zeros(())
        within = corrections(self.coordinate, now, nxt, [*before, nxt])
        of_now, *others = (a - b for a, b in zip(within, without, strict=True))
        return *others[:-1], of_now, others[-1]


@dataclass(frozen=True)
class Multistep:
    """x_nxt = first-order step + sum_j d_j f_j over the last `points` evaluations (see `coordinate`), at any levels.

    points: 1 is DDIM, 2 and 3 in `DataInLam` are DPM-Solver++ 2M and 3M or with eta their SDE forms, in `NoiseInLam`
    DEIS, in `NoiseInRatio` Adams-Bashforth (iPNDM). corrects: when the value at `now` is known, x is moved to where the
    last step would have led with it among the nodes, along the same noise (UniPC; the predictor and corrector of
    SA-Solver): no further call, one order more. At the first steps there are fewer evaluations than points; those
    that are there are used, and `started_order` says what comes of it. A step from lam = -inf or, in lam, to lam = inf
    is of first order: from pure noise or to the clean x0 it is exact where x0 is constant.
    Raises ValueError unless 1 <= points <= 4.
    """

    coordinate: Coordinate
    points: int
    corrects: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.points <= 4:
            raise ValueError(f"a multistep solver interpolates 1 to 4 evaluations, not {self.points}")

    @property
    def order(self) -> int:
        """`points`, one more with the corrector; with noise, in mean and covariance, at most 2."""
        order = self.points + self.corrects
        return order if self.deterministic else min(order, 2)

    @property
    def started_order(self) -> int:
        """The first step has one evaluation: its error is of order 2, with the corrector of order 3."""
        return min(self.order, 3 if self.corrects else 2)

    @property
    def deterministic(self) -> bool:
        """eta = 0."""
        return self.coordinate.eta == 0

    def calls(self, levels: Sequence[Level]) -> int:
        """One network call a step."""
        return len(levels) - 1

    def init(self, x: Tensor) -> History:
        """Nothing seen."""
        del x
        return History()

    def revise(self, state: History) -> History:
        """Nothing seen: the next step is a first one."""
        del state
        return History()

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: History, noise: Noise
    ) -> tuple[Step, History]:
        """x from `now` to `nxt`. Raises ValueError where sigma_now = 0."""
        prediction = denoise(x, now, nxt)
        levels = (*state.levels, now)
        values = (*state.values, self.coordinate.value(x, prediction.x0, now))
        if self.corrects and state.levels:
            x = combined((1.0, x), *zip(between(_Corrector(self.coordinate), *levels), values, strict=True))
        levels, values = levels[-self.points :], values[-self.points :]
        c_x, c_0, s, *d = between(_Predictor(self.coordinate), *levels, nxt)
        terms = [(c_x, x), (c_0, prediction.x0), *zip(d, values, strict=True)]
        if not self.deterministic and not nxt.is_clean:
            terms.append((s, noise.path(now, nxt).to(x)))
        x_nxt = combined(*terms)
        kept = slice(len(levels) - min(len(levels), self.points - 1 + self.corrects), None)
        return Step(now, nxt, x_nxt, prediction), History(levels[kept], values[kept])
