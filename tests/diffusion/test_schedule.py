"""Schedules: inverses, derivatives, exact table points."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from nirvana.diffusion.level import Level
from nirvana.diffusion.schedule import (
    BETAS,
    SCHEDULES,
    VE,
    WRAPPERS,
    Cosine,
    EDMPath,
    LinearVP,
    RectifiedFlow,
    Schedule,
    Shifted,
    Tabulated,
    ZeroTerminalSNR,
    derivative,
    scaled_linear_betas,
    timestep_shift,
    zero_terminal_snr,
)

F64 = torch.float64
BETA = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
TABLE = Tabulated.from_beta(BETA)
LATENT = Tabulated.from_beta(scaled_linear_betas())
ZERO = zero_terminal_snr(LATENT)
CASES: dict[str, Schedule] = {
    "flow": RectifiedFlow(),
    "cosine": Cosine(),
    "cosine-0.1": Cosine(s=0.1),
    "linear-vp": LinearVP(),
    "table": TABLE,
    "scaled-linear": LATENT,
    "ve": VE(),
    "edm": EDMPath(),
    "shifted-flow": timestep_shift(RectifiedFlow(), 3.0),
    "shifted-vp": Shifted(LinearVP(), -1.3),
    "shifted-table": Shifted(TABLE, 0.7),
    "zero-table": ZERO,
    "zero-vp": zero_terminal_snr(LinearVP()),
    "zero-ve": zero_terminal_snr(VE()),
    "zero-cosine": zero_terminal_snr(Cosine()),
    "shifted-zero": Shifted(ZERO, -1.0),
}
NAMES, ALL = list(CASES), list(CASES.values())
STARTS_CLEAN = [name for name in CASES if name not in ("ve", "zero-ve")]
ENDS_AT_NOISE = ["flow", "cosine", "shifted-flow", "zero-table", "zero-vp", "zero-ve", "zero-cosine", "shifted-zero"]
EPS = torch.finfo(F64).eps


def test_formulas():
    t = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=F64)
    flow = RectifiedFlow()(t)
    assert torch.equal(flow.alpha, 1 - t) and torch.equal(flow.sigma, t)
    f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(Cosine()(t).alpha ** 2, f / f[0], rtol=1e-13, atol=1e-30)
    integral = 0.1 * t + (20 - 0.1) * t**2 / 2
    assert torch.allclose(LinearVP()(t).alpha, torch.exp(-integral / 2), rtol=1e-14, atol=0)


VP = ["cosine", "linear-vp", "table", "scaled-linear", "shifted-vp", "zero-table", "zero-vp", "zero-ve", "zero-cosine"]


@pytest.mark.parametrize("schedule", [CASES[name] for name in VP], ids=VP)
def test_variance_preserving(schedule: Schedule):
    t = torch.linspace(0, 1, 1777, dtype=F64)
    assert torch.allclose(schedule(t).norm, torch.ones_like(t), rtol=3e-15, atol=0)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_inverts_to_rounding(schedule: Schedule):
    """What lam cannot tell of t for its own rounding is all that is lost, from end to end."""
    t = torch.cat(
        [torch.logspace(-9, -1, 60, dtype=F64), torch.linspace(0, 1, 1237, dtype=F64), 1 - 2.0 ** -torch.arange(3, 40)]
    )
    level = schedule(t)
    dalpha, dsigma = derivative(schedule, t)
    slope = (dalpha / level.alpha - dsigma / level.sigma).abs()
    # A table's own rounding of the angle is that of angles of order 1.
    of_lam = (level.lam.abs() + level.norm.square() / (level.alpha * level.sigma) * level.angle) / slope
    lost = EPS * (4 * t + 4 * torch.where(of_lam.isfinite(), of_lam, 0.0))
    assert bool(((schedule.time(level.lam) - t).abs() <= lost).all())


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_the_ends_are_found_exactly(schedule: Schedule):
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    assert schedule.time(schedule(ends).lam).tolist() == pytest.approx([0.0, 1.0], abs=4 * EPS)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_time_of_a_level_beyond_the_ends_is_the_end(schedule: Schedule):
    assert float(schedule.time(torch.tensor(-math.inf))) == pytest.approx(1, abs=1e-15)
    assert float(schedule.time(torch.tensor(math.inf))) == 0
    assert 0 <= float(schedule.time(torch.tensor(-60.0))) <= 1


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_noise_rises_strictly_with_t(schedule: Schedule):
    lam = schedule(torch.linspace(0, 1, 5001, dtype=F64)).lam
    assert bool((lam.diff() < 0).all())


@pytest.mark.parametrize("schedule", [CASES[name] for name in STARTS_CLEAN], ids=STARTS_CLEAN)
def test_data_is_clean(schedule: Schedule):
    assert float(schedule(torch.zeros((), dtype=F64)).sigma) == 0


@pytest.mark.parametrize("schedule", [CASES[name] for name in ENDS_AT_NOISE], ids=ENDS_AT_NOISE)
def test_pure_noise_is_exact_at_one(schedule: Schedule):
    level = schedule(torch.ones((), dtype=F64))
    assert float(level.alpha) == 0 and float(level.sigma) == pytest.approx(1, rel=4 * EPS)


@pytest.mark.parametrize("schedule", ALL, ids=NAMES)
def test_derivative_is_finite_where_it_is(schedule: Schedule):
    """One-sided at the ends: d sigma/dt of a preserved variance rises like 1/sqrt(t) at data, all else is finite."""
    t = torch.tensor([0.0, 1e-12, 0.5, 1.0], dtype=F64)
    dalpha, dsigma = derivative(schedule, t)
    assert bool(dalpha.isfinite().all()) and bool(dsigma[1:].isfinite().all())
    if not dsigma[0].isfinite():
        steep = schedule(torch.tensor([1e-8, 1e-10], dtype=F64)).sigma
        assert float(dsigma[0]) == math.inf and float(steep[0] / steep[1]) == pytest.approx(10, rel=1e-3)
    start = schedule(torch.tensor([0.0, 1e-7], dtype=F64))
    assert float(dalpha[0]) == pytest.approx(float(start.alpha.diff()) / 1e-7, rel=1e-3, abs=1e-3)
    h = 1e-7
    end = schedule(torch.tensor([1 - h, 1.0], dtype=F64))
    assert float(dalpha[-1]) == pytest.approx(float(end.alpha.diff()) / h, rel=1e-3, abs=1e-5)
    assert float(dsigma[-1]) == pytest.approx(float(end.sigma.diff()) / h, rel=1e-3, abs=1e-5)


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


def test_scaled_linear_is_that_of_latent_diffusion():
    beta = scaled_linear_betas(1000)
    assert float(beta[0]) == pytest.approx(0.00085, rel=1e-14) and float(beta[-1]) == pytest.approx(0.012, rel=1e-14)
    assert torch.allclose(beta.sqrt().diff().diff(), torch.zeros(998, dtype=F64), atol=1e-16)
    # sigma/alpha at its end, which samplers of these models start from.
    assert float(LATENT.at(1000).ratio) == pytest.approx(14.6146, abs=1e-4)
    assert float(LATENT.at(1).ratio) == pytest.approx(0.0291672, abs=1e-6)


def test_exploding_variance():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
    assert VE(0.01, 50.0)(t).ratio.tolist() == pytest.approx([0.01, 0.01 * 5000**0.25, 50.0], rel=1e-14)
    assert EDMPath(80.0)(t).ratio.tolist() == [0.0, 20.0, 80.0]
    assert torch.equal(derivative(EDMPath(80.0), t)[1], torch.full((3,), 80.0, dtype=F64))
    for schedule in (VE(), EDMPath()):
        assert torch.equal(schedule(t).alpha, torch.ones(3, dtype=F64))


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
def test_the_timestep_shift_is_a_change_of_time(shift: float):
    """Esser et al. 2024, eq. 23."""
    t = torch.linspace(0, 1, 41, dtype=F64)
    moved, there = timestep_shift(RectifiedFlow(), shift)(t), RectifiedFlow()(shift * t / (1 + (shift - 1) * t))
    assert torch.allclose(moved.alpha, there.alpha, rtol=1e-14, atol=1e-15)
    assert torch.allclose(moved.sigma, there.sigma, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", ["flow", "cosine", "linear-vp", "table", "ve", "zero-table"])
def test_a_shift_adds_to_lam(name: str):
    t = torch.linspace(0, 1, 103, dtype=F64)
    lam, shifted = CASES[name](t).lam, Shifted(CASES[name], -0.8)(t)
    assert torch.allclose(shifted.lam, lam - 0.8, rtol=1e-14, atol=1e-14)
    assert torch.allclose(shifted.norm, torch.ones_like(t), rtol=1e-14, atol=0)


def test_zero_terminal_snr_is_the_algorithm():
    """Lin et al. 2023, algorithm 1: sqrt(alpha_bar) is moved to a last of 0 and scaled to its first."""
    assert isinstance(ZERO, Tabulated) and ZERO.T == 1000
    before = LATENT.alpha[1:]
    after = (before - before[-1]) * before[0] / (before[0] - before[-1])
    assert torch.allclose(ZERO.alpha[1:], after, rtol=1e-12, atol=1e-16)
    assert torch.allclose(ZERO.sigma[1:], (1 - after**2).sqrt(), rtol=1e-12, atol=0)
    assert ZERO.at(0).is_clean and ZERO.at(1000).is_pure_noise
    t = torch.linspace(0, 1, 57, dtype=F64)
    vp, last = LinearVP()(t).alpha, LinearVP()(torch.ones((), dtype=F64)).alpha
    assert torch.allclose(zero_terminal_snr(LinearVP())(t).alpha, (vp - last) / (1 - last), rtol=1e-12, atol=1e-15)


def test_zero_terminal_snr_leaves_alone_what_ends_at_noise():
    t = torch.linspace(0, 1, 57, dtype=F64)
    assert torch.allclose(zero_terminal_snr(Cosine())(t).lam, Cosine()(t).lam, rtol=1e-13, atol=1e-13)
    again = zero_terminal_snr(ZERO)
    assert isinstance(again, Tabulated) and torch.allclose(again.alpha, ZERO.alpha, rtol=1e-13, atol=0)


def test_small_noise_is_kept_without_cancellation():
    """sigma' near data is sigma sqrt(alpha'(1 + ...)): its relative error stays that of sigma."""
    t = torch.tensor([1e-9, 1e-12], dtype=F64)
    vp, last = LinearVP()(t), float(LinearVP()(torch.ones((), dtype=F64)).alpha)
    assert torch.allclose(zero_terminal_snr(LinearVP())(t).sigma, vp.sigma / math.sqrt(1 - last), rtol=1e-9, atol=0)


def test_registries():
    for name, factory in SCHEDULES.items():
        level = factory()(torch.tensor(0.5, dtype=F64))
        assert 0 < float(level.ratio) < math.inf, name
    assert {name: type(factory()) for name, factory in list(SCHEDULES.items())[:3]} == {
        "rectified-flow": RectifiedFlow,
        "cosine": Cosine,
        "linear-vp": LinearVP,
    }
    for name in ("linear", "scaled-linear"):
        table = SCHEDULES[name]()
        assert isinstance(table, Tabulated)
        assert torch.equal(table.alpha, Tabulated.from_beta(BETAS[name](1000)).alpha)
    assert SCHEDULES["ve"](sigma_max=7.0) == VE(sigma_max=7.0)
    assert WRAPPERS["shifted"](RectifiedFlow(), lam=-1.0) == Shifted(RectifiedFlow(), -1.0)
    assert isinstance(WRAPPERS["zero-terminal-snr"](LinearVP()), ZeroTerminalSNR)


def test_impossible_numbers_are_refused():
    for wrong in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="sigma_min < sigma_max"):
            VE(*wrong)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sigma_max must be positive"):
            EDMPath(wrong)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="shift"):
            timestep_shift(RectifiedFlow(), wrong)
    with pytest.raises(ValueError, match="shift of lam must be finite"):
        Shifted(RectifiedFlow(), math.inf)
