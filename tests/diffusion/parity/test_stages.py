"""Parity of the solvers with several evaluations in a step, and of those that add noise before one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nirvana.diffusion.solver import NoiseInLam, NoiseInRatio, RungeKutta
from nirvana.diffusion.solver.runge_kutta import HEUN, MIDPOINT

from . import test_azula
from .reference import close, exploding, ours, theirs

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Make = Callable[..., Any]
RATIOS = (9.0, 6.0, 5.5, 3.0, 1.9, 1.0, 0.4, 0.3)


@pytest.mark.parametrize("end", [(), (0.0,)], ids=["noise", "clean"])
def test_heun(diffusers: Make, end: tuple[float, ...]):
    levels = exploding(*RATIOS, *end)
    scheduler = diffusers("heun_discrete", "HeunDiscreteScheduler")
    assert close(ours(RungeKutta(HEUN, NoiseInRatio()), levels), theirs(scheduler, levels))


def test_heun_of_azula():
    for levels in test_azula.WALKS.values():
        assert close(ours(RungeKutta(HEUN, NoiseInRatio()), levels), test_azula.theirs("HeunSampler", levels))


def test_dpm_2(diffusers: Make):
    scheduler = diffusers("k_dpm_2_discrete", "KDPM2DiscreteScheduler")
    levels = exploding(*RATIOS)
    scheduler.set_timesteps(len(levels) - 1)
    ratios = torch.stack([level.sigma for level in levels])
    between = (ratios[1:] * ratios[:-1]).sqrt()
    print(scheduler.sigmas[:6], scheduler.sigmas_interpol[:6], len(scheduler.sigmas), len(scheduler.timesteps))
    assert close(ours(RungeKutta(MIDPOINT, NoiseInLam()), levels), theirs(scheduler, levels))
