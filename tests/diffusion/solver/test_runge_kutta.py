"""Runge-Kutta solvers: the formulas of the papers, the ends, counted calls, steps of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.solver.parts import GAUSSIAN, OfLevel, Silent, gaussian, tensor
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver import DataInLam, NoiseInLam, NoiseInRatio, RungeKutta, VelocityInAngle
from nirvana.diffusion.solver.runge_kutta import BOGACKI_SHAMPINE, EULER, HEUN, HEUN3, MIDPOINT

NOW, NXT = Level.of(0.6, 1.1), Level.of(1.7, 0.9)
X = tensor(0.4, -1.1, 0.7, 2.0, 0.1, -0.3, 0.9, 0.2).reshape(2, 4)


def stepped(solver: RungeKutta, x: Tensor, now: Level, nxt: Level, denoise=gaussian) -> Tensor:
    return solver.step(denoise, x, now, nxt, None, Silent())[0].x


def eps(y: Tensor, r: Tensor) -> Tensor:
    """(y - D(y, r))/r of x/alpha, the slope of EDM."""
    return (y - gaussian(y, Level(torch.ones_like(r), r)).x0) / r


def test_heun_is_that_of_edm():
    """Karras et al. 2022, algorithm 1, in which x is x/alpha and sigma the ratio; at the clean end it is Euler."""
    y, r, r_nxt = X / NOW.alpha, NOW.ratio, NXT.ratio
    slope = eps(y, r)
    guess = y + (r_nxt - r) * slope
    expected = y + (r_nxt - r) / 2 * (slope + eps(guess, r_nxt))
    assert torch.allclose(stepped(SOLVERS["heun"](), X, NOW, NXT), NXT.alpha * expected, rtol=0, atol=1e-13)
    for euler in (SOLVERS["euler"](), SOLVERS["ddim"]()):
        found = euler.step(gaussian, X, NOW, NXT, euler.init(X), Silent())[0].x
        assert torch.allclose(found, NXT.alpha * guess, rtol=0, atol=1e-13)
    clean = Level.of(2.0, 0.0)
    assert torch.allclose(stepped(SOLVERS["heun"](), X, NOW, clean), 2 * gaussian(X, NOW).x0, rtol=0, atol=1e-15)


def test_dpm_2_has_its_middle_at_the_geometric_mean_of_the_ratios():
    y, r, r_nxt = X / NOW.alpha, NOW.ratio, NXT.ratio
    middle = torch.sqrt(r * r_nxt)
    expected = y + (r_nxt - r) * eps(y + (middle - r) * eps(y, r), middle)
    assert torch.allclose(stepped(SOLVERS["dpm-2"](), X, NOW, NXT), NXT.alpha * expected, rtol=0, atol=1e-13)


def single(r1: float, r2: float | None) -> Tensor:
    """The single-step DPM-Solver++ of order 2 (Lu et al. 2022, algorithm 1) or 3, of NOW to NXT."""
    h = NXT.lam - NOW.lam

    def at(r: float) -> Level:
        return Level.from_lam(NOW.lam + r * h)

    def first(level: Level, r: float, D: Tensor) -> Tensor:
        return level.sigma / NOW.sigma * X - level.alpha * torch.expm1(-r * h) * D

    def phi(r: float) -> Tensor:
        return torch.expm1(-r * h) / (r * h) + 1

    D0 = gaussian(X, NOW).x0
    u1 = first(at(r1), r1, D0)
    D1 = gaussian(u1, at(r1)).x0
    if r2 is None:
        return first(NXT, 1.0, (1 - 1 / (2 * r1)) * D0 + 1 / (2 * r1) * D1)
    u2 = first(at(r2), r2, D0) + at(r2).alpha * r2 / r1 * phi(r2) * (D1 - D0)
    return first(NXT, 1.0, D0) + NXT.alpha / r2 * phi(1.0) * (gaussian(u2, at(r2)).x0 - D0)


def test_2s_and_3s_are_the_single_step_dpm_solvers():
    assert torch.allclose(stepped(SOLVERS["dpmpp-2s"](), X, NOW, NXT), single(1 / 2, None), rtol=0, atol=1e-13)
    assert torch.allclose(stepped(SOLVERS["dpmpp-3s"](), X, NOW, NXT), single(1 / 3, 2 / 3), rtol=0, atol=1e-13)


def test_in_the_angle_tableaus_are_those_of_textbooks():
    """x/norm moves with v; HEUN3 has b = (1, 0, 3)/4 and BOGACKI_SHAMPINE b = (2, 3, 4)/9."""
    a, length, y = NOW.angle, NXT.angle - NOW.angle, X / NOW.norm

    def v(y: Tensor, a: Tensor) -> Tensor:
        return (torch.cos(a) * y - gaussian(y, Level.from_angle(a)).x0) / torch.sin(a)

    k1 = v(y, a)
    k2 = v(y + length / 3 * k1, a + length / 3)
    k3 = v(y + 2 * length / 3 * k2, a + 2 * length / 3)
    found = stepped(RungeKutta(HEUN3, VelocityInAngle()), X, NOW, NXT)
    assert torch.allclose(found, NXT.norm * (y + length * (k1 + 3 * k3) / 4), rtol=0, atol=1e-13)
    k2 = v(y + length / 2 * k1, a + length / 2)
    k3 = v(y + 3 * length / 4 * k2, a + 3 * length / 4)
    found = stepped(RungeKutta(BOGACKI_SHAMPINE, VelocityInAngle()), X, NOW, NXT)
    assert torch.allclose(found, NXT.norm * (y + length * (2 * k1 + 3 * k2 + 4 * k3) / 9), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "lams", "calls"),
    [
        ("euler", [-math.inf, -1.0, 1.0, math.inf], [1, 1, 1]),
        ("heun", [-math.inf, -1.0, 1.0, math.inf], [1, 2, 1]),
        ("dpm-2", [-math.inf, -1.0, 1.0, math.inf], [1, 2, 1]),
        ("dpmpp-2s", [-math.inf, -1.0, 1.0, math.inf], [1, 2, 1]),
        ("dpmpp-3s", [-math.inf, -1.0, 1.0, math.inf], [1, 3, 1]),
        ("dpmpp-3s", [-math.inf, math.inf], [1]),
        ("heun", [1.0, -1.0, -math.inf], [2, 1]),
    ],
)
def test_calls_are_counted_and_ends_take_one(name: str, lams: Sequence[float], calls: list[int]):
    solver, denoise = SOLVERS[name](), OfLevel(lambda level: tensor(0.3))
    for make in (walk, list):
        levels = make(Level.from_lam(tensor(*lams))) if make is walk else [Level.from_lam(lam) for lam in lams]
        x, seen = X, []
        for now, nxt in pairwise(levels):
            before = denoise.calls
            x = stepped(solver, x, now, nxt, denoise)
            seen.append(denoise.calls - before)
        assert seen == calls and solver.calls(levels) == sum(calls)
        if lams[-1] == math.inf:
            assert torch.allclose(x, torch.full_like(X, 0.3), rtol=0, atol=1e-15)
        assert bool(x.isfinite().all())


def test_the_midpoint_in_the_ratio_has_no_end_at_the_clean_level():
    solver = RungeKutta(MIDPOINT, NoiseInRatio())
    clean = Level.of(1.0, 0.0)
    y, r = X / NOW.alpha, NOW.ratio
    expected = y - r * eps(y - r / 2 * eps(y, r), r / 2)
    assert solver.calls([NOW, clean]) == 2
    assert torch.allclose(stepped(solver, X, NOW, clean), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["heun", "dpm-2", "dpmpp-3s", "adaptive"])
def test_items_at_levels_of_their_own_are_those_alone(name: str):
    """Also where for some a step is one of an end, and for others it is not."""
    solver = SOLVERS[name]()
    now = Level.from_lam(tensor(-1.0, -math.inf, 0.5, -math.inf)).scaled(2.0)
    nxt = Level.from_lam(tensor(0.1, -0.5, math.inf, math.inf))
    x = torch.cat([X, 0.5 * X])
    together = stepped(solver, x, now, nxt)
    for i in range(4):
        one = [Level(level.alpha[i], level.sigma[i]) for level in (now, nxt)]
        assert torch.allclose(together[i : i + 1], stepped(solver, x[i : i + 1], *one), rtol=0, atol=1e-13)


def test_what_is_passed_to_the_network():
    seen: list[tuple[Level, Level | None]] = []

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        seen.append((level, nxt))
        return Prediction(x / 2)

    levels = walk(Level.from_lam(tensor(-1.0, 0.5)))
    stepped(SOLVERS["heun"](), X, *levels, denoise)
    assert seen == [(levels[0], levels[1]), (levels[1], levels[1])]
    seen.clear()
    stepped(SOLVERS["dpmpp-3s"](), X, *levels, denoise)
    assert [float(level.lam) for level, _ in seen] == pytest.approx([-1, -0.5, 0])
    assert all(nxt is levels[1] for _, nxt in seen)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_adaptive_steps_keep_to_the_tolerance_from_end_to_end(tolerance: float):
    solver = RungeKutta(BOGACKI_SHAMPINE, VelocityInAngle(), tolerance)
    for now, nxt in ((Level.of(0.0, 1.0), Level.of(3.0, 0.0)), (Level.of(2.0, 0.1), Level.of(0.0, 5.0))):
        x = GAUSSIAN.transport(X, Level.of(0.0, 1.0), now)
        off = (stepped(solver, x, now, nxt) - GAUSSIAN.transport(x, now, nxt)).abs().max() / float(nxt.norm)
        assert tolerance / 300 < float(off) < 5 * tolerance
    assert solver.calls([NOW, NXT]) is None and solver.order == solver.started_order == 3


def test_smaller_tolerances_cost_more_calls_and_an_easy_item_waits_for_a_hard_one():
    counts: list[int] = []
    for tolerance in (1e-2, 1e-4, 1e-6):
        calls = [0]

        def denoise(x: Tensor, level: Level, nxt: Level | None = None, calls: list[int] = calls) -> Prediction:
            assert bool((level.sigma > 0).all()), "evaluated at the clean level"
            calls[0] += 1
            return gaussian(x, level)

        solver = RungeKutta(BOGACKI_SHAMPINE, VelocityInAngle(), tolerance)
        both = stepped(solver, X * tensor(1.0, 20.0).reshape(2, 1), Level.of(0.0, 1.0), Level.of(1.0, 0.0), denoise)
        assert torch.allclose(both[:1], stepped(solver, X[:1], Level.of(0.0, 1.0), Level.of(1.0, 0.0)), atol=1e-13)
        counts.append(calls[0])
    assert counts == sorted(set(counts)) and counts[-1] > 5 * counts[0]


def test_a_prediction_that_is_no_number_is_not_followed_for_ever():
    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return Prediction(torch.full_like(x, math.nan))

    with pytest.raises(ValueError, match=r"no step is small enough for the tolerance 0.001"):
        stepped(SOLVERS["adaptive"](), X, NOW, NXT, denoise)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="is deterministic"):
        RungeKutta(HEUN, DataInLam(0.5))
    for tolerance in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="give a positive number"):
            RungeKutta(BOGACKI_SHAMPINE, VelocityInAngle(), tolerance)
    for tableau, coordinate in ((EULER, VelocityInAngle()), (BOGACKI_SHAMPINE, NoiseInLam())):
        with pytest.raises(ValueError, match="adaptive steps take"):
            RungeKutta(tableau, coordinate, 1e-3)
    with pytest.raises(ValueError, match="first level with sigma > 0"):
        stepped(SOLVERS["heun"](), X, Level.of(1.0, 0.0), Level.of(1.0, 1.0))
