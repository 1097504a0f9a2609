"""A training tried out for a few steps: how long they take, and how much memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from statistics import median
from typing import cast

import torch
from torch import Tensor

from nirvana.condition import PAIRED
from nirvana.files import Json
from nirvana.generate.spec import ModelParts
from nirvana.recipes.task import PictureBatches, Pictures, PictureTask
from nirvana.train import memory
from nirvana.train.device import seeded
from nirvana.train.events import Event, StepDone
from nirvana.train.loop import Hooks, train
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from nirvana.train.task import Position

_FAR = 10**9
_WARM_UP = 2
_PROBE = 2
"""Pictures of the step that memory is first judged by."""
_TRANSIENT = 1.25
"""A step holds so many times what it keeps for the gradients."""


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of a training showed.

    step: seconds of one; draw: seconds of a sample grid; save: seconds of a checkpoint; memory: the most bytes that
    the process (the device, where it is a GPU) held.
    """

    step: float
    draw: float
    save: float
    memory: int


@contextmanager
def elsewhere(plan: TrainPlan, spec: Mapping[str, Json], config: Mapping[str, Json]) -> Generator[RunFolder]:
    """A run folder for the loop to write to; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="nirvana-") as folder:
        yield RunFolder.create(Path(folder) / "run", config, plan, {}, spec, "")


def rehearse(
    task: PictureTask,
    batches: PictureBatches,
    plan: TrainPlan,
    spec: Mapping[str, Json],
    draw: Callable[[Mapping[str, Tensor]], float],
    *,
    seconds: float,
) -> Rehearsal:
    """Steps of the loop itself for about `seconds` (at least 3, of which the first `_WARM_UP` do not count), and a
    checkpoint; draw(weights) -> seconds of a sample grid. The weights of `task` move: give it one of its own.
    """
    far = replace(
        plan, images=plan.batch * _FAR, warmup=0, checkpoint_every=None, sample_every=None, read_every=_WARM_UP
    )
    memory.reset_peak(task.device)
    with elsewhere(far, spec, {}) as run:
        steps: list[float] = []
        events = cast("Generator[Event]", train(task, batches, far, run, Hooks()))
        with closing(events):
            begun = last = time.perf_counter()
            for event in events:
                now = time.perf_counter()
                if isinstance(event, StepDone):
                    steps.append(now - last)
                last = now
                if len(steps) > _WARM_UP and now - begun > seconds:
                    break
            drawing = draw(task.state_dict())
            drawn = time.perf_counter()
        saving = time.perf_counter() - drawn
    return Rehearsal(median(steps[_WARM_UP:]), drawing, saving, memory.peak(task.device))


def needed(task: PictureTask, plan: TrainPlan, shape: tuple[int, ...]) -> Callable[[int], int]:
    """part -> about how many more bytes training needs where `part` pictures are computed at once.

    The weights' gradients, the optimiser's two averages and those of the plan, and `_TRANSIENT` times the tensors that
    the largest phase keeps for its gradients: counted on a step of `_PROBE` pictures, they grow with the pictures.
    """
    trained = sum(tensor.nbytes for phase in task.phases for tensor in phase.parameters.values())
    averaged = sum(tensor.nbytes for tensor in task.ema_parameters().values())
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {tensor.untyped_storage().data_ptr() for tensor in task.state_dict().values()}
    with (
        seeded(task.device, plan.seed, "memory"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        texts = tuple(islice(cycle(task.parts.conditioner.examples), _PROBE))
        labels = torch.zeros(_PROBE, dtype=torch.int64)
        batch = Pictures(torch.zeros(_PROBE, *shape, dtype=torch.uint8), labels, texts, _inputs(task, shape))
        most = 0
        for phase in task.phases:
            kept.clear()
            loss = task.loss(phase, batch, Position(plan.seed, range(_PROBE), 0))
            most = max(most, sum(size for pointer, size in kept.items() if pointer not in own))
            del loss
    fixed = 3 * trained + len(plan.ema) * averaged
    return lambda part: fixed + ceil(_TRANSIENT * most * part / _PROBE)


def _inputs(task: PictureTask, shape: tuple[int, ...]) -> Tensor | None:
    """Black inputs for a model of pairs."""
    concat = task.parts.concat if isinstance(task.parts, ModelParts) else None
    if concat is None or concat.kind != PAIRED:
        return None
    return torch.zeros(_PROBE, concat.channels, *shape[1:], dtype=torch.uint8)
