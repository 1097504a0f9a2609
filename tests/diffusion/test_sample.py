"""The loop: number of calls, what it passes, edits, validation before any call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.grid import uniform
from nirvana.diffusion.level import Level
from nirvana.diffusion.named import DDIM, SOLVERS
from nirvana.diffusion.noise import Noise, SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.schedule import RectifiedFlow
from nirvana.diffusion.solver import Ancestral, Denoise, Solver, Step

F64 = torch.float64
COND = {"vector": torch.ones(2, 1)}


class Counting:
    """x0 = x/2, and the (x, level, cond, nxt) of every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Level, Cond, Level | None]] = []

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.calls.append((x, level, cond, nxt))
        return Prediction(x / 2, var_frac=torch.zeros_like(x))


class Constant:
    """x0 = 0.3."""

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        return Prediction(torch.full_like(x, 0.3), var_frac=torch.zeros_like(x))


class TwoStep:
    """A solver with history: its state is what it evaluated before, and `seen` is what it was given at each step."""

    order = 2
    started_order = 1
    deterministic = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []

    def calls(self, levels: Sequence[Level]) -> int:
        return len(levels) - 1

    def init(self, x: Tensor) -> tuple[str, ...]:
        return ("init",)

    def step(
        self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: tuple[str, ...], noise: Noise
    ) -> tuple[Step, tuple[str, ...]]:
        self.seen.append(state)
        return Step(now, nxt, x + 1, denoise(x, now, nxt)), (*state, "step")

    def revise(self, state: tuple[str, ...]) -> tuple[str, ...]:
        return ("revised",)


def noise() -> SeededNoise:
    return SeededNoise([0, 1], (3,), dtype=F64)


def x() -> Tensor:
    return torch.ones(2, 3, dtype=F64)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("name", SOLVERS)
def test_calls_are_exact_and_nxt_is_passed(name: str, n: int):
    denoiser, levels, solver = Counting(), uniform(RectifiedFlow(), n), SOLVERS[name]()
    made, last = [0], x()
    for i, step in enumerate(trajectory(denoiser, x(), levels, solver, cond=COND, noise=noise())):
        made.append(len(denoiser.calls))
        calls = denoiser.calls[made[-2] :]
        assert step.now is levels[i] and step.nxt is levels[i + 1] and step.index == i
        assert torch.equal(step.prediction.x0, calls[0][0] / 2)
        assert all(cond is COND and nxt is not None for _, _, cond, nxt in calls)
        if name not in ("adaptive", "heun-churn"):  # these have levels of their own
            seen, level, _, nxt = calls[0]
            assert level is levels[i] and nxt is levels[i + 1] and torch.equal(seen, last)
        last = step.x
    assert len(made) == n + 1 and bool(last.isfinite().all())
    assert solver.calls(levels) == (None if name == "adaptive" else made[-1])
    assert made[-1] == n or name in ("adaptive", "heun", "dpm-2", "dpmpp-2s", "dpmpp-3s", "heun-churn")


@pytest.mark.parametrize("name", SOLVERS)
def test_one_step_from_pure_noise_to_clean_is_x0(name: str):
    levels = [Level.of(0.0, 1.0), Level.of(1.0, 0.0)]
    (step,) = trajectory(Constant(), x(), levels, SOLVERS[name](), cond=COND, noise=noise())
    assert torch.allclose(step.x, torch.full_like(x(), 0.3), rtol=0, atol=1e-3 if name == "adaptive" else 0)


def test_it_is_lazy_and_can_be_broken_off():
    denoiser = Counting()
    walk = trajectory(denoiser, x(), uniform(RectifiedFlow(), 5), DDIM(), cond=COND, noise=noise())
    assert len(denoiser.calls) == 0
    next(walk)
    next(walk)
    del walk
    assert len(denoiser.calls) == 2


