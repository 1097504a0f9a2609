"""Pictures drawn from the noise that a picture is the picture of, or from between the noises of two."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only, freshened
from nirvana.diffusion.level import Level, rewalked
from nirvana.diffusion.noise import Noise, angle_between, spherical
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.solver import Solver
from nirvana.generate.beginning import Canvas, Moment, moments

Told = Callable[[int], tuple[Denoiser, Cond]]
"""The denoiser of so many pictures and its condition, the same for each."""

Path = Callable[[Level], Tensor]
"""Where x is at a level."""


@dataclass(frozen=True, eq=False)
class Flow:
    """A flow that was walked backwards. states: x at each of the levels, which fall to the clean picture."""

    levels: Sequence[Level]
    states: Sequence[Float[Tensor, "b *s"]]

    def __call__(self, level: Level) -> Float[Tensor, "b *s"]:
        """x at `level`: between two levels on the straight line alpha x0 + sigma eps through their states."""
        angle = float(level.angle)
        i = next(i for i, below in enumerate(self.levels[1:]) if float(below.angle) <= angle)
        (x_a, x_b), (a, b) = self.states[i : i + 2], self.levels[i : i + 2]
        if float(b.angle) == angle:
            return x_b
        det = a.alpha * b.sigma - b.alpha * a.sigma
        of_a = (level.alpha * b.sigma - level.sigma * b.alpha) / det
        of_b = (level.sigma * a.alpha - level.alpha * a.sigma) / det
        return of_a.to(x_a) * x_a + of_b.to(x_b) * x_b


@dataclass(frozen=True, eq=False)
class Along:
    """`denoiser`, which sees x on a path where it is known.

    So what is free sees the known part as it would be if all were drawn at once: where it is to become what it was, it
    does. A method that draws the known part from noise of its own, or on the straight way to y, does not give that.
    """

    denoiser: Denoiser
    known: Bool[Tensor, "..."]
    path: Path

    @property
    def first_order_only(self) -> bool:
        """As the denoiser."""
        return first_order_only(self.denoiser)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction at x, and at the path where it is known."""
        return self.denoiser(torch.where(self.known, self.path(level).to(x), x), level, cond, nxt)

    def fresh(self) -> Along:
        """The same around a fresh denoiser."""
        return Along(freshened(self.denoiser), self.known, self.path)


def encoded(
    y: Float[Tensor, "b *s"], told: Told, levels: Sequence[Level], solver: Solver[object], noise: Noise
) -> Generator[Moment, None, Flow]:
    """The flow of y backwards, from the last level with noise to the first (Song et al. 2021, section 4.3).

    At the former x = alpha y + sigma eps with the eps that the denoiser finds in alpha y, as right as a second order.
    told: what it is encoded with, unguided. Where all pictures are the same one, it is encoded once.
    """
    only = y[:1] if bool((y == y[:1]).all()) else y
    denoiser, cond = told(len(only))
    first, rising = levels[-2], rewalked(levels[-2::-1])
    alpha = first.like(only).alpha
    x = alpha * only
    states = [levels[-1].like(only).alpha * only]
    if len(rising) > 1:
        x = x + alpha * (only - denoiser(x, first, cond).x0)
        states.insert(0, x)
        for moment in moments(x, trajectory(denoiser, x, rising, solver, cond=cond, noise=noise)):
            yield Moment(*(part.expand_as(y) for part in moment))
            states.insert(0, moment.x)
    else:
        states.insert(0, x)
    return Flow(levels, [state.expand_as(y) for state in states])


def along(
    canvas: Canvas,
    path: Path,
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[object],
    cond: Cond,
    noise: Noise,
) -> Iterator[Moment]:
    """The trajectory from x, of which the known part is on `path`."""
    if bool(canvas.known.any()):
        denoiser = Along(denoiser, canvas.known, path)
    return moments(x, trajectory(denoiser, x, levels, solver, cond=cond, noise=noise))


@dataclass(frozen=True, eq=False)
class Encoded:
    """What is free is drawn anew from the noise that y is the picture of, so that its composition stays."""

    canvas: Canvas
    told: Told

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """x is the end of the flow from y; a deterministic solver then comes back to y where nothing else changes."""
        flow = yield from encoded(self.canvas.y, self.told, levels, solver, noise)
        yield from along(self.canvas, flow, denoiser, flow(levels[0]), levels, solver, cond, noise)


@dataclass(frozen=True, eq=False)
class Blended:
    """What lies between two pictures: drawn from between their noises.

    told: what each of the two is encoded with; parts: in 0..1, how far along each picture lies.
    """

    canvas: Canvas
    end: Float[Tensor, "b c *s"]
    told: tuple[Told, Told]
    parts: Sequence[float]

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """x lies on the arc between the ends of the flows from y and from `end`, so it is as normal as they are.

        Their angle is measured, since pictures that are alike have noises that are alike.
        """
        first, last = self.told
        begin = yield from encoded(self.canvas.y, first, levels, solver, noise)
        end = yield from encoded(self.end, last, levels, solver, noise)
        x = self._arc(begin(levels[0]), end(levels[0]))

        def path(level: Level) -> Tensor:
            # What is known is the same in both: only the noise that it is seen through changes from one to the other.
            known = self.canvas.known
            clean = level.like(self.canvas.y).alpha * self.canvas.y
            noises = (torch.where(known, flow(level) - clean, 0.0) for flow in (begin, end))
            return clean + self._arc(*noises)

        yield from along(self.canvas, path, denoiser, x, levels, solver, cond, noise)

    def _arc(self, begin: Float[Tensor, "b *s"], end: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        return spherical(begin, end, self.parts, angle_between(begin, end))
