"""Where solvers are proven: schedules, and levels along them that refine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from nirvana.diffusion import Cosine, Level, LinearVP, RectifiedFlow, Schedule, Tabulated, linear_betas, walk
from nirvana.diffusion.level import float64

SCHEDULES: Mapping[str, Callable[[], Schedule]] = MappingProxyType(
    {
        "vp-linear": LinearVP,
        "cosine": Cosine,
        "flow": RectifiedFlow,
        "table": lambda: Tabulated.from_beta(linear_betas(1000)),
    }
)
"""Name -> schedule."""

INTERIOR = (-1.8, 1.8)
"""The range of lam, free of infinities, on which orders are measured."""


def _uniform(n: int) -> Tensor:
    return torch.arange(n + 1, dtype=torch.float64) / n


def _uneven(n: int) -> Tensor:
    """Steps of 1, 2, 1, 2, ...: a method that takes its last step for as long as this one loses its order here."""
    steps = 1 + torch.arange(n, dtype=torch.float64) % 2
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.cumsum(steps, 0)]) / steps.sum()


SPACINGS: Mapping[str, Callable[[int], Tensor]] = MappingProxyType(
    {"uniform": _uniform, "uneven": _uneven, "quadratic": lambda n: 1 - (1 - _uniform(n)) ** 2}
)
"""Name -> n + 1 numbers that rise from 0 to 1: the part of the way in t (or in lam) that lies behind each level."""


def interior(schedule: Schedule, spacing: str, n: int) -> list[Level]:
    """n steps from the noisy end of INTERIOR to the other, spaced in t; "lam" is even in lam."""
    if spacing == "lam":
        return walk(schedule(schedule.time(INTERIOR[0] + (INTERIOR[1] - INTERIOR[0]) * _uniform(n))))
    first, last = (schedule.time(float64(lam)) for lam in INTERIOR)
    return walk(schedule(first + (last - first) * SPACINGS[spacing](n)))
