"""Schedules made of others: more noise at every time, or no data left at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, Native, float64
from nirvana.diffusion.schedule.protocol import Schedule
from nirvana.diffusion.schedule.table import Tabulated


@dataclass(frozen=True)
class Shifted:
    """lam(t) = lam_of(t) + lam: the schedule `of` with ratio = sigma/alpha times exp(-lam) at every t.

    Resolutions d and d_0 of pictures: lam = log(d_0/d) (Hoogeboom et al. 2023, eq. 4). `timestep_shift` is the case of
    rectified flow. scale: of the levels, see `level.Native`. Raises ValueError where lam is not finite.
    """

    of: Schedule
    lam: float
    scale: Native = "unit"

    def __post_init__(self) -> None:
        if not math.isfinite(self.lam):
            raise ValueError(f"the shift of lam must be finite, got {self.lam}")

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """(alpha exp(lam/2), sigma exp(-lam/2)) of the level of `of`, brought to `scale`."""
        level = self.of(t)
        moved = Level(level.alpha * math.exp(self.lam / 2), level.sigma * math.exp(-self.lam / 2))
        return moved.scaled(moved.scale_to(self.scale))

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time of lam - self.lam in `of`."""
        return self.of.time(float64(lam) - self.lam)


def timestep_shift(of: Schedule, shift: float = 3.0) -> Shifted:
    """The resolution shift of Esser et al. 2024, eq. 23: t -> s t/(1 + (s - 1) t) of rectified flow, ratio times s."""
    if not shift > 0:
        raise ValueError(f"the shift must be positive, got {shift}")
    return Shifted(of, -math.log(shift), "sum")


def zero_terminal_snr(of: Schedule) -> Schedule:
    """`of`, changed so that it ends at alpha = 0 exactly (Lin et al. 2023, algorithm 1), at unit norm.

    alpha' = (alpha - alpha_last) alpha_first/(alpha_first - alpha_last), where a table starts at its step 1 and
    anything else at t = 0. A table stays a table, of the same T.
    """
    if not isinstance(of, Tabulated):
        return ZeroTerminalSNR(of)
    steps = Level(of.alpha[1:], of.sigma[1:]).unit()
    made = _stretched(steps, Level(steps.alpha[0], steps.sigma[0]), Level(steps.alpha[-1], steps.sigma[-1]))
    return Tabulated(made.alpha.square(), made.sigma.square())


@dataclass(frozen=True)
class ZeroTerminalSNR:
    """alpha' = (alpha - alpha(1)) alpha(0)/(alpha(0) - alpha(1)), sigma'^2 = 1 - alpha'^2, of `of` at unit norm.

    Lin et al. 2023, algorithm 1, over continuous time: `of` with the same start, and alpha' = 0 at t = 1.
    """

    of: Schedule

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """The level at t in [0, 1]."""
        first, last = self._ends()
        return _stretched(self.of(t).unit(), first, last)

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time in `of` of alpha = alpha(1) + alpha' (alpha(0) - alpha(1))/alpha(0)."""
        first, last = self._ends()
        given = Level.from_lam(lam)
        part = (first.alpha - last.alpha) / first.alpha
        alpha = last.alpha + part * given.alpha.clamp(max=float(first.alpha))
        missing = _missing(first) + part * (_missing(given) - _missing(first)).clamp(min=0)
        return self.of.time(torch.log(alpha) - torch.log(missing * (1 + alpha)) / 2)

    def _ends(self) -> tuple[Level, Level]:
        return self.of(float64(0.0)).unit(), self.of(float64(1.0)).unit()


def _stretched(level: Level, first: Level, last: Level) -> Level:
    """`level` with its alpha moved so that `first` stays and `last` comes to 0; all at unit norm."""
    part = first.alpha / (first.alpha - last.alpha)
    alpha = part * (level.alpha - last.alpha)
    missing = _missing(first) + part * (_missing(level) - _missing(first))
    return Level(alpha, torch.sqrt(missing * (1 + alpha)))


def _missing(level: Level) -> Tensor:
    """1 - alpha at unit norm, without the difference."""
    return level.sigma.square() / (1 + level.alpha)