def test_arguments_are_left_alone():
    given, levels = x(), uniform(RectifiedFlow(), 3)
    for solver in (DDIM(), DDIM(1.0), Ancestral()):
        list(trajectory(Counting(), given, levels, solver, cond=COND, noise=noise()))
    assert torch.equal(given, x())


def test_gradients_flow_through_the_loop():
    given = x().requires_grad_()
    *_, last = trajectory(Counting(), given, uniform(RectifiedFlow(), 3), DDIM(), cond=COND, noise=noise())
    last.x.sum().backward()
    assert given.grad is not None and bool((given.grad != 0).all())


def test_edits_act_before_the_step_and_revise_only_where_they_change_x():
    seen: list[tuple[Level, Noise]] = []

    def at_second(x: Tensor, level: Level, denoise: Denoise, noise: Noise) -> Tensor:
        seen.append((level, noise))
        return 10 * x if level is levels[1] else x

    def asks(x: Tensor, level: Level, denoise: Denoise, noise: Noise) -> Tensor:
        return denoise(x, level).x0 if level is levels[2] else x

    denoiser, solver, levels, given = Counting(), TwoStep(), uniform(RectifiedFlow(), 4), noise()
    steps = list(trajectory(denoiser, x(), levels, solver, cond=COND, noise=given, edits=(at_second, asks)))
    assert solver.seen == [("init",), ("revised",), ("revised",), ("revised", "step")]
    assert [float(step.x[0, 0]) for step in steps] == [2, 21, 11.5, 12.5]
    assert [level for level, _ in seen] == levels[:-1] and all(n is given for _, n in seen)
    assert len(denoiser.calls) == 5 and denoiser.calls[2][2] is COND


class Memory(Counting):
    """Counts its fresh copies."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Memory] = []

    def fresh(self) -> Denoiser:
        self.made.append(Memory())
        return self.made[-1]


def test_each_trajectory_starts_with_a_fresh_memory():
    denoiser, levels = Memory(), uniform(RectifiedFlow(), 3)
    for _ in range(2):
        list(trajectory(denoiser, x(), levels, DDIM(), cond=COND, noise=noise()))
    assert denoiser.calls == [] and [len(one.calls) for one in denoiser.made] == [3, 3]


def walk(*lams: float) -> list[Level]:
    return [Level.from_lam(lam) for lam in lams]


@pytest.mark.parametrize(
    ("levels", "solver", "state", "message"),
    [
        (walk(0.0), DDIM(), x(), "at least 2 levels"),
        (walk(0.0, 1.0, 1.0), DDIM(), x(), "strictly monotone"),
        (walk(0.0, 1.0, 0.5), DDIM(), x(), "strictly monotone"),
        (walk(0.0, math.nan), DDIM(), x(), "no noise level"),
        (walk(1.0, 0.0), DDIM(0.5), x(), "deterministic solver"),
        (walk(1.0, 0.0), Ancestral(), x(), "deterministic solver"),
        (walk(math.inf, 0.0), DDIM(), x(), "first level with sigma > 0"),
        (walk(0.0, 1.0), DDIM(), x().half(), "float32 or float64"),
        ([Level.from_lam(torch.tensor([a, a, a])) for a in (0.0, 1.0)], DDIM(), x(), "does not align"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(levels: list[Level], solver: Solver[None], state: Tensor, message: str):
    denoiser = Counting()
    with pytest.raises(ValueError, match=message):
        trajectory(denoiser, state, levels, solver, cond=COND, noise=noise())
    assert denoiser.calls == []


def test_rising_levels_take_a_deterministic_solver():
    steps = list(trajectory(Counting(), x(), walk(2.0, 0.0, -math.inf), DDIM(), cond=COND, noise=noise()))
    assert len(steps) == 2 and bool(steps[-1].x.isfinite().all())


def test_start_is_sigma_times_the_initial_noise():
    assert torch.equal(start(noise(), Level.of(0.0, 1.0)), noise().initial())
    assert torch.equal(start(noise(), Level.of(1.0, 80.0)), 80 * noise().initial())
