"""Schedules: inverses, derivatives, exact table points."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from nirvana.diffusion.level import Level
from nirvana.diffusion.schedule import Cosine, LinearVP, RectifiedFlow, Schedule, Tabulated, derivative

F64 = torch.float64
BETA = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
TABLE = Tabulated.from_beta(BETA)
ALL: list[Schedule] = [RectifiedFlow(), Cosine(), Cosine(s=0.1), LinearVP(), TABLE]
NAMES = ["flow", "cosine", "cosine-0.1", "linear-vp", "table"]


def test_formulas():
    t = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=F64)
    flow = RectifiedFlow()(t)
    assert torch.equal(flow.alpha, 1 - t) and torch.equal(flow.sigma, t)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(Cosine()(t).alpha ** 2, f / f[0], rtol=1e-13, atol=1e-30)
    integral = 0.1 * t + (20 - 0.1) * t**2 / 2
    assert torch.allclose(LinearVP()(t).alpha, torch.exp(-integral / 2), rtol=1e-14, atol=0)


@pytest.mark.parametrize("schedule", [Cosine(), LinearVP(), TABLE], ids=["cosine", "linear-vp", "table"])
def test_variance_preserving(schedule: Schedule):
    t = torch.linspace(0, 1, 1777, dtype=F64)
    assert torch.allclose(schedule(t).norm, torch.ones_like(t), rtol=3e-15, atol=0)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_inverts(schedule: Schedule):
    t = torch.cat([torch.logspace(-9, -1, 60, dtype=F64), torch.linspace(0, 1, 1237, dtype=F64)])
    assert torch.allclose(schedule.time(schedule(t).lam), t, rtol=3e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_of_a_level_beyond_the_ends_is_the_end(schedule: Schedule):
    assert float(schedule.time(torch.tensor(-math.inf))) == pytest.approx(1, abs=1e-15)
    assert float(schedule.time(torch.tensor(math.inf))) == 0
    assert 0 <= float(schedule.time(torch.tensor(-60.0))) <= 1


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_noise_rises_strictly_with_t_and_data_is_clean(schedule: Schedule):
    lam = schedule(torch.linspace(0, 1, 5001, dtype=F64)).lam
    assert bool((lam.diff() < 0).all())
    assert float(schedule(torch.zeros((), dtype=F64)).sigma) == 0


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()], ids=["flow", "cosine"])
def test_pure_noise_is_exact_at_one(schedule: Schedule):
    assert float(schedule(torch.ones((), dtype=F64)).alpha) == 0


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_derivative_is_the_finite_difference(schedule: Schedule):
    t = torch.tensor([0.0301, 0.11134, 0.37773, 0.500127, 0.81009, 0.97051], dtype=F64)  # between table points
    h = 1e-6
    above, below = schedule(t + h), schedule(t - h)
    dalpha, dsigma = derivative(schedule, t)
    assert torch.allclose(dalpha, (above.alpha - below.alpha) / (2 * h), rtol=1e-7, atol=1e-9)
    assert torch.allclose(dsigma, (above.sigma - below.sigma) / (2 * h), rtol=1e-7, atol=1e-9)


def test_derivative_on_a_table_point_is_that_of_the_segment_above():
    on, above = derivative(TABLE, torch.tensor([0.5, 0.5 + 1e-7], dtype=F64))[0]
    assert float(on) == pytest.approx(float(above), rel=1e-5)
    assert float(on) < -0.5


@pytest.mark.parametrize("T", [1, 3, 49, 1000])
def test_table_points_are_exact(T: int):
    table = Tabulated.from_beta(torch.linspace(1e-4, 0.2 if T < 1000 else 0.02, T, dtype=F64))
    index = torch.arange(T + 1)
    level = table(index / torch.tensor(T, dtype=F64))
    assert table.T == T
    assert torch.equal(level.alpha, table.alpha) and torch.equal(level.sigma, table.sigma)
    assert torch.equal(table.index(level.lam), index.double())
    assert torch.equal(table.index(level.scaled(30.0).lam), index.double())
    again = table(table.time(level.lam))
    assert torch.equal(again.alpha, table.alpha) and torch.equal(again.sigma, table.sigma)
    assert torch.equal(table.at(T).alpha, table.alpha[-1]) and table.at(0).is_clean


def test_from_beta_is_the_product_without_cancellation():
    product = Fraction(1)
    for t, beta in enumerate(BETA.tolist()[:200], start=1):
        product *= 1 - Fraction(beta)
        product = Fraction(round(product * 2**200), 2**200)
        assert float(TABLE.alpha[t]) == pytest.approx(math.sqrt(product), rel=1e-14)
        assert float(TABLE.sigma[t]) == pytest.approx(math.sqrt(1 - product), rel=1e-14)


def test_given_alpha_bar_is_kept():
    alpha_bar = torch.tensor([0.9, 0.5, 0.0], dtype=F64)
    table = Tabulated(alpha_bar)
    assert torch.equal(table.alpha[1:], alpha_bar.sqrt()) and torch.equal(table.sigma[1:], (1 - alpha_bar).sqrt())
    assert table.at(3).is_pure_noise and table(torch.ones((), dtype=F64)).is_pure_noise


def test_between_points_the_angle_is_linear():
    middle = TABLE(torch.tensor(400.25 / 1000, dtype=F64)).angle
    low, high = Level(TABLE.alpha[400:402], TABLE.sigma[400:402]).angle
    assert float(middle) == pytest.approx(float(0.75 * low + 0.25 * high), rel=1e-14)
    assert float(TABLE.index(TABLE(torch.tensor(0.40025, dtype=F64)).lam)) == pytest.approx(400.25, rel=1e-11)


@pytest.mark.parametrize("bad", [[], [0.5, 0.5], [0.5, 0.6], [1.0, 0.5], [0.5, -0.1], [0.5, math.nan]])
def test_a_table_that_does_not_fall_is_refused(bad: list[float]):
    with pytest.raises(ValueError, match="falls strictly"):
        Tabulated(torch.tensor(bad, dtype=F64))
