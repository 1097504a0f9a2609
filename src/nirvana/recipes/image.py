"""Training a model of pictures: data, recipe, plan and run folder brought together. `nirvana train` is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nirvana.data import Dataset, open_data
from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.model import find
from nirvana.generate.sampler import Sampler
from nirvana.generate.spec import ModelParts, build
from nirvana.modality import grid, to_png_bytes
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.recipes.task import DiffusionTask, PictureBatches
from nirvana.train.checkpoint import load_weights
from nirvana.train.device import pick_device, seeded
from nirvana.train.events import Event
from nirvana.train.loop import Hooks, train
from nirvana.train.optimizer import PhaseOptimizer
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RUN, RunFolder
from nirvana.train.task import Position

DEFAULT_MINUTES = 10.0
IMAGES_PER_MINUTE = 10_000
MOST_MINUTES = 366 * 24 * 60.0
MOST_IMAGES = 10**12
_GRID_ROWS = 3
_TRAINING_SHARE = 0.93
"""Of a budget in minutes: the rest goes to sample grids, checkpoints and the report."""


@dataclass(frozen=True)
class Order:
    """What the user asked for. images or minutes, or neither (then `DEFAULT_MINUTES`); `start`: the run of `--from`."""

    source: str
    size: int | None = None
    images: int | None = None
    minutes: float | None = None
    recipe: str = next(iter(RECIPES))
    start: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)
        if self.images is not None and self.minutes is not None:
            raise Refused("both --images and --minutes were given; one of them decides how long training takes")
        if self.images is not None and not 1 <= self.images <= MOST_IMAGES:
            raise Refused(f"--images must be 1 to {MOST_IMAGES}, got {self.images}")
        if self.minutes is not None and not 0 < self.minutes <= MOST_MINUTES:
            raise Refused(f"--minutes must be more than 0 and at most a year, got {self.minutes:g}")
        if not 0 <= self.seed < 2**63:
            raise Refused(f"--seed must be in 0..2^63-1, got {self.seed}")

    @property
    def about_minutes(self) -> float:
        """How long training may take; of a number of images, about how long it takes on two cores."""
        return self.images / IMAGES_PER_MINUTE if self.images is not None else self.minutes or DEFAULT_MINUTES

    def to_json(self) -> dict[str, Json]:
        """What the run folder stores, and compares with when the command is given again."""
        return {
            "source": self.source,
            "size": self.size,
            "images": self.images,
            "minutes": self.minutes,
            "recipe": self.recipe,
            "from": self.start,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Training:
    """A training ready to go: iterate `events()`; the folder is at `run.path`."""

    run: RunFolder
    data: Dataset
    task: DiffusionTask
    batches: PictureBatches

    def summary(self) -> str:
        """The plan in one line."""
        count, height, width, channels = self.data.images.shape
        kind = "grey" if channels == 1 else "colour"
        classes = f" in {len(self.data.names)} classes" if self.data.labels is not None else ""
        size = sum(parameter.numel() for parameter in self.task.phases[0].parameters.values()) / 1e6
        return (
            f"{count} {kind} pictures of {width}x{height}{classes}; a network of {size:.1f} million parameters"
            f" sees {self.run.plan.images} images in batches of {self.run.plan.batch}"
        )

    def events(self) -> Iterator[Event]:
        """Train, from where the run stands, to the end of its plan."""
        return train(self.task, self.batches, self.run.plan, self.run, Hooks(sample=self._grid))

    def _grid(self, weights: Mapping[str, Tensor], images: int) -> bytes:
        """Pictures of fixed seeds with the averaged weights: a column a class (at most 10), three rows."""
        del images
        parts = build(self.run.model_spec)
        parts.load(weights, str(self.run.path))
        sampler = Sampler(parts, self.task.device, str(self.run.path))
        columns = min(10, len(sampler.labels) or 8)
        request = replace(sampler.request(n=_GRID_ROWS * columns), labels=sampler.labels[:columns])
        pictures = sampler.pictures(request)
        return to_png_bytes(np.asarray(grid(pictures, columns=columns, column_labels=list(request.labels) or None)))


def prepare(
    order: Order,
    out: Path,
    *,
    fresh: bool = False,
    allow_bad: bool = False,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Training:
    """Open the data, plan, and create the run folder `out`, or take up the unfinished run there.

    Refused, with no folder made, for whatever the user can mend.
    """
    data = open_data(order.source, size=order.size, allow_bad=allow_bad, progress=progress)
    device = pick_device()
    names = data.names if data.labels is not None else ()
    facts = Facts(data.images.shape[1], data.images.shape[3], names, order.about_minutes)
    recipe, start = RECIPES[order.recipe](facts), None
    begun = None if fresh or not (out / RUN).is_file() else RunFolder.open(out)
    # Once a checkpoint is there, the run it started from is not needed any more.
    if order.start is not None and (begun is None or begun.latest() is None):
        parent = RunFolder.open(find(order.start))
        recipe = replace(recipe, model=_descended(recipe, parent, facts))
        start = _descended_weights(parent, facts)
    # The plan of a run stands: what a budget in minutes allows was measured once.
    plan = begun.plan if begun is not None else plan_of(recipe, _images(order, recipe, data, device), order.seed)
    # A new model is built before its folder: nothing is left behind where that fails.
    task = make_task(recipe, recipe.model, plan, device, start) if begun is None else None
    run = RunFolder.open_or_create(
        out, order.to_json(), plan, data.manifest.to_json(), recipe.model, command, fresh=fresh
    )
    if task is None:
        task = make_task(recipe, run.model_spec, run.plan, device, start)
    return Training(run, data, task, PictureBatches(data, run.plan.seed, flip=recipe.flip))


def plan_of(recipe: Recipe, images: int, seed: int) -> TrainPlan:
    """The plan that shows the model of `recipe` this many images."""
    grids = max(images // 6, recipe.batch)
    return TrainPlan(
        images=images,
        batch=recipe.batch,
        lr=recipe.lr,
        warmup=int(recipe.warmup * images),
        decay=recipe.decay,
        checkpoint_every=min(grids, 50_000),
        sample_every=grids,
        seed=seed,
    )


def make_task(
    recipe: Recipe,
    spec: Mapping[str, Json],
    plan: TrainPlan,
    device: torch.device,
    start: Mapping[str, Tensor] | None = None,
) -> DiffusionTask:
    """The task of `recipe` with weights drawn from the seed, or taken from `start` where names and shapes fit."""
    with seeded(torch.device("cpu"), plan.seed, "weights"):
        parts = build(spec)
    if start is not None:
        _take_over(parts, start)
    parts.modules().to(device)
    return DiffusionTask(parts, recipe.objective(parts), strata=plan.batch, weight_decay=recipe.weight_decay)


def _descended(recipe: Recipe, parent: RunFolder, facts: Facts) -> dict[str, Json]:
    """The description of a model that starts from `parent`: its network and levels, these classes and this size."""
    before = parent.model_spec
    shape = cast("list[int]", before["shape"])
    if shape[0] != facts.channels:
        raise Refused(
            f"{parent.path} makes pictures of {shape[0]} channels, and these have {facts.channels};"
            " start from a run of the same kind of pictures, or leave --from out"
        )
    for name in ("parameterization", "native", "c_in", "c_noise", "schedule", "learned_variance"):
        if before[name] != recipe.model[name]:
            raise Refused(
                f"{parent.path} was trained with {name} {before[name]}, and the recipe has {recipe.model[name]};"
                " choose the recipe it was trained with"
            )
    vector = cast("Mapping[str, Json]", recipe.model["network"])["vector_dim"]
    network = {**cast("Mapping[str, Json]", before["network"]), "vector_dim": vector}
    return {**recipe.model, "network": network, "sigma_data": before["sigma_data"]}


def _descended_weights(parent: RunFolder, facts: Facts) -> dict[str, Tensor]:
    """The averaged weights of `parent`, the rows of its label table named by these classes."""
    weights = dict(load_weights(parent))
    table = weights.pop(_TABLE, None)
    conditioner = cast("Mapping[str, Json]", parent.model_spec["conditioner"])
    known = cast("list[str]", conditioner.get("names", []))
    if table is not None:
        weights[_NULL] = table[-1]
        for row, name in enumerate(facts.names):
            if name in known:
                weights[f"{_ROW}{row}"] = table[known.index(name)]
    return weights


_TABLE = "conditioner.embedding.weight"
_NULL, _ROW = f"{_TABLE}/null", f"{_TABLE}/"


def _take_over(parts: ModelParts, start: Mapping[str, Tensor]) -> None:
    """Copy `start` into the model. A class the parent did not know begins at the parent's null class."""
    own = parts.modules().state_dict()
    for name, tensor in own.items():
        if name == _TABLE and _NULL in start:
            rows = [start.get(f"{_ROW}{row}", start[_NULL]) for row in range(len(tensor) - 1)]
            tensor.copy_(torch.stack([*rows, start[_NULL]]))
        elif name in start and start[name].shape == tensor.shape:
            tensor.copy_(start[name])


