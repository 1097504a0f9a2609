"""Grids: which n + 1 levels a trajectory of n steps visits, from noise to data."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from nirvana.diffusion.level import Level, float64, rewalked, strictly_monotone, walk
from nirvana.diffusion.schedule import Schedule, Tabulated

Grid = Callable[[Schedule, int], list[Level]]
"""(schedule, n) -> n + 1 levels of strictly falling noise, the last one clean. ValueError at n < 1."""

LamRange = tuple[float, float]
"""(lowest, highest) lam, both finite: a checkpoint stores the range it was trained on."""

EDM_RANGE: LamRange = (-math.log(80), -math.log(0.002))
"""sigma_max = 80 and sigma_min = 0.002 of EDM (Karras et al. 2022, table 1)."""

FINEST = 2**16
"""The most steps of which a part is taken, where only little noise is walked and no more than a quarter are wanted."""

FIRST_TIME = 1e-3
"""The time next to data on a schedule that is no table (Karras et al. 2022, table 1, eps_s of VP)."""


def uniform(schedule: Schedule, n: int) -> list[Level]:
    """The schedule at t = 1, (n - 1)/n, ..., 1/n, 0, between the points of a table too."""
    return _at_times(schedule, torch.arange(_count(n), -1, -1, dtype=torch.float64) / n)


def trailing(schedule: Schedule, n: int) -> list[Level]:
    """The table's own points nearest to index T, T - T/n, T - 2T/n, ..., 0 (Lin et al. 2023, table 2, "trailing").

    For networks that know the T times of their table only; on a schedule that is no table it is `uniform`.
    Raises ValueError where n > T.
    """
    if not isinstance(schedule, Tabulated):
        return uniform(schedule, n)
    T = _points(schedule, n)
    # In whole numbers, halves upwards: the places are at least 1 apart, so no two meet.
    return _at_points(schedule, [(2 * T * (n - i) + n) // (2 * n) for i in range(n + 1)])


def leading(schedule: Schedule, n: int) -> list[Level]:
    """The table's points 1 + (n - 1)s, ..., 1 + s, 1, 0, s = floor(T/n) (Lin et al. 2023, table 2, "leading").

    Elsewhere t = a + (1 - a)(n - 1 - i)/n with a = 0.001, and 0. It starts below t = 1, though x starts as noise: of
    use where older pictures are to be made again. Raises ValueError where n > T.
    """
    if isinstance(schedule, Tabulated):
        stride = _points(schedule, n) // n
        return _at_points(schedule, [*range(1 + (n - 1) * stride, 0, -stride), 0])
    part = torch.arange(_count(n) - 1, -1, -1, dtype=torch.float64) / n
    return _at_times(schedule, torch.cat([FIRST_TIME + (1 - FIRST_TIME) * part, torch.zeros(1, dtype=torch.float64)]))


def linspace(schedule: Schedule, n: int) -> list[Level]:
    """The table's n points nearest to an even spacing of T..1, and 0 (Nichol & Dhariwal 2021, section 4).

    Elsewhere n even times from 1 to 0.001, and 0 (Karras et al. 2022, table 1, VP). One step goes from 1 to 0.
    Raises ValueError where n > T.
    """
    gaps = max(1, _count(n) - 1)
    if isinstance(schedule, Tabulated):
        T = _points(schedule, n)
        return _at_points(schedule, [*(T - (2 * i * (T - 1) + gaps) // (2 * gaps) for i in range(n)), 0])
    part = torch.arange(n, dtype=torch.float64) / gaps
    return _at_times(schedule, torch.cat([1 + (FIRST_TIME - 1) * part, torch.zeros(1, dtype=torch.float64)]))


def quadratic(schedule: Schedule, n: int) -> list[Level]:
    """t_i = ((n - i)/n)^2, on a table its nearest points that differ (Song, Meng & Ermon 2021, appendix D.2).

    Raises ValueError where n > T.
    """
    if isinstance(schedule, Tabulated):
        T = _points(schedule, n)
        # Where the parabola is flatter than 1 a step it takes every point: both rise, and so does the larger.
        return _at_points(schedule, [max(k, (2 * T * k * k + n * n) // (2 * n * n)) for k in range(n, -1, -1)])
    return _at_times(schedule, (torch.arange(_count(n), -1, -1, dtype=torch.float64) / n).square())


def karras(lam: LamRange = EDM_RANGE, rho: float = 7.0, *, from_pure_noise: bool = False) -> Grid:
    """Ratios r_i = (r_max^(1/rho) + i/n (r_min^(1/rho) - r_max^(1/rho)))^rho, r = sigma/alpha, at unit norm.

    Karras et al. 2022, eq. 5, on n + 1 points of which the last is put at sigma = 0 exactly, and the first at
    alpha = 0 exactly where `from_pure_noise`; an exact end replaces a point and adds none. (EDM itself places n points
    and 0 behind them, and so spends its last step below r_min.) Raises ValueError at an empty or infinite range, and
    unless rho > 0.
    """
    (low, high), power = _checked(lam), 1 / _positive(rho)

    def grid(schedule: Schedule, n: int) -> list[Level]:
        del schedule  # its own spacing in the noise
        ends = float64(-low).exp() ** power, float64(-high).exp() ** power
        return _with_exact_ends(Level.from_ratio((ends[0] + _parts(n) * (ends[1] - ends[0])) ** rho), from_pure_noise)

    return grid


def uniform_lam(lam: LamRange = EDM_RANGE, rho: float = 1.0, *, from_pure_noise: bool = False) -> Grid:
    """lam_i = high - (1 - i/n)^rho (high - low), at unit norm, with exact ends as in `karras`.

    rho = 1 is even in lam (Lu et al. 2022, section 3.3), which is even in log(ratio): the grid others call exponential.
    rho > 1 has wider steps at the noise and is what they call polyexponential. Raises ValueError as `karras` does.
    """
    (low, high), rho = _checked(lam), _positive(rho)

    def grid(schedule: Schedule, n: int) -> list[Level]:
        del schedule
        return _with_exact_ends(Level.from_lam(high - (1 - _parts(n)) ** rho * (high - low)), from_pure_noise)

    return grid


def at_times(times: Sequence[float]) -> Grid:
    """The schedule at the given times, falling in [0, 1], the last one 0, which is clean on every schedule."""
    return _given(times, "a time in [0, 1]", lambda t: (t >= 0) & (t <= 1), lambda schedule, t: schedule(t))


def at_lam(lam: Sequence[float]) -> Grid:
    """The given lam, rising from -inf (pure noise) or more to inf (clean), at unit norm."""
    return _given(lam, "a lam", lambda lam: ~lam.isnan(), lambda _, lam: Level.from_lam(lam))


def at_ratios(ratios: Sequence[float]) -> Grid:
    """The given ratios sigma/alpha, falling from inf (pure noise) or less to 0 (clean), at unit norm."""
    return _given(ratios, "a ratio sigma/alpha", lambda ratio: ratio >= 0, lambda _, ratio: Level.from_ratio(ratio))


def below(grid: Grid, strength: float) -> Grid:
    """`grid` from the level of angle strength * pi/2 on: n steps, the first from exactly there (at unit norm).

    Of the fewest steps of `grid` with n levels at less noise, these. strength 1 is `grid`. Raises ValueError unless
    0 < strength <= 1, for a `grid` of a given number of levels, and where so little noise has n levels in none of
    `FINEST` steps, or 4 n.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"a strength of {strength:g} is no part of the way to noise: give more than 0, at most 1")

    def lower(schedule: Schedule, n: int) -> list[Level]:
        if strength == 1:
            return grid(schedule, n)
        first = Level.from_angle(float64(strength * math.pi / 2))

        def enough(steps: int) -> bool:
            try:
                return bool(grid(schedule, steps)[-n].ratio < first.ratio)
            except ValueError:  # more than the grid has: where no fewer are enough, it says so below
                return True

        steps = _fewest(enough, _count(n))
        if steps is None:
            raise ValueError(
                f"below the strength {strength:g} it has no {n} levels in at most {_finest(n)} steps; give a larger"
                " strength, or fewer steps"
            )
        return rewalked([first, *grid(schedule, steps)[-n:]])

    return lower


