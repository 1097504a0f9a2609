"""Schedules of one formula: rectified flow, cosine, linear VP, and the two of exploding variance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, float64


@dataclass(frozen=True)
class RectifiedFlow:
    """alpha = 1 - t, sigma = t: straight lines from noise to data (Liu et al. 2022; Lipman et al. 2022)."""

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """alpha = 1 - t, sigma = t."""
        t = float64(t)
        return Level(1 - t, t)

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = sigma/(alpha + sigma) = sigmoid(-lam)."""
        return torch.sigmoid(-float64(lam))


@dataclass(frozen=True)
class Cosine:
    """alpha = cos(a)/cos(a0), a = (t + s)/(1 + s) * pi/2, a0 = a(0) (Nichol & Dhariwal 2021, eq. 17), continuous."""

    s: float = 0.008

    @property
    def _k(self) -> float:
        return math.pi / 2 / (1 + self.s)

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """alpha = sin(k(1 - t))/cos(a0), sigma^2 = sin(k t) sin(k t + 2 a0)/cos(a0)^2, k = pi/2/(1 + s)."""
        t, k = float64(t), self._k
        a0 = self.s * k
        sigma = torch.sqrt(torch.sin(k * t) * torch.sin(k * t + 2 * a0))
        return Level(torch.sin(k * (1 - t)) / math.cos(a0), sigma / math.cos(a0))

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = (a - a0)/k from sin(a - a0) = sigma^2 cos(a0)^2 / sin(a + a0) and cos(a - a0): sums of positive terms."""
        level, k = Level.from_lam(lam), self._k
        c0, s0 = math.cos(self.s * k), math.sin(self.s * k)
        cos_a, sin_a = level.alpha * c0, torch.hypot(level.sigma * c0, torch.full_like(level.sigma, s0))
        sin_difference = (level.sigma * c0).square() / (sin_a * c0 + cos_a * s0)
        return (torch.atan2(sin_difference, cos_a * c0 + sin_a * s0) / k).clamp(0, 1)


@dataclass(frozen=True)
class LinearVP:
    """alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B = beta_min t + (beta_max - beta_min)/2 t^2 (Song et al. 2021, C).

    The continuous limit of the linear beta schedule of Ho et al. 2020; alpha(1) = 0.0066 is not 0.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """alpha = exp(-B/2), sigma = sqrt(-expm1(-B))."""
        b = self._integral(float64(t))
        return Level(torch.exp(-b / 2), torch.sqrt(-torch.expm1(-b)))

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = 2 B/(beta_min + sqrt(beta_min^2 + 2 (beta_max - beta_min) B)), B = log(1 + exp(-2 lam))."""
        lam = float64(lam)
        b = torch.logaddexp(torch.zeros_like(lam), -2 * lam).clamp(max=float(self._integral(float64(1.0))))
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * b)
        return (2 * b / (self.beta_min + root)).clamp(0, 1)

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + (self.beta_max - self.beta_min) * t / 2)


@dataclass(frozen=True)
class VE:
    """alpha = 1, sigma = sigma_min (sigma_max/sigma_min)^t: variance exploding (Song et al. 2021, appendix C).

    t = 0 is sigma_min and not quite data; grids put their last level at sigma = 0. The defaults are those for pictures
    in [0, 1] at 32x32. Raises ValueError unless 0 < sigma_min < sigma_max.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"0 < sigma_min < sigma_max must hold, got {self.sigma_min} and {self.sigma_max}")

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """alpha = 1, sigma = sigma_min^(1 - t) sigma_max^t."""
        t = float64(t)
        sigma = float64(self.sigma_min) ** (1 - t) * float64(self.sigma_max) ** t
        return Level(torch.ones_like(t), sigma)

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = -(lam + log sigma_min)/log(sigma_max/sigma_min)."""
        low = math.log(self.sigma_min)
        return ((-float64(lam) - low) / (math.log(self.sigma_max) - low)).clamp(0, 1)


@dataclass(frozen=True)
class EDMPath:
    """alpha = 1, sigma = sigma_max t: EDM's sigma(t) = t, s(t) = 1, with its time divided by sigma_max.

    Karras et al. 2022, table 1. Raises ValueError unless sigma_max > 0.
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_max < math.inf:
            raise ValueError(f"sigma_max must be positive, got {self.sigma_max}")

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """alpha = 1, sigma = sigma_max t."""
        t = float64(t)
        return Level(torch.ones_like(t), self.sigma_max * t)

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = exp(-lam)/sigma_max."""
        return (torch.exp(-float64(lam)) / self.sigma_max).clamp(0, 1)
