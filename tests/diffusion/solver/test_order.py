"""Every named solver converges at the order it declares, on steps of unequal length, primed and started by itself.

The stochastic ones on a Gaussian, where a walk is affine in its start and its noises: one batch of unit vectors gives
the exact mean and covariance of its end.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.solver.parts import F64, GAUSSIAN, GRIDS, MEAN, VARIANCE, gaussian, slopes, tensor, walked
from nirvana.diffusion.exact import MixtureDenoiser
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import Key
from nirvana.diffusion.prediction import Prediction

X = tensor(1.0, -0.7, 0.4, -2.0, 0.3, 0.8, -1.1, 0.6).reshape(2, 4)
DETERMINISTIC = [name for name in SOLVERS if SOLVERS[name]().deterministic]
NOISY = [name for name in SOLVERS if not SOLVERS[name]().deterministic and name not in ("renoise", "ddpm-learned")]


def error(name: str, levels: list[Level], primed: int) -> float:
    def exact(i: int) -> Tensor:
        return GAUSSIAN.transport(X * levels[0].norm, levels[0], levels[i])

    end = walked(SOLVERS[name](), gaussian, levels, exact, primed)[-1]
    return float((end - exact(-1)).square().mean().sqrt())


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_order_is_the_declared_one(name: str, grid: str):
    solver = SOLVERS[name]()
    steps = (20, 40) if name == "adaptive" else (80, 160)
    # primed over the same part of the way, so that the rest is the same at both
    primed, started = ([error(name, GRIDS[grid](n), p * n // 20) for n in steps] for p in (1, 0))
    assert slopes(primed)[0] > solver.order - 0.35
    assert slopes(started)[0] > solver.started_order - 0.15
    assert solver.started_order >= min(2, solver.order)
    assert primed[-1] < {1: 0.05, 2: 2e-3, 3: 1e-4, 4: 2e-5}[solver.order]


MIXTURE = MixtureDenoiser(
    tensor(0.5, 0.3, 0.2), torch.tensor([[1.0, 0.4], [-0.8, 0.9], [0.1, -1.2]], dtype=F64), tensor(0.3, 0.2, 0.4)
)


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if SOLVERS[name]().order > 1])
def test_on_a_mixture_all_go_to_the_same_end(name: str):
    """To that of 640 steps of the one with the highest order."""

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return MIXTURE(x, level, {}, nxt)

    def end(name: str, n: int) -> Tensor:
        levels = walk(Level.from_lam(torch.linspace(-2, 1.5, n + 1, dtype=F64)))
        return walked(SOLVERS[name](), denoise, levels, lambda i: tensor(0.9, 0.5, -0.3, 1.1).reshape(2, 2))[-1]

    reference = end("unipc-3", 640)
    errors = [float((end(name, n) - reference).abs().max()) for n in (40, 80)]
    assert slopes(errors)[0] > SOLVERS[name]().started_order - 0.3 and errors[-1] < 2e-3


class Units:
    """The noise of draw i is 1 for item i + 2 of the batch and 0 for all others."""

    def __init__(self, items: int) -> None:
        self.items, self.drawn = items, 0

    def initial(self) -> Tensor:
        raise AssertionError("the start is given")

    def path(self, now: Level, nxt: Level) -> Tensor:
        z = torch.zeros(self.items, len(MEAN), dtype=F64)
        z[self.drawn + 2] = 1
        self.drawn += 1
        return z

    def fresh(self, key: Key) -> Tensor:
        return self.path(Level.of(0.0, 1.0), Level.of(0.0, 1.0))


def moments(name: str, levels: list[Level]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variances of the end, and its slopes in the start, which has the distribution of the first level."""
    solver, noise, first = SOLVERS[name](), Units(len(levels) + 1), levels[0]
    x = (first.alpha * MEAN).expand(len(levels) + 1, -1).clone()
    x[1] += torch.sqrt(first.alpha**2 * VARIANCE + first.sigma**2)
    state = solver.init(x)
    for now, nxt in pairwise(levels):
        step, state = solver.step(gaussian, x, now, nxt, state, noise)
        x = step.x
    return x[0], (x[1:] - x[0]).square().sum(0), x[1] - x[0]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NOISY)
def test_mean_and_covariance_converge_at_the_declared_order(name: str, grid: str):
    errors: list[float] = []
    for n in (256, 512):
        levels = GRIDS[grid](n)
        last = levels[-1]
        mean, variance, _ = moments(name, levels)
        assert torch.allclose(mean, last.alpha * MEAN, rtol=0, atol=1e-13)
        errors.append(float((variance - last.alpha**2 * VARIANCE - last.sigma**2).square().mean().sqrt()))
    assert slopes(errors)[0] > SOLVERS[name]().order - 0.15


@pytest.mark.parametrize("name", ["ddpm", "dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver"])
def test_at_eta_one_what_is_left_of_the_start_is_that_of_the_reverse_diffusion(name: str):
    """Cov(x_nxt, x_now) = alpha_now/alpha_nxt Var(x_nxt), from the forward chain."""
    levels = GRIDS["bent"](64)
    first, last = levels[0], levels[-1]
    before, after = (level.alpha**2 * VARIANCE + level.sigma**2 for level in (first, last))
    assert torch.allclose(moments(name, levels)[2], first.alpha / last.alpha * after / before.sqrt(), rtol=1e-12)


def test_the_noisy_ones_of_order_two_are_there():
    assert [name for name in NOISY if SOLVERS[name]().order == 2] == [
        "dpmpp-2m-sde", "dpmpp-3m-sde", "sa-solver", "heun-churn",
    ]  # fmt: skip
