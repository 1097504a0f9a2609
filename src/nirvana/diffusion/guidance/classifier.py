"""Guidance by the gradient of a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only, freshened
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import Prediction

LogProb = Callable[[Tensor, Level], Tensor]
"""(x or x0 of shape (B, *s), level) -> log p(y | it) of each item, (B,), which autograd can differentiate."""

Reads = Literal["x", "x0"]


@dataclass(frozen=True, eq=False)
class ClassifierGuided:
    """x0 + scale * sigma^2/alpha * grad_x log p(y | x), the x0 of p(x) p(y | x)^scale (Dhariwal & Nichol 2021, eq. 14).

    reads: "x" for a classifier that knows noise; "x0" for one of clean data, which then sees the predicted x0, its
    gradient taken through the denoiser (Bansal et al. 2023, "Universal guidance"). Pure noise (alpha = 0) says
    nothing of y, and the term is 0/0 there: it is left out. The classifier is not called where the term has no weight.
    Raises ValueError unless scale is finite and >= 0 and `reads` is one of the two; when called inside of
    `torch.inference_mode`, which records no gradient; and where log_prob gives another shape than (B,) or no gradient.
    """

    denoiser: Denoiser
    log_prob: LogProb
    scale: float = 1.0
    reads: Reads = "x"

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"the classifier's scale is {self.scale}: give a number from 0 (ignore it) upwards")
        if self.reads not in get_args(Reads):
            raise ValueError(f"a classifier reads 'x' or 'x0', not '{self.reads}'")

    @property
    def first_order_only(self) -> bool:
        """As the denoiser."""
        return first_order_only(self.denoiser)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The shifted prediction; all but x0 is the denoiser's."""
        noisy = level.alpha > 0
        factor = torch.where(noisy, self.scale * level.sigma**2 / torch.where(noisy, level.alpha, 1.0), 0.0)
        if not bool(factor.any()):
            return self.denoiser(x, level, cond, nxt)
        if torch.is_inference_mode_enabled():
            raise ValueError("guidance by gradients cannot run inside of torch.inference_mode: use torch.no_grad")
        onwards = torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            leaf = x if onwards else x.detach().clone().requires_grad_()
            found = self.denoiser(leaf if self.reads == "x0" else x, level, cond, nxt)
            shift = self._gradient(found.x0 if self.reads == "x0" else leaf, leaf, level, onwards)
            x0 = found.x0 + left_align(factor, x) * shift
        return replace(found, x0=x0 if onwards else x0.detach())

    def fresh(self) -> ClassifierGuided:
        """The same around a fresh denoiser."""
        return replace(self, denoiser=freshened(self.denoiser))

    def _gradient(self, read: Tensor, leaf: Tensor, level: Level, onwards: bool) -> Tensor:
        value = self.log_prob(read, level)
        if value.shape != leaf.shape[:1]:
            raise ValueError(f"the classifier gave {tuple(value.shape)}: log p(y | x) is one number for each item")
        if not value.requires_grad:
            raise ValueError("the classifier's log p(y | x) has no gradient: compute it with torch from its argument")
        (gradient,) = torch.autograd.grad(value.sum(), leaf, create_graph=onwards)
        return gradient
