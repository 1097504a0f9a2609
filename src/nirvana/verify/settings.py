"""Where solvers are proven: schedules, and levels along them that refine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from nirvana.diffusion import Cosine, Level, Schedule, Tabulated, linear_betas, walk
from nirvana.diffusion.level import float64
from nirvana.diffusion.schedule import SCHEDULES as NAMED
from nirvana.diffusion.schedule import Shifted, zero_terminal_snr

SCHEDULES: Mapping[str, Callable[[], Schedule]] = MappingProxyType(
    {
        **NAMED,
        "shifted": lambda: Shifted(Cosine(), -0.7),
        "zero-terminal-snr": lambda: zero_terminal_snr(Tabulated.from_beta(linear_betas())),
    }
)
"""Name -> schedule: those of `nirvana.diffusion`, and one of each wrapper."""

INTERIOR = (-1.3, 1.3)
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


def whole(schedule: Schedule, n: int) -> list[Level]:
    """n steps from t = 1 to t = 0 of `schedule`, with its exact ends, even in the angle: at home at every level."""
    ends = schedule(float64(torch.tensor([1.0, 0.0])))
    first, last = ends.angle
    between = Level.from_angle(first + (last - first) * _uniform(n)[1:-1])
    inner = schedule(schedule.time(between.lam))

    def joined(ends: Tensor, inner: Tensor) -> Tensor:
        return torch.cat([ends[:1], inner.expand(n - 1), ends[1:]])

    return walk(Level(joined(ends.alpha, inner.alpha), joined(ends.sigma, inner.sigma)))


RAMP = 10
"""Steps of a `ramp`."""


def ramp(now: Level, nxt: Level) -> list[Level]:
    """`now` and what lies 2^-9, 2^-8, ..., 1/2 of the way to `nxt`: RAMP levels."""
    parts = [0.0, *(2.0**-k for k in range(RAMP - 1, 0, -1))]
    return [
        Level(now.alpha + part * (nxt.alpha - now.alpha), now.sigma + part * (nxt.sigma - now.sigma)) for part in parts
    ]
