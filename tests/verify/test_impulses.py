"""The probe: the affine map it finds is the sampler's, correlations of its noise included."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion import DDIM, GaussianDenoiser, Level, Noise, SeededNoise, Step, trajectory
from nirvana.diffusion.solver import Denoise
from nirvana.verify.impulses import affine
from nirvana.verify.problems import gaussian
from nirvana.verify.walks import Broken
from verify.faulty_solvers import Euler, Posterior

F64 = torch.float64
LEVELS = [Level.from_lam(lam) for lam in (-1.0, 0.0, 0.7, 1.5)]


def denoiser() -> GaussianDenoiser:
    return gaussian(2).denoiser


def test_a_deterministic_map_is_the_trajectory():
    found = affine(DDIM(), denoiser(), 2, LEVELS)
    assert found.of_noise.shape == (0, 2, 2)
    x = torch.tensor([[0.3, -2.0]], dtype=F64)
    *_, last = trajectory(denoiser(), x, LEVELS, DDIM(), cond={}, noise=SeededNoise([1], (2,)))
    assert torch.allclose(last.x[0], found.mean(x[0]), atol=1e-13)


def test_moments_are_those_of_many_samples():
    found = affine(Posterior(), denoiser(), 2, LEVELS)
    assert found.of_noise.shape == (3, 2, 2)
    n, generator = 100_000, torch.Generator().manual_seed(1)

    class Many(SeededNoise):
        def path(self, now: Level, nxt: Level) -> Tensor:
            return torch.randn(n, 2, generator=generator, dtype=F64)

    x = torch.randn(n, 2, generator=generator, dtype=F64) + 0.5
    *_, last = trajectory(denoiser(), x, LEVELS, Posterior(), cond={}, noise=Many([1], (2,)))
    assert torch.allclose(last.x.mean(0), found.mean(torch.full((2,), 0.5, dtype=F64)), atol=0.01)
    assert torch.allclose(torch.cov(last.x.T), found.cov(torch.eye(2, dtype=F64)), atol=0.01)


class Drawing(Euler):
    """Its last step returns what `drawn` makes of the noise, and nothing else."""

    def __init__(self) -> None:
        super().__init__(deterministic=False)

    def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
        raise NotImplementedError

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: Any, noise: Noise) -> tuple[Step, Any]:
        return Step(now, nxt, 0 * x + self.drawn(noise, now, nxt, x), denoise(x, now, nxt)), state


def cov(solver: Drawing, levels: list[Level] = LEVELS[:2]) -> Tensor:
    return affine(solver, denoiser(), 2, levels).cov(torch.eye(2, dtype=F64))


def test_a_path_and_its_parts_are_one_path():
    class Parts(Drawing):
        """W(c) - W(a) less (W(b) - W(a)) and (W(c) - W(b)) is nothing."""

        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            mid = Level.from_lam(-0.4)
            a, b, c = (float(level.snr) for level in (now, mid, nxt))
            whole = math.sqrt(c - a) * noise.path(now, nxt)
            return whole - math.sqrt(b - a) * noise.path(now, mid) + math.sqrt(c - b) * noise.path(nxt, mid)

    assert float(cov(Parts()).abs().max()) < 1e-14


def test_fresh_noise_is_the_same_for_a_key_only():
    class Same(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.fresh("a") + noise.fresh("a")

    class Other(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.fresh("a") + noise.fresh("b") + noise.path(now, nxt)

    assert torch.allclose(cov(Same()), 4 * torch.eye(2, dtype=F64))
    assert torch.allclose(cov(Other()), 3 * torch.eye(2, dtype=F64))


def test_paths_to_infinity_are_independent():
    class Ends(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.path(now, Level.of(1.0, 0.0)) + noise.path(now, Level.of(1.0, 0.0))

    assert torch.allclose(cov(Ends()), 2 * torch.eye(2, dtype=F64))


def test_draws_that_depend_on_x_are_refused():
    class Keyed(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.fresh(len(x))

    class OnItsWay(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.path(now, Level.from_lam(-0.1 * len(x)))

    class More(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return sum(noise.path(now, Level.of(1.0, 0.0)) for _ in range(len(x)))  # type: ignore[return-value]

    class Start(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return noise.initial()

    for solver, message in ((Keyed, "the key 6"), (OnItsWay, "SNR"), (More, "more than"), (Start, "the start")):
        with pytest.raises(Broken, match=message):
            cov(solver())


def test_a_map_that_is_not_affine_is_refused():
    class Clips(Drawing):
        def drawn(self, noise: Noise, now: Level, nxt: Level, x: Tensor) -> Tensor:
            return x.clamp(-0.5, 0.5)

    with pytest.raises(Broken, match="not affine"):
        cov(Clips())
