"""Training a model of pictures: data, recipe, plan and run folder brought together. `nirvana train` is this."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from nirvana.condition import MASKED, PAIRED, Concat
from nirvana.data import DEFAULT_SIZE, Dataset, open_data, open_pairs
from nirvana.data.decisions import STORED, Decisions, read_decisions, stored
from nirvana.diffusion import Objective
from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.family import Parts, model_parts
from nirvana.generate.latent import any_sampler
from nirvana.generate.latent_spec import FAMILIES, GanParts, VaeParts
from nirvana.generate.model import find
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import PictureSampler, Sampler
from nirvana.generate.spec import ModelParts
from nirvana.latent import Evidence, Relativistic
from nirvana.modality import grid, to_png_bytes
from nirvana.recipes.descent import descended, descended_weights, take_over
from nirvana.recipes.descent import freeze as frozen
from nirvana.recipes.older import AdversarialTask, VariationalTask
from nirvana.recipes.order import DEFAULT_RECIPE, Order
from nirvana.recipes.planner import Forecast, Planner, size_for
from nirvana.recipes.recipe import RECIPES, Facts, Recipe, as_in
from nirvana.recipes.subject import Subject, check_frozen, remember, subject_in, subject_of
from nirvana.recipes.task import DiffusionTask, PictureBatches, PictureTask
from nirvana.recipes.translations import translations
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
    task: PictureTask
    batches: PictureBatches
    forecast: Forecast | None

    @property
    def parameters(self) -> int:
        """Of the networks and the conditioner."""
        return sum(parameter.numel() for parameter in self.task.modules.parameters())

    @property
    def passes(self) -> float:
        """How often each picture is seen."""
        return self.run.plan.images / len(self.data)

    def events(self) -> Iterator[Event]:
        """Train, from where the run stands, to the end of its plan."""
        return train(self.task, self.batches, self.run.plan, self.run, Hooks(sample=self._grid))

    def _grid(self, weights: Mapping[str, Tensor], images: int) -> bytes:
        """Pictures of fixed seeds with the averaged weights: a column a class or a caption, three rows.

        Of pairs, a column each: what is shown, what is drawn from it, what was wanted.
        """
        del images
        sampler, request = _grid_request(self.run.model_spec, weights, self.task.device, str(self.run.path))
        if self.data.inputs is not None:
            return translations(cast(Sampler, sampler), request, self.data, _GRID_COLUMNS)
        pictures = sampler.pictures(request)
        columns = request.n // _GRID_ROWS
        named = list(request.prompts or request.labels) or None
        return to_png_bytes(np.asarray(grid(pictures, columns=columns, column_labels=named)))


def _grid_request(
    spec: Mapping[str, Json], weights: Mapping[str, Tensor], device: torch.device, where: str
) -> tuple[PictureSampler[Any], SampleRequest]:
    parts = model_parts(spec)
    parts.load(weights, where)
    sampler = any_sampler(parts, device, where)
    columns = min(_GRID_COLUMNS, len(sampler.subjects) or 8)
    request = sampler.request(n=_GRID_ROWS * columns)
    return sampler, replace(request, labels=request.labels[:columns], prompts=request.prompts[:columns])


def prepare(
    order: Order,
    out: Path,
    *,
    fresh: bool = False,
    allow_bad: bool = False,
    command: str = "",
    spent: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    encoding: Callable[[int, int], None] = lambda _done, _total: None,
    say: Callable[[str], None] = lambda _: None,
) -> Training:
    """Open the data, plan, and create the run folder `out`, or take up the unfinished run there.

    spent: seconds of the budget that are gone already. `progress` hears how many pictures are read, `encoding` how many
    captions are encoded, `say` what takes a while. Refused, with no folder made, for whatever the user can mend.
    """
    begun = None if fresh or not (out / RUN).is_file() else RunFolder.open(out)
    order = _with_recipe(order, begun)
    if order.recipe in FAMILIES and (order.inpaint or order.target is not None):
        raise Refused(
            f"the recipe '{order.recipe}' sees no picture beside its own; leave --inpaint and --target out, or choose a"
            " recipe of a diffusion model"
        )
    begun_at, device = time.monotonic() - spent, pick_device(order.device)
    asked = order.condition in ("captions", "both")
    decisions = _decisions(begun, order)
    opened = (
        partial(open_data, order.source, decisions=decisions)
        if order.target is None
        else partial(open_pairs, order.source, order.target)
    )
    reader = partial(opened, allow_bad=allow_bad, captions=asked, progress=progress)
    parent = None
    # Once a checkpoint is there, the run it started from is not needed any more.
    if order.start is not None and (begun is None or begun.latest() is None):
        parent = RunFolder.open(find(order.start))
    if begun is not None:
        return _resumed(begun, order, reader, device, parent, command, encoding, decisions)
    data = reader(size=order.size)
    subject = subject_of(order, data, parent)
    check_frozen(order, subject)
    remember(subject, data, encoding)
    say("measuring this machine")
    planner = _planner(order, data, subject, device, parent, begun_at)
    size = _better_size(planner, order)
    if size != data.images.shape[1]:
        data = reader(size=size)
        planner = _planner(order, data, subject, device, parent, begun_at)
    planned = planner.plan()
    start = None if parent is None else descended_weights(parent, _facts(order, data, subject))
    # The model is built before its folder: nothing is left behind where that fails.
    task = make_task(planned.recipe, planned.recipe.model, planned.plan, device, start, order.freeze)
    run = RunFolder.open_or_create(
        out, order.to_json(), planned.plan, _manifest(data, decisions), planned.recipe.model, command, fresh=fresh
    )
    batches = PictureBatches(data, run.plan.seed, flip=planned.recipe.flip, wording=subject.wording)
    return Training(run, data, task, batches, planned.forecast)


def _with_recipe(order: Order, begun: RunFolder | None) -> Order:
    """The order with its recipe by name: as asked for, else of the run that goes on or that it starts from."""
    if order.recipe == "auto":
        kin = begun if begun is not None or order.start is None else RunFolder.open(find(order.start))
        order = replace(order, recipe=DEFAULT_RECIPE if kin is None else str(kin.config["recipe"]))
    if order.recipe not in RECIPES:
        raise unknown("recipe", order.recipe, RECIPES)
    return order


def _resumed(
    run: RunFolder,
    order: Order,
    reader: Callable[..., Dataset],
    device: torch.device,
    parent: RunFolder | None,
    command: str,
    encoding: Callable[[int, int], None],
    decisions: Decisions | None,
) -> Training:
    """The training that `run` holds. Its plan stands: what a budget in minutes allows was measured once."""
    size = cast("list[int]", run.model_spec["shape"])[-1] if order.size is None else order.size
    data = reader(size=size)
    same = RunFolder.open_or_create(
        run.path, order.to_json(), run.plan, _manifest(data, decisions), run.model_spec, command
    )
    subject = subject_in(same.model_spec, same.config)
    remember(subject, data, encoding)
    facts = as_in(_facts(order, data, subject), same.model_spec)
    recipe = RECIPES[order.recipe](facts)
    start = None if parent is None else descended_weights(parent, facts)
    task = make_task(recipe, same.model_spec, same.plan, device, start, order.freeze)
    batches = PictureBatches(data, same.plan.seed, flip=recipe.flip, wording=subject.wording)
    return Training(same, data, task, batches, None)


def _decisions(begun: RunFolder | None, order: Order) -> Decisions | None:
    """Those that a run began with; of a new one, those in the manifest it is ordered to obey."""
    if begun is not None and order.manifest is not None:
        return stored(begun.data)
    return None if order.manifest is None else read_decisions(Path(order.manifest).expanduser())


def _manifest(data: Dataset, decisions: Decisions | None) -> dict[str, Json]:
    """What the run folder holds about its data."""
    manifest = data.manifest.to_json()
    if data.inputs is not None:
        manifest["inputs"] = data.inputs.manifest.to_json()
    return manifest if decisions is None else {**manifest, STORED: decisions.to_json()}


def _facts(order: Order, data: Dataset, subject: Subject, width: int | None = None) -> Facts:
    size, channels = data.images.shape[1], data.images.shape[3]
    beside = None
    if order.inpaint:
        beside = Concat(MASKED, channels)
    elif data.inputs is not None:
        beside = Concat(PAIRED, data.inputs.images.shape[3])
    facts = Facts(
        size,
        channels,
        subject.names,
        encoder=subject.encoder,
        examples=subject.examples,
        concat=None if beside is None else beside.config(),
    )
    return facts if width is None else replace(facts, width=width)


def _planner(
    order: Order, data: Dataset, subject: Subject, device: torch.device, parent: RunFolder | None, begun_at: float
) -> Planner:
    def make(width: int | None) -> Recipe:
        facts = _facts(order, data, subject, width)
        if parent is None:
            return RECIPES[order.recipe](facts)
        recipe = RECIPES[order.recipe](as_in(facts, parent.model_spec))
        return replace(recipe, model=descended(recipe, parent, facts))

    def draw(recipe: Recipe, weights: Mapping[str, Tensor]) -> float:
        sampler, request = _grid_request(recipe.model, weights, device, "a trial")
        started = time.perf_counter()
        tried = min(_TRIED_STEPS, request.steps)
        sampler.pictures(replace(request, steps=tried))
        return (time.perf_counter() - started) * request.steps / tried

    def task(recipe: Recipe, plan: TrainPlan) -> PictureTask:
        return make_task(recipe, recipe.model, plan, device, freeze=order.freeze)

    return Planner(order, data, make, task, draw, device, begun_at, subject.wording)


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
    freeze: Sequence[str] = (),
) -> PictureTask:
    """The task of `recipe` with weights drawn from the seed, or taken from `start` where names and shapes fit.

    freeze: the parts that keep them.
    """
    with seeded(torch.device("cpu"), plan.seed, "weights"):
        parts = model_parts(spec)
    if start is not None:
        take_over(parts, start)
    frozen(parts, freeze)
    parts.modules().to(device)
    return task_of(recipe, parts, strata=plan.batch, compile=plan.compile)


def task_of(recipe: Recipe, parts: Parts, *, strata: int, compile: bool = False) -> PictureTask:
    """The task that trains `parts`, which must be where they will be trained, as `recipe` says."""
    decay = recipe.weight_decay
    match parts, recipe.objective(parts):
        case ModelParts(), Objective() as objective:
            return DiffusionTask(parts, objective, strata=strata, weight_decay=decay, compile=compile)
        case GanParts(), Relativistic() as objective:
            return AdversarialTask(parts, objective, weight_decay=decay, compile=compile)
        case VaeParts(), Evidence() as objective:
            return VariationalTask(parts, objective, weight_decay=decay, compile=compile)
        case _, objective:
            raise ValueError(f"{type(objective).__name__} is no objective for {type(parts).__name__}")
