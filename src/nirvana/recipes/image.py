"""Training a model of pictures: data, recipe, plan and run folder brought together. `nirvana train` is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nirvana.data import DEFAULT_SIZE, Dataset, open_data
from nirvana.data.decisions import STORED, Decisions, read_decisions, stored
from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.model import find
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.generate.spec import ModelParts, build
from nirvana.modality import grid, to_png_bytes
from nirvana.recipes.order import Order
from nirvana.recipes.planner import Forecast, Planner, size_for
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.recipes.task import DiffusionTask, PictureBatches
from nirvana.train.checkpoint import load_weights
from nirvana.train.device import pick_device, seeded
from nirvana.train.events import Event
from nirvana.train.loop import Hooks, train
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RUN, RunFolder

_GRID_ROWS, _GRID_COLUMNS = 3, 10
_TRIED_STEPS = 2
"""Sampling steps by which the time of a grid is judged."""


@dataclass(frozen=True, eq=False)
class Training:
    """A training ready to go: iterate `events()`; the folder is at `run.path`.

    forecast: what it will take; None where it goes on.
    """

    run: RunFolder
    data: Dataset
    task: DiffusionTask
    batches: PictureBatches
    forecast: Forecast | None

    @property
    def parameters(self) -> int:
        """Of the network and the conditioner."""
        return sum(parameter.numel() for parameter in self.task.phases[0].parameters.values())

    @property
    def passes(self) -> float:
        """How often each picture is seen."""
        return self.run.plan.images / len(self.data)

    def events(self) -> Iterator[Event]:
        """Train, from where the run stands, to the end of its plan."""
        return train(self.task, self.batches, self.run.plan, self.run, Hooks(sample=self._grid))

    def _grid(self, weights: Mapping[str, Tensor], images: int) -> bytes:
        """Pictures of fixed seeds with the averaged weights: a column a class, three rows."""
        del images
        sampler, request = _grid_request(self.run.model_spec, weights, self.task.device, str(self.run.path))
        pictures = sampler.pictures(request)
        columns = request.n // _GRID_ROWS
        return to_png_bytes(np.asarray(grid(pictures, columns=columns, column_labels=list(request.labels) or None)))


def _grid_request(
    spec: Mapping[str, Json], weights: Mapping[str, Tensor], device: torch.device, where: str
) -> tuple[Sampler, SampleRequest]:
    parts = build(spec)
    parts.load(weights, where)
    sampler = Sampler(parts, device, where)
    columns = min(_GRID_COLUMNS, len(sampler.labels) or 8)
    return sampler, replace(sampler.request(n=_GRID_ROWS * columns), labels=sampler.labels[:columns])


def prepare(
    order: Order,
    out: Path,
    *,
    fresh: bool = False,
    allow_bad: bool = False,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Training:
    """Open the data, plan, and create the run folder `out`, or take up the unfinished run there.

    `say` hears what takes a while. Refused, with no folder made, for whatever the user can mend.
    """
    if order.recipe not in RECIPES:
        raise unknown("recipe", order.recipe, RECIPES)
    begun_at, device = time.monotonic(), pick_device(order.device)
    begun = None if fresh or not (out / RUN).is_file() else RunFolder.open(out)
    decisions = _decisions(begun, order)
    reader = partial(open_data, order.source, allow_bad=allow_bad, progress=progress, decisions=decisions)
    parent = None
    # Once a checkpoint is there, the run it started from is not needed any more.
    if order.start is not None and (begun is None or begun.latest() is None):
        parent = RunFolder.open(find(order.start))
    if begun is not None:
        return _resumed(begun, order, reader, device, parent, command, decisions)
    data = reader(size=order.size)
    say("measuring this machine")
    planner = _planner(order, data, device, parent, begun_at)
    size = _better_size(planner, order)
    if size != data.images.shape[1]:
        data = reader(size=size)
        planner = _planner(order, data, device, parent, begun_at)
    planned = planner.plan()
    start = None if parent is None else _descended_weights(parent, _facts(data, None))
    # The model is built before its folder: nothing is left behind where that fails.
    task = make_task(planned.recipe, planned.recipe.model, planned.plan, device, start)
    run = RunFolder.open_or_create(
        out, order.to_json(), planned.plan, _manifest(data, decisions), planned.recipe.model, command, fresh=fresh
    )
    batches = PictureBatches(data, run.plan.seed, flip=planned.recipe.flip)
    return Training(run, data, task, batches, planned.forecast)


def _resumed(
    run: RunFolder,
    order: Order,
    reader: Callable[..., Dataset],
    device: torch.device,
    parent: RunFolder | None,
    command: str,
    decisions: Decisions | None,
) -> Training:
    """The training that `run` holds. Its plan stands: what a budget in minutes allows was measured once."""
    size = cast("list[int]", run.model_spec["shape"])[-1] if order.size is None else order.size
    data = reader(size=size)
    same = RunFolder.open_or_create(
        run.path, order.to_json(), run.plan, _manifest(data, decisions), run.model_spec, command
    )
    facts = _facts(data, None)
    recipe = RECIPES[order.recipe](facts)
    start = None if parent is None else _descended_weights(parent, facts)
    task = make_task(recipe, same.model_spec, same.plan, device, start)
    return Training(same, data, task, PictureBatches(data, same.plan.seed, flip=recipe.flip), None)


def _decisions(begun: RunFolder | None, order: Order) -> Decisions | None:
    """Those that a run began with; of a new one, those in the manifest it is ordered to obey."""
    if begun is not None and order.manifest is not None:
        return stored(begun.data)
    return None if order.manifest is None else read_decisions(Path(order.manifest).expanduser())


def _manifest(data: Dataset, decisions: Decisions | None) -> dict[str, Json]:
    """What the run folder holds about its data."""
    manifest = data.manifest.to_json()
    return manifest if decisions is None else {**manifest, STORED: decisions.to_json()}


def _facts(data: Dataset, width: int | None) -> Facts:
    names = data.names if data.labels is not None else ()
    facts = Facts(data.images.shape[1], data.images.shape[3], names)
    return facts if width is None else replace(facts, width=width)


def _planner(order: Order, data: Dataset, device: torch.device, parent: RunFolder | None, begun_at: float) -> Planner:
    def make(width: int | None) -> Recipe:
        facts = _facts(data, width)
        recipe = RECIPES[order.recipe](facts)
        return recipe if parent is None else replace(recipe, model=_descended(recipe, parent, facts))

    def draw(recipe: Recipe, weights: Mapping[str, Tensor]) -> float:
        sampler, request = _grid_request(recipe.model, weights, device, "a trial")
        started = time.perf_counter()
        sampler.pictures(replace(request, steps=_TRIED_STEPS))
        return (time.perf_counter() - started) * request.steps / _TRIED_STEPS

    def task(recipe: Recipe, plan: TrainPlan) -> DiffusionTask:
        return make_task(recipe, recipe.model, plan, device)

    return Planner(order, data, make, task, draw, device, begun_at)


def _better_size(planner: Planner, order: Order) -> int:
    """The side that the budget is best spent on, where the order leaves it open and the files are large enough."""
    size = planner.data.images.shape[1]
    if order.size is not None or order.images is not None or order.start is not None or size < DEFAULT_SIZE:
        return size
    return size_for(planner.data.manifest.native_side, planner.affordable)


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
    return DiffusionTask(
        parts,
        recipe.objective(parts),
        strata=plan.batch,
        weight_decay=recipe.weight_decay,
        compile=plan.compile,
    )


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