def _fewest(enough: Callable[[int], bool], start: int) -> int | None:
    """The fewest steps, from `start`, that are `enough`; None where those of the finest grid are not."""
    few, steps = start, start
    while not enough(steps):
        if steps == _finest(start):
            return None
        few, steps = steps + 1, min(2 * steps, _finest(start))
    return few + bisect_left(range(few, steps), True, key=enough)


def _finest(n: int) -> int:
    """The most steps that are tried where n are wanted."""
    return max(FINEST, 4 * n)


def _given(
    values: Sequence[float],
    what: str,
    valid: Callable[[Tensor], Tensor],
    level: Callable[[Schedule, Tensor], Level],
) -> Grid:
    """The levels of a list, all checked but n and the order at once, those by the grid. ValueError says which is wrong.

    An end that a list leaves out is not added: what is given is what is visited.
    """
    given = torch.tensor(list(values), dtype=torch.float64)
    if len(given) < 2:
        raise ValueError(f"a list of levels has at least 2, where it starts and where it ends, got {len(given)}")
    if not bool(valid(given).all()):
        i = int((~valid(given)).nonzero()[0])
        raise ValueError(f"number {i} of the list, {float(given[i])}, is not {what}")

    def grid(schedule: Schedule, n: int) -> list[Level]:
        if _count(n) != len(given) - 1:
            raise ValueError(f"a list of {len(given)} levels is walked in {len(given) - 1} steps, {n} were asked for")
        levels = _walked(level(schedule, given), float(given[-1]) == 0)
        if strictly_monotone(levels) != "falling":
            raise ValueError("the list goes from data to noise: turn it round")
        if not levels[-1].is_clean:
            raise ValueError(f"the list ends at {float(given[-1]):g}, which has noise: let it end where sigma = 0")
        return levels

    return grid


