"""Grids: n + 1 levels, strictly falling, exact ends."""

from __future__ import annotations

import math

import pytest
import torch

from nirvana.diffusion import grid as grids
from nirvana.diffusion.grid import (
    EDM_RANGE,
    GRIDS,
    LISTS,
    Grid,
    at_lam,
    at_ratios,
    at_times,
    below,
    karras,
    leading,
    linspace,
    quadratic,
    trailing,
    uniform,
    uniform_lam,
)
from nirvana.diffusion.level import Level, strictly_monotone
from nirvana.diffusion.schedule import (
    VE,
    Cosine,
    EDMPath,
    LinearVP,
    RectifiedFlow,
    Schedule,
    Tabulated,
    timestep_shift,
    zero_terminal_snr,
)

TABLE = Tabulated.from_beta(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
ZERO = zero_terminal_snr(TABLE)
ONE = torch.ones(())
CASES: dict[str, tuple[Grid, Schedule, Level]] = {
    "uniform-ve": (uniform, VE(), Level.of(1.0, 50.0)),
    "uniform-edm": (uniform, EDMPath(), Level.of(1.0, 80.0)),
    "uniform-shifted": (uniform, timestep_shift(RectifiedFlow(), 3.0), Level.of(0.0, 1.0)),
    "trailing-flow": (trailing, RectifiedFlow(), Level.of(0.0, 1.0)),
    "trailing-zero": (trailing, ZERO, Level.of(0.0, 1.0)),
    "linspace": (linspace, TABLE, TABLE.at(1000)),
    "linspace-zero": (linspace, ZERO, Level.of(0.0, 1.0)),
    "linspace-vp": (linspace, LinearVP(), LinearVP()(ONE)),
    "linspace-ve": (linspace, VE(), Level.of(1.0, 50.0)),
    "quadratic": (quadratic, TABLE, TABLE.at(1000)),
    "quadratic-flow": (quadratic, RectifiedFlow(), Level.of(0.0, 1.0)),
    "quadratic-cosine": (quadratic, Cosine(), Level.of(0.0, 1.0)),
    "polyexponential": (uniform_lam((-3.0, 5.0), rho=2.0), RectifiedFlow(), Level.from_lam(-3.0)),
    "uniform-flow": (uniform, RectifiedFlow(), Level.of(0.0, 1.0)),
    "uniform-cosine": (uniform, Cosine(), Cosine()(torch.ones(()))),
    "uniform-vp": (uniform, LinearVP(), LinearVP()(torch.ones(()))),
    "uniform-table": (uniform, TABLE, TABLE.at(1000)),
    "trailing": (trailing, TABLE, TABLE.at(1000)),
    "karras": (karras(), RectifiedFlow(), Level.from_ratio(80.0)),
    "karras-pure": (karras(from_pure_noise=True), RectifiedFlow(), Level.of(0.0, 1.0)),
    "lam": (uniform_lam((-3.0, 5.0)), RectifiedFlow(), Level.from_lam(-3.0)),
    "lam-pure": (uniform_lam((-3.0, 5.0), from_pure_noise=True), RectifiedFlow(), Level.of(0.0, 1.0)),
}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 27, 999, 1000])
@pytest.mark.parametrize("case", CASES)
def test_count_order_and_ends(case: str, n: int):
    grid, schedule, first = CASES[case]
    levels = grid(schedule, n)
    assert len(levels) == n + 1
    assert strictly_monotone(levels) == "falling"
    assert levels[-1].is_clean and float(levels[-1].alpha) == 1
    assert float(levels[0].alpha) == pytest.approx(float(first.alpha), rel=1e-14, abs=0)
    assert float(levels[0].sigma) == pytest.approx(float(first.sigma), rel=1e-14, abs=0)
    assert all(level.alpha.shape == () for level in levels)


