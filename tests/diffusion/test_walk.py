"""Walks: coefficients worked out once are those of every level, and a walk changes no result."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nirvana.diffusion.denoiser import NOISE_CODES, Cond, Preconditioned, TableCode
from nirvana.diffusion.grid import karras, trailing, uniform, uniform_lam
from nirvana.diffusion.level import Level, at, between, strictly_monotone, walk
from nirvana.diffusion.markov import Chain
from nirvana.diffusion.named import DDIM, SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import EDM, PARAMETERIZATIONS, Eps
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.schedule import Cosine, RectifiedFlow, linear_betas
from nirvana.diffusion.solver import Solver

F64 = torch.float64
CHAIN = Chain(linear_betas(50)).schedule()


class Net(nn.Module):
    """Mixes what it is given, without randomness."""

    slots: frozenset[str] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[Tensor] = []

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        self.codes.append(noise)
        x = torch.tanh(0.7 * x) + noise.reshape(-1, 1) / 900
        return torch.cat([x, torch.sin(x)], dim=1)


def apart(levels: list[Level]) -> list[Level]:
    return [Level(level.alpha, level.sigma) for level in levels]


def end(denoiser: Preconditioned, levels: list[Level], solver: Solver[Any]) -> Tensor:
    noise = SeededNoise([4, 5], (3,), dtype=F64)
    *_, last = trajectory(denoiser, start(noise, levels[0]), levels, solver, cond={}, noise=noise)
    return last.x


class Counted:
    """(alpha + sigma, alpha - sigma), and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, level: Level) -> tuple[Tensor, ...]:
        self.calls += 1
        return level.alpha + level.sigma, level.alpha - level.sigma


GRIDS: dict[str, Callable[[int], list[Level]]] = {
    "uniform": lambda n: uniform(Cosine(), n),
    "karras": lambda n: karras(from_pure_noise=True)(RectifiedFlow(), n),
    "lam": lambda n: uniform_lam()(RectifiedFlow(), n),
    "trailing": lambda n: trailing(CHAIN, n),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_make_walks_whose_coefficients_are_those_of_each_level(grid: str):
    levels, of = GRIDS[grid](6), Counted()
    for level, alone in zip(levels, apart(levels), strict=True):
        found, expected = at(of, level), of(alone)
        assert all(isinstance(value, float) for value in found)
        assert list(found) == [float(value) for value in expected]
    assert of.calls == 1 + 7


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "adaptive"])  # its levels are its own
@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_walk_changes_no_result(name: str, solver: str):
    codes = {**NOISE_CODES, "table": TableCode(CHAIN)}
    levels = {"karras": karras()(RectifiedFlow(), 7), "trailing": trailing(CHAIN, 7)}
    for i, code in enumerate(codes.values()):
        for grid in levels.values():
            denoiser = Preconditioned(
                Net(),
                PARAMETERIZATIONS[name],
                native=("unit", "ratio", "sum")[i % 3],
                c_in=("edm", "none")[i % 2],
                c_noise=code,
                learned_variance=True,
            )
            together, one_by_one = (end(denoiser, way, SOLVERS[solver]()) for way in (grid, apart(grid)))
            assert torch.allclose(together, one_by_one, rtol=1e-12, atol=1e-12)


def test_a_part_of_a_walk_is_a_walk_and_the_way_back_none():
    levels, seen = uniform(RectifiedFlow(), 5), []

    class Pair:
        def __call__(self, now: Level, nxt: Level) -> tuple[Tensor, ...]:
            seen.append(now.alpha.ndim)
            return (now.sigma - nxt.sigma,)

    of = Pair()
    for now, nxt in pairwise(levels[2:]):
        assert between(of, now, nxt) == (pytest.approx(0.2, abs=1e-15),)
    assert seen == [1]
    backwards = between(of, levels[2], levels[1])
    assert seen == [1, 0] and float(backwards[0]) == pytest.approx(-0.2, abs=1e-15)
    other = uniform(RectifiedFlow(), 5)
    for now, nxt in ((levels[1], levels[3]), (levels[1], other[2]), (levels[1], Level.of(0.5, 0.5))):
        assert float(between(of, now, nxt)[0]) == pytest.approx(float(now.sigma - nxt.sigma), abs=1e-15)
    assert seen == [1, 0, 0, 0, 0]


def test_a_level_that_is_not_possible_does_not_spoil_the_others():
    levels = walk(Level(torch.tensor([0.0, 0.6, 1.0]), torch.tensor([1.0, 0.8, 0.0])))
    denoiser = Preconditioned(Net(), Eps(), native="unit", c_in="none", c_noise=NOISE_CODES["angle"])
    denoiser.learned_variance = True
    assert torch.equal(end(denoiser, levels[1:], DDIM()), end(denoiser, apart(levels)[1:], DDIM()))
    with pytest.raises(ValueError, match="start the levels at alpha > 0"):
        end(denoiser, levels, DDIM())


def test_gradients_go_through_the_levels_of_a_walk():
    t = torch.linspace(0.9, 0.1, 4, dtype=F64).requires_grad_()
    denoiser = Preconditioned(
        Net(), EDM(), native="unit", c_in="edm", c_noise=NOISE_CODES["edm"], learned_variance=True
    )
    end(denoiser, walk(RectifiedFlow()(t)), DDIM()).sum().backward()
    assert t.grad is not None and bool((t.grad != 0).all())


def test_the_code_reaches_the_network_in_float32_at_least():
    net = Net()
    denoiser = Preconditioned(
        net, EDM(), native="unit", c_in="none", c_noise=NOISE_CODES["angle"], learned_variance=True
    )
    level = walk(Level.from_angle(torch.tensor([math.pi / 2 * 0.9973, 0.3])))[0]
    for dtype in (torch.float32, F64):
        denoiser(torch.zeros(2, 3, dtype=dtype), level, {})
        assert net.codes[-1].dtype == dtype and net.codes[-1].tolist() == pytest.approx([997.3] * 2, rel=1e-6)


@pytest.mark.parametrize("levels", [CHAIN.at(torch.tensor([40, 7, 3, 0])), CHAIN.at(torch.tensor([0, 3, 7, 40]))])
def test_a_part_of_a_walk_falls_or_rises_as_its_levels_do(levels: Level) -> None:
    whole = walk(levels)
    for part in (whole, whole[1:], whole[:3], whole[1:3], [whole[0], whole[3]], whole[::-1]):
        apart = [Level(level.alpha, level.sigma) for level in part]
        assert strictly_monotone(part) == strictly_monotone(apart)
    stands = walk(CHAIN.at(torch.tensor([7, 7, 3, 0])))
    assert strictly_monotone(stands[1:]) == "falling"
    with pytest.raises(ValueError, match="levels 0 and 1 are not"):
        strictly_monotone(stands)


def test_points_of_a_table_are_the_same_together() -> None:
    together, points = CHAIN.at(torch.tensor([[0, 3], [50, 7]])), [CHAIN.at(index) for index in (0, 3, 50, 7)]
    assert together.alpha.flatten().tolist() == [float(level.alpha) for level in points]
    assert together.sigma.flatten().tolist() == [float(level.sigma) for level in points]
