"""Schedules of a table: the levels of a chain of T steps."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nirvana.diffusion.level import Level, float64


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

    def at(self, index: int | Int[Tensor, "..."]) -> Level:
        """The level of table index 0 (data) to T; of several a level of their shape."""
        return Level(self.alpha[index], self.sigma[index])

    def index(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The place of lam in the table, 0 to T, an exact integer on its points, linear in `angle` between them."""
        level = Level.from_lam(lam)
        angle = level.angle
        below = (torch.searchsorted(self.angle, angle, right=True) - 1).clamp(0, self.T - 1)
        low, high = self.angle[below], self.angle[below + 1]
        # What the rounding of lam does to the angle, d angle/d lam = -alpha*sigma, and that of the angle itself.
        rounding = angle + level.alpha * level.sigma * level.lam.abs().clamp(max=1e3)
        return _snap(below + (angle - low) / (high - low), rounding / (high - low)).clamp(0, self.T)

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """The level at t in [0, 1]."""
        index = float64(t) * self.T
        index = _snap(index, index)
        below = index.detach().floor().clamp(0, self.T - 1).long()
        part = index - below
        level = Level.from_angle(self.angle[below] + part * (self.angle[below + 1] - self.angle[below]))
        exact, point = part.detach().frac() == 0, below + part.detach().round().long()
        return Level(_replaced(level.alpha, self.alpha[point], exact), _replaced(level.sigma, self.sigma[point], exact))

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """t = index/T."""
        return self.index(lam) / self.T


def _snap(index: Tensor, size: Tensor) -> Tensor:
    """`index` with what lies within the rounding of numbers of `size` from an integer put onto it; its slope stays."""
    near = (index - index.round()).abs() <= 4 * torch.finfo(torch.float64).eps * size
    return index + torch.where(near, index.round() - index, 0.0).detach()


def _replaced(value: Tensor, exact: Tensor, where: Tensor) -> Tensor:
    """`value` with its number, not its derivative, replaced by the nearby `exact` (their difference is exact)."""
    return value + torch.where(where, exact - value, 0.0).detach()
