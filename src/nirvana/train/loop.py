"""The training loop: a generator that drives a task through its plan and can be killed at any moment.

The state after each step is a pure function of command and data. What is due at a position (`_settle`) is done in an
order that makes a repetition harmless: snapshots, samples, metrics, and the checkpoint last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from nirvana.errors import Refused
from nirvana.files import Json, explained, replace_chunks
from nirvana.train import checkpoint as store
from nirvana.train.clock import Clock
from nirvana.train.device import DTYPES, pick_precision, seeded
from nirvana.train.ema import Average, PowerEMA
from nirvana.train.events import (
    Event,
    Finished,
    RolledBack,
    SampleWritten,
    Saved,
    SnapshotTaken,
    Started,
    StepDone,
)
from nirvana.train.interrupt import interrupt_later
from nirvana.train.metrics import PhaseStep, StepRecord, Window, append_metrics, truncate_metrics
from nirvana.train.optimizer import PhaseOptimizer
from nirvana.train.plan import TrainPlan
from nirvana.train.report import Report, Status
from nirvana.train.run import Checkpoint, RunFolder
from nirvana.train.task import Batches, Position, Task

B = TypeVar("B")

ROLLBACKS = 3
"""So many times a loss that is not a number is answered with a lower rate; the next one ends the training."""
_REPORT_SECONDS = 15.0


def _nothing(_weights: Mapping[str, Tensor], _images: int) -> bytes | None:
    return None


@dataclass(frozen=True)
class Hooks:
    """What a recipe adds to the loop.

    sample(weights, images) -> PNG bytes of a fixed-seed grid, or None; `weights` are those `load_weights` would give.
    It must leave the task alone.
    """

    sample: Callable[[Mapping[str, Tensor], int], bytes | None] = _nothing


def train(
    task: Task[B], batches: Batches[B], plan: TrainPlan, run: RunFolder, hooks: Hooks | None = None
) -> Iterator[Event]:
    """Train `task` to the end of `plan`, going on from the newest checkpoint in `run`; a finished run only says so.

    Ctrl-C and `close()` save a checkpoint first, which changes no result. A loss that is not a number rolls back to
    the last scheduled checkpoint and halves the rate, `ROLLBACKS` times at most.
    Raises Refused for a full disk, a damaged checkpoint, another training in the same folder, and when it gives up.
    """
    if plan != run.plan:
        raise ValueError("a run folder is trained with its own plan: pass run.plan")
    with run.lock():
        with _writing(run):
            run.clean()
        if run.finished:
            yield _already_finished(run)
            return
        training = _Training(task, batches, run, hooks or Hooks())
        yield training.begin()
        try:
            yield from training.go()
        except (KeyboardInterrupt, GeneratorExit):
            training.interrupted()
            raise


def _already_finished(run: RunFolder) -> Finished:
    # A training killed just after its last checkpoint has these two still to do.
    seconds = store.newest(run).seconds
    with _writing(run):
        store.prune(run)
        Report(run).write(Status(run.plan.images, 0.0, seconds))
    return Finished(run.plan.images, seconds, already=True)


def _writing(run: RunFolder) -> AbstractContextManager[None]:
    way_out = "free some space and run the same command again: it goes on from its last checkpoint"
    return explained(run.path, way_out)


class _Training(Generic[B]):
    def __init__(self, task: Task[B], batches: Batches[B], run: RunFolder, hooks: Hooks) -> None:
        self.task, self.batches, self.run, self.plan, self.hooks = task, batches, run, run.plan, hooks
        self.optimizers = [PhaseOptimizer(phase, self.plan) for phase in task.phases]
        self.device = next(iter(task.phases[0].parameters.values())).device
        # A plan that names its precision keeps it where that is only emulated: the results are the same.
        auto = self.plan.precision == "auto"
        self.dtype = pick_precision("auto", self.device) if auto else DTYPES[self.plan.precision]
        averaged = task.ema_parameters()
        unknown = sorted(set(averaged) - set(task.state_dict()))
        if unknown:
            raise ValueError(f"ema_parameters() has '{unknown[0]}', which state_dict() does not have")
        self.ema = PowerEMA(averaged, self.plan.ema)
        self.images, self.settled, self.consistent = 0, False, True
        self.saved = -1
        self.rollbacks = 0
        self.window = Window()
        self.loss: Mapping[str, float | None] | None = None
        self.clock = Clock()
        self.report, self.reported = Report(run), float("-inf")

    def begin(self) -> Started:
        """Restore the newest checkpoint, if there is one, and drop what lies after it."""
        self.rollbacks = sum(event.get("event") == "rolled_back" for event in self.run.events())
        latest = self.run.latest()
        with _writing(self.run):
            if latest is not None:
                store.verify(latest)
                self._restore(latest)
                self.clock = Clock(latest.seconds)
            truncate_metrics(self.run, self.images if self.settled else self.images - 1)
            store.prune(self.run)
            precision = str(self.dtype).removeprefix("torch.")
            started = Started(self.images, self.plan.images, str(self.device), precision, self.rollbacks)
            self.run.log_event("started", {"images": self.images, "device": started.device, "precision": precision})
        return started

    def go(self) -> Iterator[Event]:
        while True:
            if not self.settled:
                yield from self._settle()
            if self.images == self.plan.images:
                break
            yield self._step()
        with _writing(self.run):
            self.run.log_event("finished", {"images": self.images, "seconds": self.clock.seconds})
            self._report()
        yield Finished(self.images, self.clock.seconds, already=False)

    def interrupted(self) -> None:
        """Save where the training is, unless it is there already, or would have to be rolled back."""
        if self.consistent and self.images > self.saved and all(record.finite for record in self.window.read()):
            with _writing(self.run):
                self._save(scheduled=False)
                self.run.log_event("interrupted", {"images": self.images})

    # One step

    def _step(self) -> StepDone:
        indices = self.plan.next_indices(self.images)
        step = self.plan.step_of(self.images)
        rate = self.plan.factor(self.images) * 0.5**self.rollbacks
        parts = [(part, self.batches.batch(part)) for part in self.plan.parts(indices)]
        # A Ctrl-C between two phases would leave the one stepped and the other not.
        with interrupt_later():
            self.consistent = False
            measured = {
                optimizer.phase.name: self._phase_step(optimizer, parts, len(indices), rate)
                for optimizer in self.optimizers
                if step % optimizer.phase.every == 0
            }
            self.ema.update(self.task.ema_parameters(), len(indices), indices.stop)
            self.window.add(indices, measured)
            self.images, self.settled, self.consistent = indices.stop, False, True
        speed = self.clock.tick(self.images)
        left = (self.plan.images - self.images) / speed if speed else 0.0
        peak = self.optimizers[0].peak
        return StepDone(step + 1, self.images, self.plan.images, self.loss, peak * rate, speed, left)

    def _phase_step(
        self, optimizer: PhaseOptimizer, parts: list[tuple[range, B]], samples: int, rate: float
    ) -> PhaseStep:
        phase = optimizer.phase
        zero = torch.zeros((), device=self.device)
        measured = PhaseStep(optimizer.peak * rate, zero, zero)
        optimizer.clear()
        for part, batch in parts:
            share = len(part) / samples
            position = Position(self.plan.seed, part, self.images)
            with (
                seeded(self.device, self.plan.seed, phase.name, part.start),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16),
            ):
                loss = self.task.loss(phase, batch, position)
                optimizer.backward(loss.total * share)
            measured.loss = measured.loss + loss.total.detach() * share
            for name, term in loss.terms.items():
                measured.terms[name] = measured.terms.get(name, zero) + term.detach() * share
            if loss.per_sample is not None:
                measured.per_sample.append(loss.per_sample.detach())
            if loss.coordinate is not None:
                measured.coordinate.append(loss.coordinate.detach())
        measured.norm = optimizer.step(optimizer.peak * rate)
        return measured

    # What is due at a position

    def _settle(self) -> list[Event]:
        images, plan = self.images, self.plan
        read = images > 0 and (plan.step_of(images) % plan.read_every == 0 or images == plan.images)
        fractions, samples = plan.snapshots_at(images), plan.passes(plan.sample_every, images)
        scheduled = plan.is_scheduled(images)
        if not (read or fractions or samples or scheduled):
            self.settled = True
            return []
        bad = self._not_a_number(scheduled)
        if bad is not None:
            with interrupt_later(), _writing(self.run):
                return [self._roll_back(bad)]
        events: list[Event] = []
        with _writing(self.run):
            for fraction in fractions:
                events += [
                    SnapshotTaken(images, store.save_snapshot(self.run, fraction, average))
                    for average in self._averages()
                ]
            if samples:
                events += self._sample()
            with interrupt_later():
                if read:
                    self._write_metrics(durable=scheduled)
                self.settled = True
                if scheduled:
                    events.append(self._save(scheduled=True))
            if scheduled or samples or time.monotonic() - self.reported > _REPORT_SECONDS:
                self._report()
        return events

    def _not_a_number(self, scheduled: bool) -> StepRecord | None:
        records = self.window.read()
        bad = next((record for record in records if not record.finite), None)
        # A number that became infinite in the very last update shows in no loss yet.
        if bad is None and scheduled and records and not self._finite_weights():
            return records[-1]
        return bad

    def _finite_weights(self) -> bool:
        weights = [tensor for optimizer in self.optimizers for tensor in optimizer.phase.parameters.values()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in weights]).all())

    def _sample(self) -> list[Event]:
        weights = {**self.task.state_dict(), **self.ema.tensors()}
        with seeded(self.device, self.plan.seed, "sample"):
            picture = self.hooks.sample(weights, self.images)
        if picture is None:
            return []
        path = self.run.samples_path / f"{self.images:09d}.png"
        replace_chunks(path, [picture])
        return [SampleWritten(self.images, path)]

    def _write_metrics(self, *, durable: bool) -> None:
        measured = self.window.line()
        line: dict[str, Json] = {
            "images": self.images,
            "step": self.plan.step_of(self.images),
            "seconds": self.clock.seconds,
            "images_per_second": self.clock.speed,
            "rollbacks": self.rollbacks,
            **measured,
        }
        append_metrics(self.run, line, durable=durable)
        self.loss = measured["loss"]  # pyright: ignore[reportAttributeAccessIssue]

    def _report(self) -> None:
        self.report.write(Status(self.images, self.clock.speed, self.clock.seconds))
        self.reported = time.monotonic()

    # Checkpoints

    def _averages(self) -> list[Average]:
        return [
            Average(self.images, sigma_rel, self.ema.tensors(number))
            for number, sigma_rel in enumerate(self.ema.sigma_rels)
        ]

    def _save(self, *, scheduled: bool) -> Saved:
        window: list[Json] = [record.to_json() for record in self.window.read()]
        progress = store.Progress(self.images, scheduled, self.settled, self.rollbacks, self.clock.seconds, window)
        state = {name: tensor for optimizer in self.optimizers for name, tensor in optimizer.tensors().items()}
        path = store.save(self.run, progress, self.task.state_dict(), state, self._averages())
        self.saved = self.images
        store.prune(self.run)
        return Saved(self.images, path)

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.task.load_state_dict(store.load(checkpoint, store.TASK))
            state = store.load(checkpoint, store.OPTIMIZER)
            for optimizer in self.optimizers:
                optimizer.load(state)
            for number, average in enumerate(store.load_averages(checkpoint)):
                self.ema.load(number, average.tensors)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Refused(f"{checkpoint.path} does not fit this model ({reason}); train anew with --fresh") from error
        self.window = Window(StepRecord.from_json(record) for record in checkpoint.window)
        self.images, self.settled, self.saved = checkpoint.images, checkpoint.settled, checkpoint.images

    def _roll_back(self, bad: StepRecord) -> RolledBack:
        files = self.batches.files(range(bad.first, bad.last))
        wrong = sorted({index for phase in bad.phases.values() for index in phase.suspects})
        suspects = [file for index in wrong for file in self.batches.files(range(index, index + 1))]
        if self.rollbacks == ROLLBACKS:
            self.run.log_event("gave_up", {"images": bad.last, "files": files, "suspects": suspects})
            named = ", ".join((suspects or files)[:3])
            raise Refused(
                f"the loss is not a number at {bad.last} images, also after {ROLLBACKS} returns at half the rate; "
                f"look at {named}, or train anew with --fresh and a lower rate than {self.optimizers[0].peak:g}"
            )
        target = self.run.scheduled()[0]
        factor = 0.5 ** (self.rollbacks + 1)
        event: dict[str, Json] = {"images": bad.last, "to": target.images, "factor": factor}
        self.run.log_event("rolled_back", {**event, "files": files, "suspects": suspects})
        self.rollbacks += 1
        self._restore(target)
        truncate_metrics(self.run, self.images)
        store.prune(self.run)
        return RolledBack(bad.last, target.images, factor, self.rollbacks, files, suspects)
