"""What is known of a picture, and the denoiser that knows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only, freshened
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import start


@dataclass(frozen=True, eq=False)
class Observed:
    """Clean data y, and how far each element of it is known: 1 stays as it is, 0 is free, between them is mixed in x0.

    y, known: of a shape that broadcasts to x; known: bool, or floats from 0 to 1. What y holds where known is 0 does
    not matter. Raises ValueError where known leaves [0, 1] or y is not finite where it is known.
    """

    y: Float[Tensor, "..."]
    known: Bool[Tensor, "..."] | Float[Tensor, "..."]

    def __post_init__(self) -> None:
        known = self.known
        if known.dtype != torch.bool and not bool(((known >= 0) & (known <= 1)).all()):
            raise ValueError("the mask of what is known has numbers outside of 0 (free) to 1 (known)")
        if not bool((self.y.isfinite() | (known == 0)).all()):
            raise ValueError("what is known holds numbers that are not finite")

    @property
    def fixed(self) -> Bool[Tensor, "..."]:
        """Where known is 1: the elements that stay."""
        return self.known if self.known.dtype == torch.bool else self.known == 1

    def mixed_into(self, x0: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """known*y + (1 - known)*x0, bit for bit y where known is 1 and x0 where it is 0."""
        y, fixed = self.y.to(x0), self.fixed.to(x0.device)
        if self.known.dtype != torch.bool:
            known = self.known.to(x0)
            x0 = torch.where(known == 0, x0, known * y + (1 - known) * x0)
        return torch.where(fixed, y, x0)

    def put(self, x: Float[Tensor, "b *s"], level: Level, noise: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """x with alpha*y + sigma*noise where known is 1."""
        alpha, sigma = level.like(x)
        return torch.where(self.fixed.to(x.device), alpha * self.y.to(x) + sigma * noise.to(x), x)

    def hold(self, x: Float[Tensor, "b *s"], moved: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
        """x where known is 1, `moved` elsewhere."""
        return torch.where(self.fixed.to(x.device), x, moved)

    def begun(self, noise: Noise, level: Level) -> Float[Tensor, "b *s"]:
        """What a trajectory starts from: `start`, with alpha*y + sigma*eps, eps of the same noise, where known is 1."""
        return self.put(start(noise, level), level, noise.initial())


@dataclass(frozen=True, eq=False)
class Known:
    """`denoiser`, whose x0 is y where it is known: known*y + (1 - known)*x0; all but x0 is the denoiser's.

    The known part of x then goes along alpha*y + sigma*eps, its eps unchanged by a deterministic solver, to y. Alone
    it is the noiseless case of DDNM (Wang et al. 2023, eq. 13) and of DiffPIR (Zhu et al. 2023, eq. 13): what is free
    sees the known part through the network only, which thinks it noisy, so that the result is biased towards p(x0).
    """

    denoiser: Denoiser
    observed: Observed

    @property
    def first_order_only(self) -> bool:
        """As the denoiser."""
        return first_order_only(self.denoiser)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction that knows y."""
        found = self.denoiser(x, level, cond, nxt)
        return replace(found, x0=self.observed.mixed_into(found.x0))

    def fresh(self) -> Known:
        """The same around a fresh denoiser."""
        return Known(freshened(self.denoiser), self.observed)
