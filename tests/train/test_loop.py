"""The loop against plain loops, against itself interrupted, and against losses that are not numbers."""

from __future__ import annotations

import copy
import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from nirvana.errors import Refused
from nirvana.train.checkpoint import load_weights
from nirvana.train.events import Event, Finished, RolledBack, SampleWritten, Saved, SnapshotTaken, Started, StepDone
from nirvana.train.loop import Hooks
from nirvana.train.run import RunFolder
from nirvana.train.task import Position
from train.tiny import PLAN, Game, Linear, Numbers, go, open_run, outcome


def until(path: Path, images: int, task: Any = None) -> None:
    """Train up to `images`, then stop as Ctrl-C would."""
    events = go(path, task)
    for event in events:
        if isinstance(event, StepDone) and event.images >= images:
            break
    events.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_equals_a_plain_loop(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, clip=0.5)
    list(go(tmp_path / "run", Linear(dropout=0.0), plan))
    task = Linear(dropout=0.0)
    optimizer = torch.optim.AdamW([task.w, task.b], lr=1.0, betas=(0.9, 0.99), weight_decay=0.01)
    for start in range(0, 60, 8):
        indices = range(start, min(start + 8, 60))
        loss = task.loss(task.phases[0], Numbers().batch(indices), Position(5, indices, start))
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_([task.w, task.b], 0.5)
        optimizer.param_groups[0]["lr"] = 0.05 * min(1, (start + 8) / 16, (60 - start) / 30)
        optimizer.step()
        optimizer.zero_grad()
    raw = load_weights(RunFolder.open(tmp_path / "run"), "raw")
    torch.testing.assert_close(raw, {"w": task.w.detach(), "b": task.b.detach()}, rtol=1e-6, atol=1e-7)


