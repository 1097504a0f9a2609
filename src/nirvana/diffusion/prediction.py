"""What a network predicts: F = p*x0 + q*eps, and how x0 and eps follow from F and x = alpha*x0 + sigma*eps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.schedule import Schedule, derivative

Coefficients = tuple[Tensor, Tensor]
"""(p, q) of F = p*x0 + q*eps: float64, of the shape of the level or ()."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a denoiser says of x: x0 = E[x0 | x], of its shape; var_frac, the raw learned variance, if there is one."""

    x0: Float[Tensor, "b *s"]
    var_frac: Float[Tensor, "b *s"] | None = None


@runtime_checkable
class Parameterization(Protocol):
    """A network output F = p*x0 + q*eps."""

    def __call__(self, level: Level) -> Coefficients:
        """(p, q) at `level`, which has the native scale of the network."""
        ...


@dataclass(frozen=True)
class Eps:
    """F = eps (Ho et al. 2020, eq. 14). Does not determine x0 at alpha = 0."""

    def __call__(self, level: Level) -> Coefficients:
        """(0, 1)."""
        return torch.zeros_like(level.alpha), torch.ones_like(level.alpha)


@dataclass(frozen=True)
class X0:
    """F = x0."""

    def __call__(self, level: Level) -> Coefficients:
        """(1, 0)."""
        return torch.ones_like(level.alpha), torch.zeros_like(level.alpha)


@dataclass(frozen=True)
class Velocity:
    """F = v = (alpha*eps - sigma*x0)/sqrt(alpha^2 + sigma^2) (Salimans & Ho 2022, section 4)."""

    def __call__(self, level: Level) -> Coefficients:
        """(-sigma, alpha)/norm."""
        return -level.sigma / level.norm, level.alpha / level.norm


@dataclass(frozen=True)
class Flow:
    """F = u = eps - x0, the velocity of rectified flow (Liu et al. 2022, eq. 1)."""

    def __call__(self, level: Level) -> Coefficients:
        """(-1, 1)."""
        one = torch.ones_like(level.alpha)
        return -one, one


@dataclass(frozen=True)
class Score:
    """F = grad_x log p(x) = -eps/sigma (Song et al. 2021). Does not determine x0 at alpha = 0, nor eps at sigma = 0."""

    def __call__(self, level: Level) -> Coefficients:
        """(0, -1/sigma)."""
        return torch.zeros_like(level.alpha), -1 / level.sigma


@dataclass(frozen=True)
class FlowVelocity:
    """F = dx/dt = alpha'(t) x0 + sigma'(t) eps of a schedule, t its time of the level (Lipman et al. 2023).

    `Flow` is the case of rectified flow. Does not determine x0 at alpha = 0 where alpha' = 0 (exploding variance), nor
    eps at sigma = 0 where sigma' is infinite (preserved variance).
    """

    schedule: Schedule

    def __call__(self, level: Level) -> Coefficients:
        """(alpha', sigma'), which do not depend on the scale of the level."""
        return derivative(self.schedule, self.schedule.time(level.lam))


@dataclass(frozen=True)
class EDM:
    """F of x0 = c_skip*x + c_out*F, with unit variance when the data have standard deviation sigma_data.

    With h = sqrt(sigma^2 + sigma_data^2 alpha^2): F = (sigma/sigma_data * x0 - sigma_data*alpha * eps)/h
    (Karras et al. 2022, table 1 and eq. 7, where alpha = 1).
    """

    sigma_data: float = 0.5

    def __call__(self, level: Level) -> Coefficients:
        """(sigma/sigma_data, -sigma_data*alpha)/h."""
        h = torch.hypot(level.sigma, self.sigma_data * level.alpha)
        return level.sigma / (self.sigma_data * h), -self.sigma_data * level.alpha / h


PARAMETERIZATIONS: Mapping[str, Parameterization] = MappingProxyType(
    {"eps": Eps(), "x0": X0(), "v": Velocity(), "score": Score(), "flow": Flow(), "edm": EDM()}
)
"""Name -> the one of it that depends on nothing else; `FlowVelocity` takes a schedule."""


def to_x0(F: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], level: Level, pq: Coefficients) -> Float[Tensor, "b *s"]:
    """x0 = (sigma*F - q*x)/det, det = p*sigma - q*alpha; at sigma = 0 it is x/alpha whatever F says.

    Raises ValueError where det = 0 at sigma > 0: an eps network at pure noise.
    """
    of_F, of_x = x0_coefficients(level, pq)
    return left_align(of_F, x) * F + left_align(of_x, x) * x


def x0_coefficients(level: Level, pq: Coefficients) -> tuple[Tensor, Tensor]:
    """(of_F, of_x) of `to_x0`: x0 = of_F*F + of_x*x. Raises what it raises."""
    p, q = pq
    det, clean = p * level.sigma - q * level.alpha, level.sigma == 0
    if bool(((det == 0) & ~clean).any()):
        raise ValueError(
            "this network does not determine x0 at alpha = 0 (pure noise), as an eps or score network does not:"
            " start the levels at alpha > 0, or train it to predict x0, v or flow"
        )
    det = torch.where(clean, 1.0, det)
    return level.sigma / det, torch.where(clean, 1 / level.alpha, -q / det)


def to_eps(F: Float[Tensor, "b *s"], x: Float[Tensor, "b *s"], level: Level, pq: Coefficients) -> Float[Tensor, "b *s"]:
    """eps = (p*x - alpha*F)/det, det = p*sigma - q*alpha; at alpha = 0 it is x/sigma whatever F says.

    Raises ValueError where det = 0 or infinite at alpha > 0: an x0 or a score network at a clean level.
    """
    p, q = pq
    det, pure = p * level.sigma - q * level.alpha, level.alpha == 0
    if bool((((det == 0) | det.isinf()) & ~pure).any()):
        raise ValueError(
            "this network does not determine eps at sigma = 0 (clean), as an x0 or score network does not:"
            " use a level with sigma > 0, or train it to predict eps, v or flow"
        )
    det = torch.where(pure, 1.0, det)
    of_F, of_x = -level.alpha / det, torch.where(pure, 1 / level.sigma, p / det)
    return left_align(of_F, x) * F + left_align(of_x, x) * x


def eps_from_x0(x: Float[Tensor, "b *s"], x0: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b *s"]:
    """eps = (x - alpha*x0)/sigma. Raises ValueError at sigma = 0, where x holds no noise to tell it from."""
    if bool((level.sigma == 0).any()):
        raise ValueError("x0 does not determine eps at sigma = 0 (clean): use a level with sigma > 0")
    return left_align(1 / level.sigma, x) * x - left_align(level.alpha / level.sigma, x) * x0
