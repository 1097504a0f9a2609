"""Ancestral sampling against the chain's p_theta and against data whose marginals are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level
from nirvana.diffusion.markov import Chain, Variance, reverse
from nirvana.diffusion.noise import Key
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.schedule import RectifiedFlow, cosine_betas, linear_betas
from nirvana.diffusion.solver.ancestral import Ancestral
from nirvana.diffusion.solver.protocol import Solver

F64 = torch.float64


@dataclass(frozen=True)
class Given:
    """Noise that is what the test says; None where none may be drawn."""

    z: Tensor | None

    def initial(self) -> Tensor:
        raise AssertionError("a step starts nothing")

    def path(self, now: Level, nxt: Level) -> Tensor:
        assert self.z is not None, "noise drawn in a step that needs none"
        return self.z

    def fresh(self, key: Key) -> Tensor:
        raise AssertionError("an ancestral step walks the path")


@dataclass(frozen=True)
class Exact:
    """E[x0 | x] of data N(mean, std^2); with the variance fraction of the true reverse step, if asked."""

    mean: float
    std: float
    learned: bool = False

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        assert nxt is not None
        total = (level.alpha * self.std) ** 2 + level.sigma**2
        x0 = self.mean + level.alpha * self.std**2 / total * (x - level.alpha * self.mean)
        if not self.learned:
            return Prediction(x0)
        step = reverse(level, nxt)
        true = step.small + step.x0**2 * self.std**2 * level.sigma**2 / total
        return Prediction(x0, (torch.log(true / step.small) / torch.log(step.large / step.small)).expand_as(x))


def moments(
    levels: Sequence[Level], solver: Ancestral, data: Exact, mean: float, var: float
) -> list[tuple[float, float]]:
    """Mean and variance of x after each step, from those at the start: a step is affine in (x, z), so three probes."""
    x, z = torch.tensor([0.0, 1.0, 0.0], dtype=F64), torch.tensor([0.0, 0.0, 1.0], dtype=F64)
    passed: list[tuple[float, float]] = []
    for now, nxt in pairwise(levels):
        step, _ = solver.step(data, x, now, nxt, None, Given(None if nxt.is_clean else z))
        constant, of_x, of_z = step.x[0].item(), (step.x[1] - step.x[0]).item(), (step.x[2] - step.x[0]).item()
        mean, var = constant + of_x * mean, of_x**2 * var + of_z**2
        passed.append((mean, var))
    return passed


def expected(levels: Sequence[Level], data: Exact) -> list[tuple[float, float]]:
    return [((n.alpha * data.mean).item(), ((n.alpha * data.std) ** 2 + n.sigma**2).item()) for n in levels]


def chain_levels(chain: Chain, every: int = 1) -> list[Level]:
    return [chain.level(torch.tensor(t)) for t in [*range(chain.T, 0, -every), 0]]


GRIDS: dict[str, Callable[[], list[Level]]] = {
    "linear": lambda: chain_levels(Chain(linear_betas(100, 1e-3, 0.2))),
    "cosine": lambda: chain_levels(Chain(cosine_betas(100))),
    "every 17th": lambda: chain_levels(Chain(linear_betas()), 17),
    "flow": lambda: [RectifiedFlow()(torch.tensor(t / 12, dtype=F64)) for t in range(12, -1, -1)],
    "one step": lambda: [Level.of(0.0, 1.0), Level.of(1.0, 0.0)],
}


def check_marginals(levels: list[Level], solver: Ancestral, data: Exact) -> None:
    start = expected(levels[:1], data)[0]
    got = moments(levels, solver, data, *start)
    assert got[:-1] == [pytest.approx(e, rel=1e-9, abs=1e-10) for e in expected(levels[1:-1], data)]
    # the last step gives E[x0 | x]: the data's mean, and the data's variance less what x at the last level cannot tell
    last, (mean, var) = levels[-2], got[-1]
    told = (last.alpha * data.std) ** 2 / ((last.alpha * data.std) ** 2 + last.sigma**2)
    assert (mean, var) == pytest.approx((data.mean, (data.std**2 * told).item()), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("grid", list(GRIDS))
def test_small_is_exact_for_data_that_is_one_point(grid: str) -> None:
    check_marginals(GRIDS[grid](), Ancestral("small"), Exact(mean=0.7, std=0.0))


@pytest.mark.parametrize("grid", ["linear", "cosine", "every 17th", "one step"])
def test_large_is_exact_for_data_that_is_a_standard_normal(grid: str) -> None:
    check_marginals(GRIDS[grid](), Ancestral("large"), Exact(mean=0.0, std=1.0))


@pytest.mark.parametrize("grid", list(GRIDS))
def test_learned_is_exact_for_any_gaussian_on_any_grid(grid: str) -> None:
    check_marginals(GRIDS[grid](), Ancestral("learned"), Exact(mean=-0.4, std=0.3, learned=True))


def test_over_a_whole_chain_from_plain_noise_all_variances_reach_the_data() -> None:
    levels = chain_levels(Chain(linear_betas()))
    data = Exact(mean=0.5, std=0.4)
    for variance, low, high in (("small", 0.98, 1.0), ("large", 1.0, 1.02)):
        mean, var = moments(levels, Ancestral(cast(Variance, variance)), data, 0.0, 1.0)[-1]
        assert mean == pytest.approx(0.5, abs=1e-3)
        assert low < math.sqrt(var) / 0.4 < high  # too little and too much: the bounds of the true variance


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("beta", [linear_betas(), cosine_betas()], ids=["linear", "cosine"])
def test_on_the_levels_of_a_chain_a_step_is_a_draw_of_its_p_theta(variance: Variance, beta: Tensor) -> None:
    chain = Chain(beta)
    t = torch.tensor([2, 3, 500, 999, 1000])
    generator = torch.Generator().manual_seed(3)
    x, x0, z = torch.randn(3, 5, 2, 3, dtype=F64, generator=generator)
    prediction = Prediction(x0, torch.rand(5, 2, 3, dtype=F64, generator=generator))
    p = chain.p_mean_variance(x, t, prediction, variance)
    step, _ = Ancestral(variance).step(
        lambda x, level, nxt=None: prediction, x, chain.level(t), chain.level(t - 1), None, Given(z)
    )
    torch.testing.assert_close(step.x, p.mean + (0.5 * p.log_var).exp() * z, rtol=1e-9, atol=1e-11)
    assert step.prediction is prediction


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_the_step_to_data_draws_nothing_and_gives_x0(variance: Variance) -> None:
    x0 = torch.tensor([[0.25], [-0.5]])
    step, _ = Ancestral(variance).step(
        lambda x, level, nxt=None: Prediction(x0, torch.ones_like(x0)),
        torch.full((2, 1), 9.0),
        Level.of(0.6, 0.8),
        Level.of(2.0, 0.0),
        None,
        Given(None),
    )
    assert torch.equal(step.x, 2 * x0)


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_a_batch_with_one_item_at_the_data_draws_for_the_other_only(variance: Variance) -> None:
    now, nxt = Level.from_ratio(torch.tensor([1.0, 1.0])), Level.from_ratio(torch.tensor([0.0, 0.5]))
    x0, x = torch.tensor([[0.25], [0.25]]), torch.tensor([[1.0], [1.0]])
    step, _ = Ancestral(variance).step(
        lambda x, level, nxt=None: Prediction(x0, torch.ones_like(x0)),
        x,
        now,
        nxt,
        None,
        Given(torch.full((2, 1), 1e6)),
    )
    assert step.x[0] == 0.25
    assert step.x[1] > 1e5


def test_the_denoiser_gets_now_and_nxt_and_the_state_keeps_its_dtype() -> None:
    seen: list[tuple[Level, Level | None]] = []

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        seen.append((level, nxt))
        return Prediction(x)

    now, nxt = Level.from_lam(-1.0), Level.from_lam(1.0)
    solver: Solver[None] = Ancestral()
    x = torch.ones(1, 1)
    step, state = solver.step(denoise, x, now, nxt, solver.init(x), Given(torch.ones(1, 1, dtype=F64)))
    assert seen == [(now, nxt)]
    assert step.x.dtype == torch.float32
    assert (step.now, step.nxt, state, solver.revise(state)) == (now, nxt, None, None)
    assert torch.equal(x, torch.ones(1, 1))
    assert (solver.calls([now, nxt, nxt]), solver.deterministic, solver.order) == (2, False, 1)


@pytest.mark.parametrize("nxt", [Level.of(0.5, 0.5), Level.of(1.0, 0.0)])
def test_learned_needs_a_prediction_with_a_variance(nxt: Level) -> None:
    with pytest.raises(ValueError, match=r"'learned' needs a network with a variance output.*use variance 'small'"):
        Ancestral("learned").step(Exact(0.0, 1.0), torch.ones(1), Level.of(0.1, 0.9), nxt, None, Given(torch.ones(1)))


def test_rising_noise_is_refused_before_the_network_is_called() -> None:
    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        raise AssertionError("called")

    with pytest.raises(ValueError, match="noise must fall"):
        Ancestral().step(denoise, torch.ones(1), Level.of(0.9, 0.1), Level.of(0.1, 0.9), None, Given(torch.ones(1)))


def test_an_unknown_variance_is_refused() -> None:
    solver = Ancestral()
    object.__setattr__(solver, "variance", "medium")  # past the annotations, which the tests check and users need not
    with pytest.raises(ValueError, match=r"unknown variance 'medium' \(known: small, large, learned\)"):
        solver.__post_init__()
