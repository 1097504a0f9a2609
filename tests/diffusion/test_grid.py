"""Grids: n + 1 levels, strictly falling, exact ends."""

from __future__ import annotations

import math

import pytest
import torch

from nirvana.diffusion.grid import EDM_RANGE, GRIDS, Grid, karras, trailing, uniform, uniform_lam
from nirvana.diffusion.level import Level, strictly_monotone
from nirvana.diffusion.schedule import Cosine, LinearVP, RectifiedFlow, Schedule, Tabulated

TABLE = Tabulated.from_beta(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
CASES: dict[str, tuple[Grid, Schedule, Level]] = {
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


def test_karras_is_the_formula():
    levels = karras((-math.log(80), -math.log(0.002)), rho=7.0)(RectifiedFlow(), 5)
    for i in range(5):
        expected = (80 ** (1 / 7) + i / 5 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(levels[i].ratio) == pytest.approx(expected, rel=1e-12)


def test_uniform_lam_is_uniform_in_lam():
    levels = uniform_lam((-2.0, 6.0))(RectifiedFlow(), 4)
    assert [float(level.lam) for level in levels[:-1]] == pytest.approx([-2, 0, 2, 4], abs=1e-14)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("n", [0, -1])
def test_no_steps_are_refused(name: str, n: int):
    with pytest.raises(ValueError, match="at least 1 step"):
        GRIDS[name](EDM_RANGE)(TABLE, n)


def test_registered_grids_use_the_range():
    for name in ("karras", "uniform-lam"):
        assert float(GRIDS[name]((-1.5, 2.0))(TABLE, 3)[0].lam) == pytest.approx(-1.5, rel=1e-14)
    for name in ("uniform", "trailing"):
        assert float(GRIDS[name]((-1.5, 2.0))(TABLE, 3)[0].lam) == float(TABLE.at(1000).lam)


def test_trailing_refuses_what_has_no_points():
    with pytest.raises(ValueError, match="Tabulated"):
        trailing(RectifiedFlow(), 3)
    with pytest.raises(ValueError, match="at most 1000"):
        trailing(TABLE, 1001)


@pytest.mark.parametrize("lam", [(1.0, 1.0), (2.0, 1.0), (-math.inf, 1.0), (0.0, math.inf), (math.nan, 1.0)])
def test_a_range_that_is_none_is_refused(lam: tuple[float, float]):
    for factory in (karras, uniform_lam):
        with pytest.raises(ValueError, match="range of lam"):
            factory(lam)