def _at_times(schedule: Schedule, t: Tensor) -> list[Level]:
    return _walked(schedule(t), clean=True)


def _at_points(table: Tabulated, places: Sequence[int]) -> list[Level]:
    return walk(Level(table.alpha[list(places)], table.sigma[list(places)]))


def _walked(levels: Level, clean: bool) -> list[Level]:
    """The levels as a walk; the last one of a schedule that does not end at data is put there, where `clean`."""
    if clean and bool(levels.sigma[-1] > 0):
        levels = Level(levels.alpha, torch.cat([levels.sigma[:-1], torch.zeros(1, dtype=torch.float64)]))
    return walk(levels)


def _count(n: int) -> int:
    if n < 1:
        raise ValueError(f"a grid needs at least 1 step, got {n}")
    return n


def _points(table: Tabulated, n: int) -> int:
    """T, which is at least n."""
    if _count(n) > table.T:
        raise ValueError(f"the table has {table.T} steps, {n} were asked for: give at most {table.T}")
    return table.T


def _checked(lam: LamRange) -> LamRange:
    if not -math.inf < lam[0] < lam[1] < math.inf:
        raise ValueError(f"the range of lam must be finite and rise, got {lam}")
    return lam


def _positive(rho: float) -> float:
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be positive, got {rho}")
    return rho


def _parts(n: int) -> Tensor:
    """0, 1/n, ..., 1."""
    return torch.arange(_count(n) + 1, dtype=torch.float64) / n


def _with_exact_ends(levels: Level, from_pure_noise: bool) -> list[Level]:
    alpha, sigma = levels.alpha.clone(), levels.sigma.clone()
    alpha[-1], sigma[-1] = 1.0, 0.0
    if from_pure_noise:
        alpha[0], sigma[0] = 0.0, 1.0
    return walk(Level(alpha, sigma))


@dataclass(frozen=True)
class NamedGrid:
    """A grid of the registry: `make` gives it for a range of lam that was trained, `when` says what it is good for.

    Those over that range take rho, and pure=1 to start at alpha = 0 exactly.
    """

    make: Callable[..., Grid]
    when: str

    def __call__(self, lam: LamRange = EDM_RANGE) -> Grid:
        """The grid over `lam`, which those that take the levels of the schedule do not need."""
        return self.make(lam)


def _over_range(factory: Callable[..., Grid], usual: float, when: str) -> NamedGrid:
    def make(lam: LamRange, rho: float = usual, pure: int = 0) -> Grid:
        return factory(lam, rho, from_pure_noise=pure != 0)

    return NamedGrid(make, when)


def _of_schedule(grid: Grid, when: str) -> NamedGrid:
    def make(lam: LamRange) -> Grid:
        del lam
        return grid

    return NamedGrid(make, when)


GRIDS: Mapping[str, NamedGrid] = MappingProxyType(
    {
        "uniform": _of_schedule(uniform, "first choice for rectified flow, and for networks of continuous time"),
        "trailing": _of_schedule(
            trailing, "few steps with a network of a table (ddpm): keeps to its points and its end"
        ),
        "linspace": _of_schedule(linspace, "to repeat papers: even over a table, its first and last step included"),
        "leading": _of_schedule(leading, "to repeat older samplers only: it starts below pure noise"),
        "quadratic": _of_schedule(quadratic, "DDIM on tables where fine detail matters: denser towards data"),
        "karras": _over_range(
            karras, 7.0, "first choice for edm, and for Heun: dense at low noise, from the trained range"
        ),
        "uniform-lam": _over_range(uniform_lam, 1.0, "multistep exponential solvers: even where their error is"),
        "exponential": _over_range(uniform_lam, 1.0, "the same grid as uniform-lam, under the name others give it"),
    }
)
"""Name -> (range of lam that was trained) -> grid, with a line on when to use it."""

LISTS: Mapping[str, Callable[[Sequence[float]], Grid]] = MappingProxyType(
    {"times": at_times, "lam": at_lam, "ratios": at_ratios}
)
"""Name -> given numbers -> the grid that visits them."""