def test_uniform_is_uniform_in_time():
    levels = uniform(RectifiedFlow(), 4)
    assert [float(level.sigma) for level in levels] == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_trailing_takes_table_points():
    assert [float(level.alpha) for level in trailing(TABLE, 4)] == [
        float(TABLE.alpha[i]) for i in (1000, 750, 500, 250, 0)
    ]
    index = torch.stack([TABLE.index(level.lam) for level in trailing(TABLE, 7)])
    assert index.tolist() == [1000, 857, 714, 571, 429, 286, 143, 0]
    every = torch.stack([level.lam for level in trailing(TABLE, 1000)])
    assert TABLE.index(every).tolist() == list(range(1000, -1, -1))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 27, 999, 1000])
@pytest.mark.parametrize("schedule", [TABLE, LinearVP(), RectifiedFlow(), VE()], ids=["table", "vp", "flow", "ve"])
def test_leading_counts_orders_and_ends_but_starts_below_noise(schedule: Schedule, n: int):
    levels = leading(schedule, n)
    assert len(levels) == n + 1 and levels[-1].is_clean
    assert strictly_monotone(levels) == "falling"
    full = schedule(ONE)
    assert float(levels[0].ratio) <= float(full.ratio)
    assert (float(levels[0].ratio) < float(full.ratio)) == (not isinstance(schedule, Tabulated) or n < 1000)


def places(levels: list[Level]) -> list[int]:
    """The table's indices of levels, which are all its points, bit for bit."""
    index = [int(TABLE.index(level.lam)) for level in levels]
    assert all(float(level.alpha) == float(TABLE.alpha[i]) for level, i in zip(levels, index, strict=True))
    return index


def test_spacings_of_a_table_are_those_of_the_literature():
    """Lin et al. 2023, table 2, T = 1000 and S = 10 (there without the 0 that all end at)."""
    assert places(leading(TABLE, 10)) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]
    assert places(linspace(TABLE, 10)) == [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0]
    assert places(trailing(TABLE, 10)) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert places(leading(TABLE, 3)) == [667, 334, 1, 0]
    assert places(linspace(TABLE, 1)) == [1000, 0] and places(leading(TABLE, 1)) == [1, 0]
    assert places(quadratic(TABLE, 5)) == [1000, 640, 360, 160, 40, 0]
    for grid in (leading, linspace, trailing, quadratic):
        assert places(grid(TABLE, 1000)) == list(range(1000, -1, -1))
    assert places(quadratic(TABLE, 500))[-4:] == [3, 2, 1, 0]


def test_spacings_over_continuous_time():
    flow = RectifiedFlow()
    assert [float(level.sigma) for level in linspace(flow, 3)] == pytest.approx([1, 0.5005, 0.001, 0], rel=1e-12)
    assert [float(level.sigma) for level in leading(flow, 2)] == pytest.approx([0.5005, 0.001, 0], rel=1e-12)
    assert [float(level.sigma) for level in quadratic(flow, 2)] == [1.0, 0.25, 0.0]
    for one, other in zip(trailing(flow, 7), uniform(flow, 7), strict=True):
        assert float(one.sigma) == float(other.sigma)
    assert [float(level.ratio) for level in uniform(VE(0.01, 1.0), 2)] == pytest.approx([1.0, 0.1, 0.0], rel=1e-12)


