"""Grids: which n + 1 levels a trajectory of n steps visits, from noise to data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from nirvana.diffusion.level import Level, float64, walk
from nirvana.diffusion.schedule import Schedule, Tabulated

Grid = Callable[[Schedule, int], list[Level]]
"""(schedule, n) -> n + 1 levels of strictly falling noise, the last one clean. ValueError at n < 1."""

LamRange = tuple[float, float]
"""(lowest, highest) lam, both finite: a checkpoint stores the range it was trained on."""

EDM_RANGE: LamRange = (-math.log(80), -math.log(0.002))
"""sigma_max = 80 and sigma_min = 0.002 of EDM (Karras et al. 2022, table 1)."""


def uniform(schedule: Schedule, n: int) -> list[Level]:
    """The schedule at t = 1, (n - 1)/n, ..., 1/n, 0."""
    t = torch.arange(_count(n), -1, -1, dtype=torch.float64) / n
    return walk(schedule(t))


def trailing(schedule: Schedule, n: int) -> list[Level]:
    """The table's own points nearest to index T, T - T/n, T - 2T/n, ..., 0 (Lin et al. 2023, table 2, "trailing").

    For networks that know the T times of their table only. Raises ValueError where the schedule is no table or n > T.
    """
    if not isinstance(schedule, Tabulated):
        raise ValueError("a trailing grid takes the points of a table: give a Tabulated schedule or the uniform grid")
    if _count(n) > schedule.T:
        raise ValueError(f"the table has {schedule.T} steps, {n} were asked for: give at most {schedule.T}")
    # In whole numbers, halves upwards: the places are at least 1 apart, so no two meet.
    places = [(2 * schedule.T * (n - i) + n) // (2 * n) for i in range(n + 1)]
    return walk(Level(schedule.alpha[places], schedule.sigma[places]))


def karras(lam: LamRange = EDM_RANGE, rho: float = 7.0, *, from_pure_noise: bool = False) -> Grid:
    """Ratios r_i = (r_max^(1/rho) + i/n (r_min^(1/rho) - r_max^(1/rho)))^rho, r = sigma/alpha, at unit norm.

    Karras et al. 2022, eq. 5, on n + 1 points of which the last is put at sigma = 0 exactly, and the first at
    alpha = 0 exactly where `from_pure_noise`; an exact end replaces a point and adds none. (EDM itself places n points
    and 0 behind them, and so spends its last step below r_min.) Raises ValueError at an empty or infinite range.
    """
    low, high = _checked(lam)

    def grid(schedule: Schedule, n: int) -> list[Level]:
        del schedule  # its own spacing in the noise
        ends = float64(-low).exp() ** (1 / rho), float64(-high).exp() ** (1 / rho)
        return _with_exact_ends(Level.from_ratio(_between(*ends, n) ** rho), from_pure_noise)

    return grid


def uniform_lam(lam: LamRange = EDM_RANGE, *, from_pure_noise: bool = False) -> Grid:
    """lam at n + 1 evenly spaced points (Lu et al. 2022, section 3.3), at unit norm, with exact ends as in `karras`."""
    low, high = _checked(lam)

    def grid(schedule: Schedule, n: int) -> list[Level]:
        del schedule
        return _with_exact_ends(Level.from_lam(_between(float64(low), float64(high), n)), from_pure_noise)

    return grid


def _count(n: int) -> int:
    if n < 1:
        raise ValueError(f"a grid needs at least 1 step, got {n}")
    return n


def _checked(lam: LamRange) -> LamRange:
    if not -math.inf < lam[0] < lam[1] < math.inf:
        raise ValueError(f"the range of lam must be finite and rise, got {lam}")
    return lam


def _between(first: Tensor, last: Tensor, n: int) -> Tensor:
    return first + torch.arange(_count(n) + 1, dtype=torch.float64) / n * (last - first)


def _with_exact_ends(levels: Level, from_pure_noise: bool) -> list[Level]:
    alpha, sigma = levels.alpha.clone(), levels.sigma.clone()
    alpha[-1], sigma[-1] = 1.0, 0.0
    if from_pure_noise:
        alpha[0], sigma[0] = 0.0, 1.0
    return walk(Level(alpha, sigma))


def _any_range(grid: Grid) -> Callable[[LamRange], Grid]:
    def factory(lam: LamRange = EDM_RANGE) -> Grid:
        del lam  # its levels are the schedule's own
        return grid

    return factory


GRIDS: Mapping[str, Callable[[LamRange], Grid]] = MappingProxyType(
    {"uniform": _any_range(uniform), "trailing": _any_range(trailing), "karras": karras, "uniform-lam": uniform_lam}
)
"""Name -> (range of lam that was trained) -> grid."""
