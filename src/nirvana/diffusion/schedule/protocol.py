"""What a schedule is: time t in [0, 1] (0 is data, 1 is noise) to a noise level, and back."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, float64

_NEXT_TO_DATA = 1e-40


@runtime_checkable
class Schedule(Protocol):
    """A path of noise levels, strictly rising in noise with t."""

    def __call__(self, t: Float[Tensor, "..."]) -> Level:
        """The level at time t in [0, 1], of the shape of t."""
        ...

    def time(self, lam: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The time t at which log(alpha/sigma) = lam; levels beyond an end of the schedule give that end."""
        ...


def derivative(schedule: Schedule, t: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
    """(d alpha/dt, d sigma/dt) at t, both float64 of the shape of t, by forward differentiation of `schedule`.

    One-sided at t = 0 and 1. At t = 0 sigma of a preserved variance is like sqrt(t), and d sigma/dt is inf.
    """

    def pair(t: Tensor) -> tuple[Tensor, Tensor]:
        level = schedule(t)
        return level.alpha, level.sigma

    def slopes(t: Tensor) -> tuple[Tensor, Tensor]:
        return cast(tuple[Tensor, Tensor], torch.func.jvp(pair, (t,), (torch.ones_like(t),))[1])

    t = float64(t)
    dalpha, dsigma = slopes(t)
    # There sigma * d sigma/dt, which has a limit, was 0 * inf. Next to it, it is that limit to rounding.
    lost = (t == 0) & dsigma.isnan()
    if bool(lost.any()):
        dalpha = torch.where(lost, slopes(torch.where(lost, _NEXT_TO_DATA, t))[0], dalpha)
        dsigma = torch.where(lost, torch.inf, dsigma)
    return dalpha, dsigma
