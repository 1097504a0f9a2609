"""Churn, re-noising, and which noisy solvers refine along one Brownian path."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from diffusion.solver.parts import F64, GAUSSIAN, Given, OfLevel, Silent, gaussian, tensor
from nirvana.diffusion.grid import karras
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import Key, SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.schedule import RectifiedFlow
from nirvana.diffusion.solver import Churn, DataInLam, Multistep, NoiseInRatio, Renoise, RungeKutta, Solver
from nirvana.diffusion.solver.runge_kutta import HEUN

X = tensor(0.4, -1.1, 0.7, 2.0, 0.1, -0.3, 0.9, 0.2).reshape(2, 4)
EDM = RungeKutta(HEUN, NoiseInRatio())

REFINE: dict[str, Callable[[], Solver[Any]]] = {
    **{name: SOLVERS[name] for name in ("ddpm", "euler-ancestral", "dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver")},
    "ddim, eta = 1": lambda: SOLVERS["ddim"](eta=1.0),
    "4 points and corrector": lambda: Multistep(DataInLam(1.0), 4, corrects=True),
}
"""By construction: with constant x0 each of their steps is x alpha/sigma^2 plus an increment of the path in the SNR."""

REFINE_NOT: dict[str, Callable[[], Solver[Any]]] = {
    "ddim, eta = 0.5": lambda: SOLVERS["ddim"](eta=0.5),
    "ddpm-large": SOLVERS["ddpm-large"],
    "heun-churn": lambda: Churn(EDM, s_tmin=0.0, s_tmax=100.0),
    "renoise": Renoise,
}
"""Their noise has another clock, another variance, or is drawn anew."""


def refined(solver: Solver[Any], last: float) -> list[Tensor]:
    """The ends of 5 and of 10 steps along one path, whose first level is pure noise."""
    fine = walk(RectifiedFlow()(torch.linspace(1.0, last, 11, dtype=F64)))
    noise, x0 = SeededNoise([1, 2], (4,), dtype=F64, keep_path=True), tensor(0.3, -1.0, 2.0, 0.0)
    ends: list[Tensor] = []
    for levels in (fine[::2], fine):
        *_, step = trajectory(
            lambda x, level, cond, nxt=None: Prediction(x0.expand_as(x)), noise.initial(), levels, solver, cond={},
            noise=noise,
        )  # fmt: skip
        ends.append(step.x)
    return ends


@pytest.mark.parametrize("name", REFINE)
def test_for_a_constant_x0_twice_the_steps_end_at_the_same_point(name: str):
    coarse, fine = refined(REFINE[name](), 0.3)
    assert torch.allclose(coarse, fine, rtol=0, atol=1e-12)
    assert float((fine - 0.7 * tensor(0.3, -1.0, 2.0, 0.0)).abs().min()) > 1e-3
    coarse, fine = refined(REFINE[name](), 0.0)
    assert torch.equal(coarse, fine)


@pytest.mark.parametrize("name", REFINE_NOT)
def test_others_do_not(name: str):
    coarse, fine = refined(REFINE_NOT[name](), 0.3)
    assert not torch.allclose(coarse, fine, rtol=0, atol=1e-3)


class Recorded(Silent):
    """Keeps the keys of what was drawn fresh."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def fresh(self, key: Key) -> Tensor:
        self.keys.append(key)
        return torch.full_like(X, 0.7)


def test_churn_is_algorithm_2_of_edm():
    """x_hat = x + sqrt(sigma_hat^2 - sigma^2) S_noise z, sigma_hat = (1 + S_churn/N) sigma, then Heun from there."""
    n, s_churn, s_noise = 18, 3.0, 1.007
    levels = karras()(RectifiedFlow(), n)
    solver, noise, x, y = Churn(EDM, s_churn, 0.05, 50.0, s_noise), Recorded(), X, X / levels[0].alpha
    state, churned = solver.init(X), 0

    def eps(y: Tensor, r: Tensor) -> Tensor:
        return (y - gaussian(y, Level(torch.ones_like(r), r)).x0) / r

    for now, nxt in list(pairwise(levels))[:-1]:
        step, state = solver.step(gaussian, x, now, nxt, state, noise)
        assert step.now is now and step.nxt is nxt
        x, r, r_nxt = step.x, now.ratio, nxt.ratio
        inside = 0.05 <= float(r) <= 50
        r_hat = (1 + s_churn / n * inside) * r
        y = y + torch.sqrt(r_hat**2 - r**2) * s_noise * 0.7
        slope = eps(y, r_hat)
        y = y + (r_nxt - r_hat) / 2 * (slope + eps(y + (r_nxt - r_hat) * slope, r_nxt))
        churned += inside
        assert torch.allclose(x / nxt.alpha, y, rtol=1e-12, atol=1e-12)
    assert 5 < churned < 17 and len(set(noise.keys)) == len(noise.keys) == churned


def test_churn_is_capped_and_comes_before_the_network():
    seen: list[tuple[Tensor, Level]] = []

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        seen.append((x, level))
        return gaussian(x, level)

    now, nxt = Level.of(1.5, 3.0), Level.of(1.0, 0.7)
    solver = Churn(EDM, s_churn=1e3)
    solver.step(denoise, X, now, nxt, solver.init(X), Given(torch.full_like(X, 0.5)))
    x, level = seen[0]
    assert float(level.sigma) == pytest.approx(3 * math.sqrt(2), rel=1e-14) and float(level.alpha) == 1.5
    assert torch.allclose(x, X + 3 * 0.5, rtol=0, atol=1e-14)


