"""A training tried out: its steps are the loop's, its memory is counted, and nothing stays behind."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nirvana.condition import NoConditioner
from nirvana.data import open_data
from nirvana.recipes import rehearsal
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.recipes.rehearsal import needed, rehearse
from nirvana.recipes.task import DiffusionTask, PictureBatches, Pictures
from nirvana.train.plan import TrainPlan
from nirvana.train.task import Loss, Phase, Position

CPU = torch.device("cpu")


def made(width: int = 8, batch: int = 4, size: int = 8) -> tuple[Recipe, TrainPlan, DiffusionTask]:
    recipe = replace(RECIPES["flow"](Facts(size, 1, tuple("0123456789"), width=width)), batch=batch)
    plan = plan_of(recipe, batch, Order("digits"))
    return recipe, plan, make_task(recipe, recipe.model, plan, CPU)


def test_it_times_the_steps_of_the_loop_the_grid_and_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, plan, task = made()
    ticks = iter(range(10**6))
    monkeypatch.setattr(rehearsal.time, "perf_counter", lambda: float(next(ticks)))
    steps: list[range] = []

    class Counted(PictureBatches):
        def batch(self, indices: range) -> Any:
            steps.append(indices)
            return super().batch(indices)

    batches = Counted(open_data("digits"), 0, flip=False)
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    seen = rehearse(task, batches, plan, recipe.model, lambda weights: float(len(weights)), seconds=5.0)
    # Every look at this clock is a second later than the one before: one an event.
    assert seen.step == 1.0
    assert seen.draw == len(before)
    assert seen.save == 1.0
    assert seen.memory > 0
    assert len(steps) >= 3 and steps[0] == range(4)
    assert any(not torch.equal(before[name], tensor) for name, tensor in task.state_dict().items())


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recipe, plan, task = made()
    batches = PictureBatches(open_data("digits"), 0, flip=False)
    rehearse(task, batches, plan, recipe.model, lambda _: 0.0, seconds=0.0)
    assert list(tmp_path.iterdir()) == []


def test_the_memory_is_that_of_weights_and_kept_tensors() -> None:
    recipe, plan, task = made()
    need = needed(task, plan, (1, 8, 8))
    weights = 4 * sum(p.numel() for p in task.modules.parameters())
    fixed = need(0)
    # Gradients, the optimiser's two averages, and one average for each profile of the plan.
    assert fixed == weights * (1 + 2 + len(plan.ema))
    assert need(8) - fixed == pytest.approx(4 * (need(2) - fixed), abs=4)
    wide = needed(made(width=16)[2], plan, (1, 8, 8))
    assert 1.5 < (wide(8) - wide(0)) / (need(8) - need(0)) < 2.5
    assert recipe.batch == 4


def test_what_is_kept_is_counted_once() -> None:
    """A linear map keeps its input for the weight's gradient: of b pictures of n numbers of 4 bytes exactly 4 b n."""

    weight = torch.nn.Parameter(torch.zeros(64, 10))

    class One(DiffusionTask):
        device = CPU  # type: ignore[assignment]
        parts = SimpleNamespace(conditioner=NoConditioner())  # type: ignore[assignment]
        modules = torch.nn.ModuleDict()
        phases = (Phase("only", {"weight": weight}),)  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

        def ema_parameters(self) -> dict[str, torch.Tensor]:
            return {"weight": weight.detach()}

        state_dict = ema_parameters

        def loss(self, phase: Phase, batch: Pictures, position: Position) -> Loss:
            del phase, position
            x = batch.x0.float().flatten(1)
            return Loss((x @ weight).sum() + (x @ weight).sum())

    need = needed(One(), TrainPlan(images=4), (1, 8, 8))
    assert need(2) - need(0) == 1.25 * 2 * 64 * 4
