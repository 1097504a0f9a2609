"""Where a trajectory begins and how it goes on: from noise, or from a picture of which a part may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.inpaint import Method, Observed, inpainted
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.solver import Solver
from nirvana.diffusion.solver.protocol import Step


class Moment(NamedTuple):
    """A step as it is shown: x before it, what the model believed on the way, and x after it."""

    before: Float[Tensor, "b *s"]
    x0: Float[Tensor, "b *s"]
    x: Float[Tensor, "b *s"]


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

    end: where the pictures lie on the way from y to another, that one, with the same known part. beside: another
    picture that they are drawn from, for a model of pairs.
    """

    y: Float[Tensor, "b c *s"]
    known: Bool[Tensor, "..."]
    end: Float[Tensor, "b c *s"] | None = None
    beside: Float[Tensor, "1 d *s"] | None = None

    def to(self, device: torch.device) -> Canvas:
        """The same there."""
        end, beside = (None if one is None else one.to(device) for one in (self.end, self.beside))
        return Canvas(self.y.to(device), self.known.to(device), end, beside)

    @property
    def observed(self) -> Observed:
        """What stays."""
        return Observed(self.y, self.known)


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
        if not bool(self.canvas.known.any()):
            return moments(x, trajectory(denoiser, x, levels, solver, cond=cond, noise=noise))
        observed = self.canvas.observed
        return moments(x, inpainted(self.method, denoiser, x, observed, levels, solver, cond=cond, noise=noise))
