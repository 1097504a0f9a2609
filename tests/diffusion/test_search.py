"""The searched grid: nearer to where many steps end than any fixed one, and what it refuses before a call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.exact import MixtureDenoiser
from nirvana.diffusion.grid import karras, trailing, uniform_lam
from nirvana.diffusion.level import Level, float64, strictly_monotone, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import Noise, SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.schedule import LinearVP, RectifiedFlow, Schedule
from nirvana.diffusion.search import CANDIDATES, SUBSTEPS, candidates, refined, search
from nirvana.diffusion.solver import Denoise, Solver, Step

F64 = torch.float64
RANGE = (-5.0, 5.0)


@dataclass(frozen=True)
class Steps:
    """DDIM at `points` = 1. At 2 DPM-Solver++(2M): x0 + (x0 - x0_before) h/(2 h_before) in its place (Lu et al.)."""

    points: int
    deterministic = True

    @property
    def order(self) -> int:
        return self.points

    started_order = order

    def calls(self, levels: list[Level]) -> int:
        return len(levels) - 1

    def init(self, x: Tensor) -> None:
        return None

    def revise(self, state: object) -> None:
        return None

    def step(
        self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: tuple[Tensor, Level] | None, noise: Noise
    ) -> tuple[Step, tuple[Tensor, Level]]:
        prediction = denoise(x, now, nxt)
        of_x = float(nxt.sigma / now.sigma)
        guess, h = prediction.x0, float(nxt.lam - now.lam)
        if self.points == 2 and state is not None and math.isfinite(h) and math.isfinite(float(state[1].lam)):
            guess = guess + (guess - state[0]) * h / (2 * float(now.lam - state[1].lam))
        x_nxt = of_x * x + float(nxt.alpha - of_x * now.alpha) * guess
        return Step(now, nxt, x_nxt, prediction), (prediction.x0, now)


@dataclass(eq=False)
class Counted:
    """A denoiser that counts its calls."""

    denoiser: Denoiser
    calls: int = 0

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.calls += 1
        return self.denoiser(x, level, cond, nxt)


def mixture(components: int = 20, dim: int = 16) -> MixtureDenoiser:
    """Narrow components at half a unit, as pictures in [-1, 1] are: structure at every level of noise."""
    rng = torch.Generator().manual_seed(1)
    means = torch.randn(components, dim, generator=rng, dtype=F64) / 2
    return MixtureDenoiser(torch.ones(components), means, torch.full((components,), 0.02))


def noise_of(seed: int, n: int, dim: int = 16) -> SeededNoise:
    return SeededNoise(range(seed, seed + n), (dim,), dtype=F64)


def end(denoiser: Denoiser, levels: list[Level], solver: Solver[object], noise: SeededNoise) -> Tensor:
    *_, last = trajectory(denoiser, start(noise, levels[0]), levels, solver, cond={}, noise=noise)
    return last.x


def distance(x: Tensor, to: Tensor) -> float:
    return float((x - to).norm(dim=1).mean())


@pytest.mark.parametrize("n", [6, 8])
@pytest.mark.parametrize(
    ("schedule", "solver"),
    [(RectifiedFlow(), Steps(2)), (LinearVP(), Steps(1))],
    ids=["flow-2m", "vp-ddim"],
)
def test_it_is_nearer_to_the_end_of_many_steps_on_held_out_seeds(schedule: Schedule, solver: Solver[object], n: int):
    """At most 0.8 times the best of the fixed grids, on trajectories it has not seen."""
    oracle, warm, held_out = mixture(), noise_of(10**6, 64), noise_of(0, 128)
    levels = candidates(schedule(float64(1.0)), RANGE)
    found = search(oracle, start(warm, levels[0]), levels, solver, n, cond={}, noise=warm)
    assert len(found) == n + 1 and strictly_monotone(found) == "falling" and found[-1].is_clean
    truth = end(oracle, trailing(schedule, 200), solver, held_out)
    fixed = [grid(schedule, n) for grid in (karras(RANGE), uniform_lam(RANGE), trailing)]
    best = min(distance(end(oracle, grid, solver, held_out), truth) for grid in fixed)
    assert distance(end(oracle, found, solver, held_out), truth) <= 0.8 * best


def test_no_other_choice_of_the_candidates_is_much_better():
    """Against all 210 grids of 5 steps on 11 candidates."""
    oracle, noise = mixture(8, 6), noise_of(0, 64, 6)
    levels, solver = candidates(Level.of(0.0, 1.0), (-3.0, 3.0), 11), Steps(2)
    x = start(noise, levels[0])
    truth = end(oracle, refined(levels, SUBSTEPS), solver, noise)
    all_of_them = [[levels[0], *inner, levels[-1]] for inner in combinations(levels[1:-1], 4)]
    distances = sorted(distance(end(oracle, list(grid), solver, noise), truth) for grid in all_of_them)
    found = search(oracle, x, levels, solver, 5, cond={}, noise=noise)
    assert distance(end(oracle, found, solver, noise), truth) <= 1.02 * distances[0]
    assert 1.02 * distances[0] < distances[3] and distances[0] < 0.7 * distances[105]  # which few of them are


def test_one_call_at_a_node_and_progress_to_the_end():
    oracle, noise = Counted(mixture()), noise_of(0, 4)
    levels = candidates(Level.of(0.0, 1.0), RANGE, 12)
    seen: list[tuple[int, int]] = []
    n = 4

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    search(oracle, start(noise, levels[0]), levels, Steps(1), n, cond={}, noise=noise, progress=progress)
    done = [d for d, _ in seen]
    assert done == sorted(done) and len({total for _, total in seen}) == 1 and seen[-1][0] == seen[-1][1]
    programming = SUBSTEPS * 12 + 1 + (n - 1) * (12 - n + 1)
    assert programming < oracle.calls <= seen[-1][1]
    assert (oracle.calls - programming) % n == 0  # whole walks of the moves


@pytest.mark.parametrize("n", [1, 2, 11, 12])
def test_any_number_of_steps_up_to_that_of_the_candidates(n: int):
    levels, noise = candidates(Level.of(0.0, 1.0), RANGE, 12), noise_of(0, 3)
    found = search(mixture(), start(noise, levels[0]), levels, Steps(2), n, cond={}, noise=noise)
    assert len(found) == n + 1 and strictly_monotone(found) == "falling"
    assert found[0].is_pure_noise and found[-1].is_clean


@pytest.mark.parametrize("schedule", [RectifiedFlow(), LinearVP()], ids=["flow", "vp"])
def test_candidates(schedule: Schedule):
    first = schedule(float64(1.0))
    levels = candidates(first, RANGE)
    assert len(levels) == CANDIDATES + 1 and strictly_monotone(levels) == "falling"
    assert float(levels[0].ratio) == pytest.approx(float(first.ratio), rel=1e-14)
    assert levels[-1].is_clean and all(float(level.norm) == pytest.approx(1, rel=1e-14) for level in levels)
    lam, angle = (torch.stack([getattr(level, name) for level in levels[1:-1]]) for name in ("lam", "angle"))
    low = max(-5.0, float(first.lam))
    ends = Level.from_lam(torch.tensor([low, 5.0], dtype=F64)).angle
    place = (lam - low) / (5 - low) + (ends[0] - angle) / (ends[0] - ends[1])
    assert torch.allclose(place, 2 * torch.arange(1, CANDIDATES, dtype=F64) / CANDIDATES, rtol=0, atol=2e-3)


def test_refined_keeps_the_levels_and_their_spacing():
    levels = walk(Level.from_lam(torch.tensor([-math.inf, -2.0, 1.0, math.inf], dtype=F64)))
    fine = refined(levels, 3)
    assert len(fine) == 10 and strictly_monotone(fine) == "falling"
    assert [float(level.lam) for level in fine[::3]] == pytest.approx([-math.inf, -2.0, 1.0, math.inf], abs=1e-14)
    assert [float(level.lam) for level in fine[3:7]] == pytest.approx([-2, -1, 0, 1], abs=1e-14)
    angle = torch.stack([level.angle for level in fine[:4]])
    assert torch.allclose(angle.diff(), angle.diff()[0].expand(3), rtol=1e-12, atol=0)


def test_what_cannot_be_searched_is_refused_before_a_call():
    oracle, noise = Counted(mixture()), noise_of(0, 2)
    levels = candidates(Level.of(0.0, 1.0), RANGE, 12)
    x = start(noise, levels[0])
    for n in (0, -1, 13):
        with pytest.raises(ValueError, match="grid of 1 to 12 steps"):
            search(oracle, x, levels, Steps(1), n, cond={}, noise=noise)
    with pytest.raises(ValueError, match="deterministic solver"):
        search(oracle, x, levels, SOLVERS["ddpm"](), 3, cond={}, noise=noise)
    with pytest.raises(ValueError, match="turn them round"):
        search(oracle, x, levels[::-1], Steps(1), 3, cond={}, noise=noise)
    with pytest.raises(ValueError, match="two finite lam"):
        candidates(Level.of(0.0, 1.0), (-3.0, math.inf))
    with pytest.raises(ValueError, match="two finite lam"):
        candidates(Level.from_ratio(0.001), (-3.0, 3.0))
    assert oracle.calls == 0


def test_a_network_without_finite_numbers_gives_no_grid():
    def broken(x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        return Prediction(x * math.nan)

    noise = noise_of(0, 2)
    levels = candidates(Level.of(0.0, 1.0), RANGE, 6)
    with pytest.raises(ValueError, match="no walk ends at finite numbers"):
        search(broken, start(noise, levels[0]), levels, Steps(1), 3, cond={}, noise=noise)
