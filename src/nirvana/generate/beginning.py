"""Where a trajectory begins and how it goes on: from noise, or from pictures of which a part may change."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.inpaint import DDNM, Method, Observed, inpainted
from nirvana.diffusion.level import Level, rewalked
from nirvana.diffusion.noise import Noise, angle_between, spherical
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.solver import Solver
from nirvana.diffusion.solver.protocol import Step


class Moment(NamedTuple):
    """A step as it is shown: x before it, what the model believed on the way, and x after it."""

    before: Float[Tensor, "b *s"]
    x0: Float[Tensor, "b *s"]
    x: Float[Tensor, "b *s"]


Told = Callable[[int], tuple[Denoiser, Cond]]
"""The denoiser of so many pictures and its condition, the same for each."""


@runtime_checkable
class Beginning(Protocol):
    """What draws along levels."""

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """The walk of a batch: first the steps of encoding, where there are any, then one to each of the levels."""
        ...


def moments(x: Float[Tensor, "b *s"], steps: Iterator[Step]) -> Iterator[Moment]:
    """The steps of a trajectory that begins at x."""
    for step in steps:
        yield Moment(x, step.prediction.x0, step.x)
        x = step.x


class FromNoise:
    """All of it is new."""

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """x = sigma * noise, and the plain trajectory."""
        x = start(noise, levels[0])
        return moments(x, trajectory(denoiser, x, levels, solver, cond=cond, noise=noise))


@dataclass(frozen=True, eq=False)
class Canvas:
    """A window of pictures: y is clean, in the space of the model; `known` is what of it stays, broadcast to y.

    end: where the pictures lie on the way from y to another, that one, with the same known part.
    """

    y: Float[Tensor, "b c *s"]
    known: Bool[Tensor, "..."]
    end: Float[Tensor, "b c *s"] | None = None

    def to(self, device: torch.device) -> Canvas:
        """The same there."""
        return Canvas(self.y.to(device), self.known.to(device), None if self.end is None else self.end.to(device))

    @property
    def observed(self) -> Observed:
        """What stays."""
        return Observed(self.y, self.known)


def walked(
    canvas: Canvas,
    method: Method,
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[object],
    cond: Cond,
    noise: Noise,
) -> Iterator[Moment]:
    """The trajectory that agrees with what is known; the plain one where nothing is."""
    if not bool(canvas.known.any()):
        return moments(x, trajectory(denoiser, x, levels, solver, cond=cond, noise=noise))
    return moments(x, inpainted(method, denoiser, x, canvas.observed, levels, solver, cond=cond, noise=noise))


@dataclass(frozen=True, eq=False)
class OnCanvas:
    """What is free is drawn anew. whole: from noise alone, else from y with the noise of the first level."""

    canvas: Canvas
    method: Method
    whole: bool

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """x = alpha y + sigma eps where y is known, or everywhere unless `whole`."""
        if self.whole:
            x = self.canvas.observed.begun(noise, levels[0])
        else:
            alpha, sigma = levels[0].like(self.canvas.y)
            x = alpha * self.canvas.y + sigma * noise.initial().to(self.canvas.y)
        return walked(self.canvas, self.method, denoiser, x, levels, solver, cond, noise)


def encoded(
    y: Float[Tensor, "b *s"], told: Told, levels: Sequence[Level], solver: Solver[object], noise: Noise
) -> Generator[Moment, None, Tensor]:
    """The flow of y backwards, from the last level with noise to the first (Song et al. 2021, section 4.3); its end.

    y stands in for x at the former. told: what it is encoded with, unguided. Where all pictures are the same one, it is
    encoded once.
    """
    only = y[:1] if bool((y == y[:1]).all()) else y
    denoiser, cond = told(len(only))
    x, rising = levels[-2].like(only).alpha * only, rewalked(levels[-2::-1])
    if len(rising) > 1:
        for moment in moments(x, trajectory(denoiser, x, rising, solver, cond=cond, noise=noise)):
            yield Moment(*(part.expand_as(y) for part in moment))
            x = moment.x
    return x.expand_as(y)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What is free is drawn anew from the noise that y is the picture of, so that its composition stays.

    Beside known parts `DDNM` draws: other methods replace the noise.
    """

    canvas: Canvas
    told: Told

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Iterator[Moment]:
        """x is the end of the flow from y; a deterministic solver then comes back to y where nothing else changes."""
        x = yield from encoded(self.canvas.y, self.told, levels, solver, noise)
        yield from walked(self.canvas, DDNM(), denoiser, x, levels, solver, cond, noise)


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
        x = spherical(begin, end, self.parts, angle_between(begin, end))
        yield from walked(self.canvas, DDNM(), denoiser, x, levels, solver, cond, noise)