def test_without_churn_or_outside_its_range_the_solver_inside_is_alone():
    levels = [
        Level.of(0.0, 1.0),
        *walk(Level.from_ratio(tensor(60.0, 51.0))),
        *walk(Level.from_ratio(tensor(0.04, 0.0))),
    ]
    inner = Multistep(DataInLam(), 2)
    for solver in (Churn(inner), Churn(inner, s_churn=0.0)):
        state, alone, x = solver.init(X), inner.init(X), X
        for now, nxt in pairwise(levels):
            if solver.s_churn and 0.05 < float(now.ratio) < 52:
                continue
            a, state = solver.step(gaussian, x, now, nxt, state, Silent())
            b, alone = inner.step(gaussian, x, now, nxt, alone, Silent())
            assert torch.equal(a.x, b.x)
            x = a.x
    assert Churn(inner, s_churn=0.0).deterministic and not Churn(inner).deterministic
    assert Churn(inner).order == 1 and Churn(EDM).order == Churn(EDM).started_order == 2
    assert Churn(EDM).calls(levels[1:]) == EDM.calls(levels[1:])


def test_noise_that_was_added_ends_a_history():
    inner = Multistep(DataInLam(), 2)
    solver, levels = Churn(inner), [Level.from_ratio(r) for r in (3.0, 2.0, 1.2, 0.7)]
    state, x = solver.init(X), X
    for now, nxt in pairwise(levels):
        step, state = solver.step(gaussian, x, now, nxt, state, Given(torch.full_like(X, 0.5)))
        gamma = 40 * (now.ratio ** (1 / 7) - nxt.ratio ** (1 / 7)) / (80 ** (1 / 7) - 0.002 ** (1 / 7))
        raised = Level(now.alpha, now.sigma * (1 + gamma).clamp(max=math.sqrt(2)))
        moved = x + torch.sqrt(raised.sigma**2 - now.sigma**2) * 0.5
        first, _ = inner.step(gaussian, moved, raised, nxt, inner.init(X), Silent())
        assert torch.allclose(step.x, first.x, rtol=0, atol=1e-13)
        x = step.x
    assert solver.revise(state)[0] == 3


def test_levels_per_item_are_churned_each_by_its_own():
    solver = Churn(EDM)
    now, nxt = Level.from_ratio(tensor(60.0, 2.0)), Level.from_ratio(tensor(40.0, 1.5))
    together = solver.step(gaussian, X, now, nxt, solver.init(X), Given(torch.full_like(X, 0.5)))[0].x
    for i in range(2):
        one = [Level(level.alpha[i], level.sigma[i]) for level in (now, nxt)]
        z = Given(torch.full_like(X[:1], 0.5))
        alone = solver.step(gaussian, X[i : i + 1], *one, solver.init(X), z)[0].x
        assert torch.allclose(together[i : i + 1], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"s_churn": -1.0}, "at least 0 and finite"),
        ({"s_churn": math.inf}, "at least 0 and finite"),
        ({"s_noise": -0.1}, "at least 0 and finite"),
        ({"s_tmin": 2.0, "s_tmax": 1.0}, "is no range"),
        ({"s_tmin": -1.0}, "is no range"),
    ],
)
def test_what_is_no_churn_is_refused(values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        SOLVERS["heun-churn"](**values)


def test_renoise_gives_the_predicted_x0_all_its_noise_anew():
    step, _ = Renoise().step(gaussian, X, Level.of(0.5, 1.0), Level.of(2.0, 0.7), None, Given(torch.full_like(X, 0.3)))
    assert torch.equal(step.x, 2.0 * gaussian(X, Level.of(0.5, 1.0)).x0 + 0.7 * torch.full_like(X, 0.3))
    step, _ = Renoise().step(gaussian, X, Level.of(0.5, 1.0), Level.of(2.0, 0.0), None, Silent())
    assert torch.equal(step.x, 2.0 * gaussian(X, Level.of(0.5, 1.0)).x0)
    assert Renoise().order == Renoise().started_order == 0 and not Renoise().deterministic


def test_renoise_keeps_the_marginals_of_a_consistency_function():
    """x0 = the end of the probability flow: each step has mean and variance of its level, in any number of steps."""
    clean, levels = Level.of(1.0, 0.0), [Level.of(0.0, 1.0), Level.of(0.6, 0.8), Level.of(1.0, 0.3), Level.of(1.0, 0.0)]
    x, drawn = torch.zeros(5, 4, dtype=F64), 1
    x[1] = 1.0

    def consistency(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return Prediction(GAUSSIAN.transport(x, level, clean))

    for now, nxt in pairwise(levels):
        drawn += 1
        z = torch.zeros(5, 4, dtype=F64)
        z[drawn] = 1.0
        x = Renoise().step(consistency, x, now, nxt, None, Given(z))[0].x
        mean, variance = x[0], (x[1:] - x[0]).square().sum(0)
        data = torch.diagonal(GAUSSIAN._basis @ torch.diag(GAUSSIAN._variance) @ GAUSSIAN._basis.T)
        assert torch.allclose(mean, nxt.alpha * GAUSSIAN.mean, rtol=0, atol=1e-12)
        assert torch.allclose(variance, nxt.alpha**2 * data + nxt.sigma**2, rtol=0, atol=1e-12)


def test_of_a_constant_x0_nothing_but_noise_is_left():
    denoise = OfLevel(lambda level: tensor(0.3))
    for name in ("heun-churn", "renoise", "sa-solver"):
        solver, noise = SOLVERS[name](), SeededNoise([5], (1, 3), dtype=F64)
        levels = karras(from_pure_noise=True)(RectifiedFlow(), 6)
        *_, last = trajectory(
            lambda x, level, cond, nxt=None: denoise(x, level), noise.initial(), levels, solver, cond={}, noise=noise
        )
        assert torch.allclose(last.x, torch.full((1, 1, 3), 0.3, dtype=F64), rtol=0, atol=1e-14)
