"""Parity with azula: same denoiser, levels and noise give the same end, to 1e-6 in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import azula.denoise
import azula.sample
import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level
from nirvana.diffusion.named import ddim
from nirvana.diffusion.solver import Ancestral, DataInLam, Multistep, NoiseInLam, NoiseInRatio, Solver

from .reference import F64, close, draws, exploding, first, mixture, ours, unit

VP = (12.0, 7.0, 3.1, 1.9, 0.8, 0.33, 0.2, 0.05)
WALKS = {
    "unit": unit(*VP),
    "exploding": exploding(9.0, 6.0, 5.5, 3.0, 1.9, 1.0, 0.4, 0.3),
    "flow": [Level.of(1 - t, t) for t in (0.97, 0.8, 0.7, 0.5, 0.2, 0.04)],
}


def theirs(sampler: str, levels: Sequence[Level], numbers: Sequence[Tensor] = (), **options: Any) -> Tensor:
    """The end of the walk of one of its samplers; its time is the index of a level."""
    alpha, sigma = (torch.stack([getattr(level, name) for level in levels]) for name in ("alpha", "sigma"))

    class Told:
        """Our denoiser, as it calls one."""

        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return alpha[t.long()], sigma[t.long()]

        def __call__(self, x: Tensor, t: Tensor) -> azula.denoise.DiracPosterior:
            return azula.denoise.DiracPosterior(mixture()(x, levels[int(t)], {}).x0)

    n = len(levels) - 1
    made = getattr(azula.sample, sampler)(Told(), start=0, stop=n, steps=n, silent=True, dtype=F64, **options)
    left: Iterator[Tensor] = iter(numbers)
    own = SimpleNamespace(**vars(torch))
    own.randn_like = lambda _: next(left)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(azula.sample, "torch", own)
        return made(first(levels[0]))


MULTISTEP: dict[str, tuple[str, int, Solver[Any]]] = {
    "dpmpp-1": ("xEABSampler", 1, ddim()),
    "dpmpp-2m-exact": ("xEABSampler", 2, Multistep(DataInLam(), points=2)),
    "dpmpp-3m": ("xEABSampler", 3, Multistep(DataInLam(), points=3)),
    "deis-2": ("zEABSampler", 2, Multistep(NoiseInLam(), points=2)),
    "deis-3": ("zEABSampler", 3, Multistep(NoiseInLam(), points=3)),
    "deis-4": ("zEABSampler", 4, Multistep(NoiseInLam(), points=4)),
    "adams-2": ("zABSampler", 2, Multistep(NoiseInRatio(), points=2)),
    "adams-3": ("zABSampler", 3, Multistep(NoiseInRatio(), points=3)),
    "ipndm": ("zABSampler", 4, Multistep(NoiseInRatio(), points=4)),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("case", MULTISTEP)
def test_multistep(case: str, walk: str):
    sampler, order, solver = MULTISTEP[case]
    assert close(ours(solver, WALKS[walk]), theirs(sampler, WALKS[walk], order=order))


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(walk: str, eta: float):
    """Its eta multiplies the variance, that of the paper and ours the standard deviation."""
    levels = WALKS[walk]
    numbers = draws(len(levels) - 1)
    assert close(ours(ddim(eta), levels, numbers), theirs("DDIMSampler", levels, numbers, eta=eta**2))


@pytest.mark.parametrize("walk", WALKS)
def test_ddpm_and_euler(walk: str):
    levels = WALKS[walk]
    numbers = draws(len(levels) - 1)
    assert close(ours(Ancestral("small"), levels, numbers), theirs("DDPMSampler", levels, numbers))
    assert close(ours(ddim(), levels), theirs("EulerSampler", levels))


def test_the_parabola_is_not_what_two_points_give():
    """The cases above tell the orders apart: parity is no accident of a smooth denoiser."""
    ends = [ours(MULTISTEP[case][2], WALKS["unit"]) for case in MULTISTEP]
    gaps = [float((a - b).abs().max()) for i, a in enumerate(ends) for b in ends[:i]]
    assert min(gaps) > 1e-4 and math.isfinite(max(gaps))