def _images(order: Order, recipe: Recipe, data: Dataset, device: torch.device) -> int:
    """How many images to train on: those asked for, or what the minutes allow, measured on a few steps (>= a batch)."""
    if order.images is not None:
        return order.images
    minutes = order.minutes or DEFAULT_MINUTES
    plan = plan_of(recipe, recipe.batch * 8, 0)
    task = make_task(recipe, recipe.model, plan, device)
    batches = PictureBatches(data, 0, flip=recipe.flip)
    phase = task.phases[0]
    optimizer = PhaseOptimizer(phase, plan)
    seconds: list[float] = []
    started = time.perf_counter()
    while len(seconds) < 3 or (len(seconds) < 8 and time.perf_counter() - started < 5.0):
        begin = time.perf_counter()
        indices = range(len(seconds) * plan.batch, (len(seconds) + 1) * plan.batch)
        loss = task.loss(phase, batches.batch(indices), Position(0, indices, indices.start))
        optimizer.backward(loss.total)
        optimizer.step(optimizer.peak)
        float(loss.total.detach())
        seconds.append(time.perf_counter() - begin)
    step = sorted(seconds[1:])[len(seconds[1:]) // 2]
    steps = max(1, int(_TRAINING_SHARE * 60 * minutes / step))
    return min(steps * plan.batch, MOST_IMAGES)