def test_accumulation_changes_rounding_only(tmp_path: Path) -> None:
    found = []
    for parts in (1, 3, 8):
        path = tmp_path / str(parts)
        list(go(path, Linear(dropout=0.0), dataclasses.replace(PLAN, accumulate=parts)))
        run = RunFolder.open(path)
        found.append((load_weights(run, "raw"), [line["loss"]["main"] for line in run.metrics()]))  # type: ignore[index]
    for weights, losses in found[1:]:
        torch.testing.assert_close(weights, found[0][0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(losses, found[0][1], rtol=1e-5, atol=1e-6)


def test_events_in_order(tmp_path: Path) -> None:
    events = list(go(tmp_path / "run"))
    assert events[0] == Started(0, 60, "cpu", "float32", 0)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [step.images for step in steps] == [8, 16, 24, 32, 40, 48, 56, 60]
    assert [event.images for event in events if isinstance(event, Saved)] == [0, 16, 32, 48, 60]
    assert [event.images for event in events if isinstance(event, SampleWritten)] == [24, 48, 60]
    assert [event.images for event in events if isinstance(event, SnapshotTaken)][::2] == [8, 8, 16, 32, 48, 60]
    assert isinstance(events[-1], Finished) and not events[-1].already
    assert [step.rate for step in steps[:2]] == pytest.approx([0.025, 0.05])
    run = RunFolder.open(tmp_path / "run")
    assert run.finished and [c.images for c in run.checkpoints()] == [60, 48]
    assert [e["event"] for e in run.events()] == ["started", "finished"]


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    list(go(tmp_path / "run"))
    before = outcome(tmp_path / "run")
    events = list(go(tmp_path / "run"))
    assert len(events) == 1 and isinstance(events[0], Finished) and events[0].already
    assert outcome(tmp_path / "run") == before


@pytest.mark.parametrize("images", [8, 16, 24, 40, 48, 56, 60])
def test_stopped_and_continued_is_the_same(images: int, tmp_path: Path) -> None:
    list(go(tmp_path / "whole"))
    until(tmp_path / "run", images)
    assert RunFolder.open(tmp_path / "run").latest().images == images  # type: ignore[union-attr]
    list(go(tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_dropout_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    list(go(tmp_path / "run"))
    first = load_weights(RunFolder.open(tmp_path / "run"), "raw")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    list(go(tmp_path / "again"))
    torch.testing.assert_close(load_weights(RunFolder.open(tmp_path / "again"), "raw"), first, rtol=0, atol=0)
    list(go(tmp_path / "other", plan=dataclasses.replace(PLAN, seed=6)))
    assert not torch.equal(load_weights(RunFolder.open(tmp_path / "other"), "raw")["w"], first["w"])


def test_metrics_lines(tmp_path: Path) -> None:
    list(go(tmp_path / "run"))
    lines: list[Any] = RunFolder.open(tmp_path / "run").metrics()
    assert [line["images"] for line in lines] == [24, 48, 60] and [line["step"] for line in lines] == [3, 6, 8]
    assert lines[0]["rate"]["main"] == pytest.approx(0.05)
    for line, samples in zip(lines, (24, 24, 12), strict=True):
        levels = line["levels"]["main"].values()
        assert sum(count for count, _ in levels) == samples
        assert sum(total for _, total in levels) / samples == pytest.approx(line["loss"]["main"], rel=1e-6)


def test_two_phases_each_train_their_own(tmp_path: Path) -> None:
    plan = dataclasses.replace(PLAN, images=24, sample_every=None)
    task = Game()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = [(task.c.detach().clone(), task.w.detach().clone())]
    events = go(tmp_path / "run", task, plan, Hooks())
    seen += [(task.c.detach().clone(), task.w.detach().clone()) for event in events if isinstance(event, StepDone)]
    changed = [tuple(not torch.equal(a, b) for a, b in zip(x, y, strict=True)) for x, y in pairwise(seen)]
    assert changed == [(True, True), (False, True), (True, True)]
    (line,) = RunFolder.open(tmp_path / "run").metrics()
    rate: Any = line["rate"]
    assert rate["critic"] / rate["player"] == pytest.approx(0.02 / 0.05)


def test_two_phases_continue(tmp_path: Path) -> None:
    list(go(tmp_path / "whole", Game()))
    for images in (8, 24, 40):
        until(tmp_path / "run", images, Game())
    list(go(tmp_path / "run", Game()))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


# A loss that is not a number

POISON = 37
"""A sample of the step from 32 to 40; the reading after it is at 48, the checkpoint before it at 32."""


def poisoned_once(path: Path) -> Linear:
    """NaN in the step from 40 to 48, unless the weights came from 32 to 40 at a lower rate."""
    task, sizes = Linear(), {}
    for event in go(path / "probe", task):
        if isinstance(event, StepDone):
            sizes[event.images] = float(task.w.detach().abs().max())
    assert sizes[40] > sizes[32]
    return Linear(poison=45, limit=sizes[32] + 0.75 * (sizes[40] - sizes[32]))


def rolled(events: list[Event]) -> list[RolledBack]:
    return [event for event in events if isinstance(event, RolledBack)]


def test_gives_up_after_three(tmp_path: Path) -> None:
    seen: list[Event] = []
    with pytest.raises(Refused, match=r"at 40 images.*pictures/037\.png.*lower rate than 0\.05") as refusal:
        seen.extend(go(tmp_path / "run", Linear(poison=POISON)))
    assert "\n" not in str(refusal.value)
    assert [(e.images, e.to, e.factor, e.count) for e in rolled(seen)] == [(40, 32, 0.5**n, n) for n in (1, 2, 3)]
    assert rolled(seen)[0].suspects == ["pictures/037.png"]
    assert rolled(seen)[0].files == [f"pictures/{index:03d}.png" for index in range(32, 40)]
    with pytest.raises(Refused, match="not a number at 40 images"):
        list(go(tmp_path / "run", Linear(poison=POISON)))
    assert len([e for e in RunFolder.open(tmp_path / "run").events() if e["event"] == "rolled_back"]) == 3
    rates = [event.rate for event in seen if isinstance(event, StepDone) and event.images == 40]
    assert rates == pytest.approx([rates[0] * 0.5**n for n in range(4)])


def test_rolls_back_to_the_start_from_the_first_step(tmp_path: Path) -> None:
    seen: list[Event] = []
    with pytest.raises(Refused):
        seen.extend(go(tmp_path / "run", Linear(poison=3)))
    assert [(e.images, e.to) for e in rolled(seen)] == [(8, 0)] * 3


def test_a_lower_rate_recovers_and_continues_the_same(tmp_path: Path) -> None:
    task = poisoned_once(tmp_path)
    events = list(go(tmp_path / "whole", copy.deepcopy(task)))
    assert [(e.images, e.to, e.factor) for e in rolled(events)] == [(48, 32, 0.5)]
    wanted = outcome(tmp_path / "whole")
    assert wanted["finished"] and wanted["rollbacks"][0]["suspects"] == ["pictures/045.png"]
    assert [(line["images"], line["rollbacks"]) for line in wanted["metrics"]] == [(24, 0), (48, 1), (60, 1)]
    assert wanted["metrics"][1]["rate"]["main"] == pytest.approx(0.5 * 0.05 * 20 / 30)
    # 40 is met before and after the return: what is saved there the first time must not be continued from.
    for images in (40, 56):
        until(tmp_path / "run", images, copy.deepcopy(task))
    list(go(tmp_path / "run", copy.deepcopy(task)))
    assert outcome(tmp_path / "run") == wanted


@pytest.mark.parametrize("saved_at_40", [False, True])
@pytest.mark.parametrize("broken", ["_restore", None])
def test_stopped_at_the_return(saved_at_40: bool, broken: str | None, tmp_path: Path) -> None:
    task = poisoned_once(tmp_path)
    list(go(tmp_path / "whole", copy.deepcopy(task)))
    if saved_at_40:
        until(tmp_path / "run", 40, copy.deepcopy(task))
    events = go(tmp_path / "run", copy.deepcopy(task))
    with pytest.MonkeyPatch.context() as patch:
        for event in events:
            if isinstance(event, StepDone) and event.images == 48 and broken:

                def die(*_: object) -> None:
                    raise RuntimeError("killed between the event and the return")

                patch.setattr(f"nirvana.train.loop._Training.{broken}", die)
                with pytest.raises(RuntimeError):
                    next(events)
                break
            if isinstance(event, RolledBack):
                break
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    latest = RunFolder.open(tmp_path / "run").latest()
    assert latest is not None and latest.images == 32
    list(go(tmp_path / "run", copy.deepcopy(task)))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


class Steep(Linear):
    """A finite loss whose gradient is NaN at sample 45: d sqrt(0) = 0/0."""

    def loss(self, phase: Any, batch: Any, position: Position) -> Any:
        loss = super().loss(phase, batch, position)
        if 45 in position.indices:
            return dataclasses.replace(loss, total=loss.total + (0 * self.w).square().sum().sqrt())
        return loss


def overflow(parameter: torch.Tensor) -> None:
    parameter.data.fill_(float("inf"))


class Overflowing(Linear):
    """The weights become infinite in the update of the step to 48, with finite loss and gradient."""

    def loss(self, phase: Any, batch: Any, position: Position) -> Any:
        loss = super().loss(phase, batch, position)
        if 45 in position.indices:
            self.b.register_post_accumulate_grad_hook(overflow)
        return loss


@pytest.mark.parametrize("task", [Steep, Overflowing])
def test_no_checkpoint_of_broken_weights(task: type[Linear], tmp_path: Path) -> None:
    events = go(tmp_path / "run", task())
    first = next(event for event in events if isinstance(event, RolledBack))
    assert (first.images, first.to) == (48, 32)
    assert load_weights(RunFolder.open(tmp_path / "run"), "raw")["b"].isfinite().all()


def test_ctrl_c_does_not_save_what_will_be_rolled_back(tmp_path: Path) -> None:
    until(tmp_path / "run", 40, Linear(poison=POISON))
    latest = RunFolder.open(tmp_path / "run").latest()
    assert latest is not None and latest.images == 32


# Refusals


def test_one_training_at_a_time(tmp_path: Path) -> None:
    first = go(tmp_path / "run")
    next(first)
    with pytest.raises(Refused, match="a training is going on in"):
        list(go(tmp_path / "run"))
    first.close()  # pyright: ignore[reportAttributeAccessIssue]
    list(go(tmp_path / "run"))


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    until(tmp_path / "run", 16)

    class Other(Linear):
        def load_state_dict(self, state_dict: Any) -> None:
            raise RuntimeError("size mismatch\n\tfor w")

    with pytest.raises(Refused, match=r"000000016 does not fit this model \(size mismatch for w\)"):
        list(go(tmp_path / "run", Other()))


def test_another_plan_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    from nirvana.train.loop import train

    run = open_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run\.plan"):
        next(train(Linear(), Numbers(), dataclasses.replace(PLAN, lr=1.0), run))


def test_a_return_takes_the_metrics_back(tmp_path: Path) -> None:
    task = poisoned_once(tmp_path)
    list(go(tmp_path / "run", task, dataclasses.replace(PLAN, read_every=1)))
    lines = RunFolder.open(tmp_path / "run").metrics()
    assert [line["images"] for line in lines] == [8, 16, 24, 32, 40, 48, 56, 60]
    assert [line["rollbacks"] for line in lines] == [0, 0, 0, 0, 1, 1, 1, 1]
