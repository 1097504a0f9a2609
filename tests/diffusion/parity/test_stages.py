"""Parity of the solvers that evaluate several times in a step, and of churn."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level
from nirvana.diffusion.named import ddim
from nirvana.diffusion.prediction import Prediction, eps_from_x0
from nirvana.diffusion.solver import Churn, DataInLam, NoiseInLam, NoiseInRatio, RungeKutta
from nirvana.diffusion.solver.runge_kutta import HEUN, MIDPOINT

from . import test_azula
from .reference import F64, SHAPE, close, draws, exploding, first, given_draws, mixture, ours, theirs, unit

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Make = Callable[..., Any]
RATIOS = (9.0, 6.0, 5.5, 3.0, 1.9, 1.0, 0.4, 0.3, 0.0)


def test_heun(diffusers: Make):
    scheduler = diffusers("heun_discrete", "HeunDiscreteScheduler")
    levels = exploding(*RATIOS)
    assert close(ours(RungeKutta(HEUN, NoiseInRatio()), levels), theirs(scheduler, levels))


@pytest.mark.parametrize("walk", test_azula.WALKS)
def test_heun_of_azula(walk: str):
    levels = test_azula.WALKS[walk]
    assert close(ours(RungeKutta(HEUN, NoiseInRatio()), levels), test_azula.theirs("HeunSampler", levels))


def test_dpm_2(diffusers: Make):
    """Its `sigmas` repeat every level but the first, and `sigmas_interpol` holds the geometric means between them."""
    scheduler = diffusers("k_dpm_2_discrete", "KDPM2DiscreteScheduler")
    levels, r = exploding(*RATIOS), torch.tensor(RATIOS, dtype=F64)
    means = torch.cat([r[:1], (r[1:] * r[:-1]).sqrt()])
    scheduler.set_timesteps(len(levels) - 1)
    for name, values in (("sigmas", r), ("sigmas_interpol", means)):
        own = torch.cat([values[:1], values[1:].repeat_interleave(2), values[-1:]])
        assert own.shape == getattr(scheduler, name).shape
        setattr(scheduler, name, own)
    scheduler.set_begin_index(0)
    x, denoiser = first(levels[0]), mixture()
    for call, t in enumerate(scheduler.timesteps):
        level = Level.of(1.0, float(means[call // 2 + 1] if call % 2 else r[call // 2]))
        scheduler.scale_model_input(x, t)
        x = scheduler.step(eps_from_x0(x, denoiser(x, level, {}).x0, level), t, x).prev_sample
    assert close(ours(RungeKutta(MIDPOINT, NoiseInLam()), levels), x)


def test_dpm_solver_2s(diffusers: Make):
    """Its middle stages are levels of the grid: ours are every other one of them, their midpoints in lam between."""
    scheduler = diffusers(
        "dpmsolver_singlestep",
        "DPMSolverSinglestepScheduler",
        solver_order=2,
        final_sigmas_type="sigma_min",
        lower_order_final=False,
    )
    whole = [12.0, 5.0, 3.1, 1.0, 0.4, 0.05]
    levels = [whole[0], *(r for a, b in pairwise(whole) for r in (math.sqrt(a * b), b))]
    assert close(ours(RungeKutta(MIDPOINT, DataInLam()), unit(*whole)), theirs(scheduler, unit(*levels)))


def test_deviation_3_churn_is_added_before_the_network_is_called(diffusers: Make, monkeypatch: pytest.MonkeyPatch):
    """Its Euler steps raise the noise of x after the network saw it, and step with the old prediction. Where all data
    is one point, every step has to keep the law N(point, sigma^2), and the last to end at the point: ours does."""
    point = torch.full(SHAPE, 0.7, dtype=F64)

    class OnePoint:
        def __call__(self, x: Tensor, level: Level, cond: object, nxt: Level | None = None) -> Prediction:
            return Prediction(point.expand_as(x))

    levels = exploding(*RATIOS)
    n = len(levels) - 1
    churn = Churn(ddim(), s_churn=20.0, s_tmin=0.0, s_tmax=math.inf)
    assert torch.allclose(ours(churn, levels, draws(n), OnePoint()), point, rtol=0, atol=1e-12)
    scheduler = diffusers("euler_discrete", "EulerDiscreteScheduler")
    given_draws(scheduler, monkeypatch, draws(n))
    own_step = scheduler.step
    scheduler.step = lambda said, t, x: own_step(said, t, x, s_churn=20.0)
    off = theirs(scheduler, levels, denoiser=OnePoint()) - point
    assert float(off.std()) > 0.1
    scheduler.step = own_step
    assert close(theirs(scheduler, levels, denoiser=OnePoint()), point)
