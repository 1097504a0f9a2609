"""Schedules: time t in [0, 1] (0 is data, 1 is noise) to a noise level, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, float64


@runtime_checkable
class Schedule(Protocol):
    """A path of noise levels, strictly rising in noise with t."""

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """The level at time t in [0, 1], of the shape of t."""
        ...

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time t at which log(alpha/sigma) = lam; levels beyond an end of the schedule give that end."""
        ...


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


class Tabulated:
    """The levels of a chain of T steps, index i in 1..T at t = i/T, data at t = 0; between them `angle` is linear in t.

    alpha_bar: (T,) strictly falling in [0, 1). variance: (T,) 1 - alpha_bar where that is known without the rounding
    of the difference (`from_beta`). On the points of the table the values are the table's, bit for bit.
    Raises ValueError where alpha_bar does not fall strictly from below 1 to at least 0.
    """

    def __init__(self, alpha_bar: Float[Tensor, "T"], variance: Float[Tensor, "T"] | None = None) -> None:
        alpha_bar = float64(alpha_bar)
        variance = 1 - alpha_bar if variance is None else float64(variance)
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64)
        self.alpha = torch.cat([ends[:1], alpha_bar.sqrt()])
        self.sigma = torch.cat([ends[1:], variance.sqrt()])
        self.angle = torch.atan2(self.sigma, self.alpha)
        if len(alpha_bar) == 0 or not bool((self.angle.diff() > 0).all()):
            raise ValueError("alpha_bar must be a vector that falls strictly from below 1 to at least 0")

    @staticmethod
    def from_beta(beta: Float[Tensor, "T"]) -> Tabulated:
        """The table of alpha_bar_t = prod_s (1 - beta_s), with 1 - alpha_bar from log1p and expm1 (Ho et al. 2020)."""
        log_alpha_bar = torch.cumsum(torch.log1p(-float64(beta)), 0)
        return Tabulated(torch.exp(log_alpha_bar), -torch.expm1(log_alpha_bar))

    @property
    def T(self) -> int:
        """The number of steps of the chain."""
        return len(self.alpha) - 1

    def at(self, index: int) -> Level:
        """The level of table index 0 (data) to T."""
        return Level(self.alpha[index], self.sigma[index])

    def index(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The place of lam in the table, 0 to T, an exact integer on its points, linear in `angle` between them."""
        angle = Level.from_lam(lam).angle
        below = (torch.searchsorted(self.angle, angle, right=True) - 1).clamp(0, self.T - 1)
        low, high = self.angle[below], self.angle[below + 1]
        return _snap(below + (angle - low) / (high - low)).clamp(0, self.T)

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """The level at t in [0, 1]."""
        index = _snap(float64(t) * self.T)
        below = index.detach().floor().clamp(0, self.T - 1).long()
        part = index - below
        level = Level.from_angle(self.angle[below] + part * (self.angle[below + 1] - self.angle[below]))
        exact, point = part.detach().frac() == 0, below + part.detach().round().long()
        return Level(_replaced(level.alpha, self.alpha[point], exact), _replaced(level.sigma, self.sigma[point], exact))

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = index/T."""
        return self.index(lam) / self.T


def _snap(index: Tensor) -> Tensor:
    """`index` with what lies within 1e-9 of an integer put onto it; the derivative stays 1."""
    return index + torch.where((index - index.round()).abs() < 1e-9, index.round() - index, 0.0).detach()


def _replaced(value: Tensor, exact: Tensor, where: Tensor) -> Tensor:
    """`value` with its number, not its derivative, replaced by the nearby `exact` (their difference is exact)."""
    return value + torch.where(where, exact - value, 0.0).detach()


def derivative(schedule: Schedule, t: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """(d alpha/dt, d sigma/dt) at t, both float64 of the shape of t, by forward differentiation of `schedule`."""

    def pair(t: Tensor) -> tuple[Tensor, Tensor]:
        level = schedule(t)
        return level.alpha, level.sigma

    t = float64(t)
    return cast(tuple[Tensor, Tensor], torch.func.jvp(pair, (t,), (torch.ones_like(t),))[1])
