"""Where a trajectory begins and how it goes on: from noise, or from a picture of which a part may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.inpaint import DDNM, Method, Observed, inpainted
from nirvana.diffusion.level import Level, rewalked
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.solver import Solver
from nirvana.diffusion.solver.protocol import Step

Walk = tuple[Tensor, Iterator[Step]]
"""x at the first level, and the steps from there."""


@runtime_checkable
class Beginning(Protocol):
    """What draws along levels."""

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Walk:
        """The walk of a batch."""
        ...


class FromNoise:
    """All of it is new."""

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Walk:
        """x = sigma * noise, and the plain trajectory."""
        x = start(noise, levels[0])
        return x, trajectory(denoiser, x, levels, solver, cond=cond, noise=noise)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A window of pictures: y is clean, in the space of the model; `known` is what of it stays, broadcast to y.

    beside: another picture that they are drawn from, for a model of pairs.
    """

    y: Float[Tensor, "b c *s"]
    known: Bool[Tensor, "..."]
    beside: Float[Tensor, "1 d *s"] | None = None

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
) -> Iterator[Step]:
    """The trajectory that agrees with what is known; the plain one where nothing is."""
    if not bool(canvas.known.any()):
        return trajectory(denoiser, x, levels, solver, cond=cond, noise=noise)
    return inpainted(method, denoiser, x, canvas.observed, levels, solver, cond=cond, noise=noise)


@dataclass(frozen=True, eq=False)
class OnCanvas:
    """What is free is drawn anew. whole: from noise alone, else from y with the noise of the first level."""

    canvas: Canvas
    method: Method
    whole: bool

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Walk:
        """x = alpha y + sigma eps where y is known, or everywhere unless `whole`."""
        if self.whole:
            x = self.canvas.observed.begun(noise, levels[0])
        else:
            alpha, sigma = levels[0].like(self.canvas.y)
            x = alpha * self.canvas.y + sigma * noise.initial().to(self.canvas.y)
        return x, walked(self.canvas, self.method, denoiser, x, levels, solver, cond, noise)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What is free is drawn anew from the noise that y is the picture of, so that its composition stays.

    source, source_cond: the denoiser that y is encoded with, unguided: the flow backwards, from the last level with
    noise to the first (Song et al. 2021, section 4.3). y stands in for x at the former.
    Beside known parts `DDNM` draws: other methods replace the noise.
    """

    canvas: Canvas
    source: Denoiser
    source_cond: Cond

    def __call__(
        self, denoiser: Denoiser, levels: Sequence[Level], solver: Solver[object], cond: Cond, noise: Noise
    ) -> Walk:
        """x is the end of the flow from y; a deterministic solver then comes back to y where nothing else changes."""
        x = levels[-2].like(self.canvas.y).alpha * self.canvas.y
        rising = rewalked(levels[-2::-1])
        if len(rising) > 1:
            for step in trajectory(self.source, x, rising, solver, cond=self.source_cond, noise=noise):
                x = step.x
        return x, walked(self.canvas, DDNM(), denoiser, x, levels, solver, cond, noise)