def test_a_list_is_visited_as_it_is():
    ratios = [math.inf, 7.25, 1.5, 0.3, 0.0]
    assert [float(level.ratio) for level in at_ratios(ratios)(TABLE, 4)] == pytest.approx(ratios, rel=1e-15)
    assert at_ratios(ratios)(TABLE, 4)[0].is_pure_noise and at_ratios(ratios)(TABLE, 4)[-1].is_clean
    lam = [-4.0, 0.0, 3.0, math.inf]
    assert [float(level.lam) for level in at_lam(lam)(TABLE, 3)] == pytest.approx(lam, rel=1e-14, abs=1e-15)
    times = at_times([1.0, 0.5, 0.0])
    assert [float(level.sigma) for level in times(RectifiedFlow(), 2)] == [1.0, 0.5, 0.0]
    assert [float(level.sigma) for level in times(VE(0.01, 1.0), 2)] == pytest.approx([1.0, 0.1, 0.0], rel=1e-14)
    assert places(times(TABLE, 2)) == [1000, 500, 0]


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("ratios", [], "at least 2"),
        ("ratios", [3.0], "at least 2"),
        ("ratios", [3.0, math.nan, 0.0], "number 1 of the list, nan, is not a ratio"),
        ("ratios", [3.0, -1.0, 0.0], "number 1 of the list, -1.0, is not"),
        ("ratios", [3.0, 3.0, 0.0], "levels 0 and 1 are not strictly monotone"),
        ("ratios", [3.0, 4.0, 0.0], "levels 1 and 2 are not strictly monotone"),
        ("ratios", [0.0, 1.0, 2.0], "turn it round"),
        ("ratios", [3.0, 2.0, 0.1], "ends at 0.1, which has noise"),
        ("lam", [-3.0, math.nan, math.inf], "number 1 of the list, nan, is not a lam"),
        ("lam", [-3.0, -3.0, math.inf], "not strictly monotone"),
        ("lam", [-3.0, 3.0, 4.0], "ends at 4, which has noise"),
        ("times", [1.5, 0.5, 0.0], "number 0 of the list, 1.5, is not a time"),
        ("times", [1.0, -0.5, 0.0], "number 1 of the list"),
        ("times", [1.0, 0.5, 0.1], "ends at 0.1"),
    ],
)
def test_a_list_that_is_no_grid_is_refused(name: str, numbers: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        LISTS[name](numbers)(RectifiedFlow(), max(1, len(numbers) - 1))


@pytest.mark.parametrize("n", [1, 3])
def test_a_list_has_the_steps_it_has(n: int):
    with pytest.raises(ValueError, match=f"3 levels is walked in 2 steps, {n} were asked"):
        at_ratios([3.0, 1.0, 0.0])(TABLE, n)


def test_karras_is_the_formula():
    levels = karras((-math.log(80), -math.log(0.002)), rho=7.0)(RectifiedFlow(), 5)
    for i in range(5):
        expected = (80 ** (1 / 7) + i / 5 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(levels[i].ratio) == pytest.approx(expected, rel=1e-12)


def test_uniform_lam_is_uniform_in_lam():
    levels = uniform_lam((-2.0, 6.0))(RectifiedFlow(), 4)
    assert [float(level.lam) for level in levels[:-1]] == pytest.approx([-2, 0, 2, 4], abs=1e-14)
    # Polyexponential: exp(ramp^rho (log r_max - log r_min) + log r_min), the ramp even from 1 to 0.
    levels = uniform_lam((-2.0, 6.0), rho=2.0)(RectifiedFlow(), 4)
    expected = [(1 - i / 4) ** 2 * (2 - -6) - 6 for i in range(4)]
    assert [float(level.ratio.log()) for level in levels[:-1]] == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("n", [0, -1])
def test_no_steps_are_refused(name: str, n: int):
    with pytest.raises(ValueError, match="at least 1 step"):
        GRIDS[name](EDM_RANGE)(TABLE, n)


def test_registered_grids_use_the_range():
    for name in ("karras", "uniform-lam", "exponential"):
        assert float(GRIDS[name]((-1.5, 2.0))(TABLE, 3)[0].lam) == pytest.approx(-1.5, rel=1e-14)
    for name in ("uniform", "trailing", "linspace", "quadratic"):
        assert float(GRIDS[name]((-1.5, 2.0))(TABLE, 3)[0].lam) == float(TABLE.at(1000).lam)


def test_every_registered_grid_says_when_and_none_is_another_without_saying_so():
    walks = {name: [float(level.lam) for level in grid((-3.0, 3.0))(TABLE, 9)] for name, grid in GRIDS.items()}
    for name, grid in GRIDS.items():
        assert 20 < len(grid.when) < 100
        same = [other for other in GRIDS if other != name and walks[other] == walks[name]]
        assert not same or (name, same) in (("exponential", ["uniform-lam"]), ("uniform-lam", ["exponential"])), name
    assert "uniform-lam" in GRIDS["exponential"].when


@pytest.mark.parametrize("grid", [trailing, leading, linspace, quadratic])
def test_a_table_has_the_points_it_has(grid: Grid):
    with pytest.raises(ValueError, match="at most 1000"):
        grid(TABLE, 1001)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_rho_that_is_none_is_refused(rho: float):
    for factory in (karras, uniform_lam):
        with pytest.raises(ValueError, match="rho must be positive"):
            factory(EDM_RANGE, rho)


@pytest.mark.parametrize("lam", [(1.0, 1.0), (2.0, 1.0), (-math.inf, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_a_range_that_is_none_is_refused(lam: tuple[float, float]):
    for factory in (karras, uniform_lam):
        with pytest.raises(ValueError, match="range of lam"):
            factory(lam)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("strength", "n"), [(0.9, 7), (0.5, 1), (0.4, 3)])
def test_below_walks_exactly_n_steps_from_the_angle_on_the_grids_own_levels(name: str, strength: float, n: int):
    grid, schedule, _ = CASES[name]
    levels = below(grid, strength)(schedule, n)
    assert len(levels) == n + 1 and levels[-1].is_clean and strictly_monotone(levels) == "falling"
    assert float(levels[0].angle) == pytest.approx(strength * math.pi / 2, abs=1e-12)
    # The fewest steps of which n levels lie at less noise: with one step less there are fewer.
    steps = n
    while len(less := [x for x in grid(schedule, steps) if float(x.angle) < strength * math.pi / 2]) < n:
        steps += 1
    for found, own in zip(levels[1:], less[-n:], strict=True):
        assert torch.equal(found.alpha, own.alpha) and torch.equal(found.sigma, own.sigma)


def test_below_a_little_noise_the_number_of_steps_is_found_by_halving():
    tried: list[int] = []

    def counted(schedule: Schedule, n: int) -> list[Level]:
        tried.append(n)
        return uniform(schedule, n)

    levels = below(counted, 0.01)(RectifiedFlow(), 4)
    fewest = max(tried[-1], 1)
    assert len(levels) == 5 and len(tried) < 20 < fewest
    clean = [level for level in uniform(RectifiedFlow(), fewest - 1) if float(level.angle) < 0.005 * math.pi]
    assert len(clean) < 4


@pytest.mark.parametrize(("grid", "strength", "n"), [(karras(), 1e-3, 2), (uniform, 1e-6, 25)])
def test_so_little_noise_that_no_grid_has_the_steps_there_is_refused(
    grid: Grid, strength: float, n: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(grids, "FINEST", 256)
    with pytest.raises(ValueError, match=f"it has no {n} levels in at most 256 steps; give a larger strength"):
        below(grid, strength)(RectifiedFlow(), n)
    assert len(below(grid, strength)(RectifiedFlow(), 1)) == 2  # to data at once
    assert len(below(uniform, 0.6)(RectifiedFlow(), 300)) == 301  # more than are tried for fewer steps


def test_the_whole_strength_is_the_grid_and_none_is_refused():
    levels, own = below(uniform, 1.0)(RectifiedFlow(), 4), uniform(RectifiedFlow(), 4)
    assert all(torch.equal(a.alpha, b.alpha) for a, b in zip(levels, own, strict=True))
    for strength in (0.0, -0.1, 1.01, math.nan):
        with pytest.raises(ValueError, match="no part of the way"):
            below(uniform, strength)
    with pytest.raises(ValueError, match="at least 1 step"):
        below(uniform, 0.5)(RectifiedFlow(), 0)
    with pytest.raises(ValueError, match="a list of 3 levels"):
        below(at_ratios([5.0, 1.0, 0.0]), 0.5)(RectifiedFlow(), 3)
