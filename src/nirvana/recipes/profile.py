"""Where the time of a run goes: a training step and a sampling step of it, measured. `nirvana profile` is this."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from nirvana.data import Dataset, open_data, open_pairs
from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.family import model_parts
from nirvana.generate.latent import any_sampler
from nirvana.generate.model import find
from nirvana.recipes.image import make_task
from nirvana.recipes.recipe import RECIPES, Facts, Recipe, as_in
from nirvana.recipes.rehearsal import elsewhere
from nirvana.recipes.subject import subject_in
from nirvana.recipes.task import PictureBatches, PictureTask
from nirvana.train.checkpoint import OPTIMIZER, load, load_weights, newest
from nirvana.train.device import pick_device
from nirvana.train.events import Event, StepDone
from nirvana.train.loop import train
from nirvana.train.plan import TrainPlan
from nirvana.train.profile import StepProfile, Stopwatch, TimedBatches, convolution_ceiling, measure
from nirvana.train.run import RunFolder
from nirvana.zoo import called

PICTURES = 16
"""Pictures in a sampling step, where the user does not say (or fewer, as sampling chooses)."""
BUDGET = 4.0
"""Seconds that the steps of each half are timed for."""
_STEPS = 10**6
"""So far away is the end of the training that is measured: nothing of it is due but steps."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a training holds: weights, their gradients, the optimiser's state, the averages."""

    weights: int
    gradients: int
    optimiser: int
    averages: int


@dataclass(frozen=True)
class Half:
    """A measured step of `batch` pictures.

    ceiling: FLOP/s that a convolution reaches on this machine in the precision of the step. how: what the step is
    made by, in words. steps: as many make a picture. sizes: what the training holds.
    """

    batch: int
    step: StepProfile
    ceiling: float
    how: str = ""
    steps: int = 1
    sizes: Sizes | None = None

    @property
    def pictures_per_second(self) -> float:
        """Pictures trained on, or made in all their steps."""
        return self.batch / (self.steps * self.step.seconds)

    def of_ceiling(self, kind: str | None = None) -> float:
        """The share of the ceiling that the whole step, or its operations of `kind`, reach."""
        row = self.step.total if kind is None else self.step.row(kind)
        return row.flops / row.seconds / self.ceiling if row.seconds else 0.0

    def to_json(self) -> dict[str, Json]:
        """Everything that was measured."""
        sizes: Json = None if self.sizes is None else dict(vars(self.sizes))
        return {
            "batch": self.batch,
            "how": self.how,
            "steps": self.steps,
            "pictures_per_second": self.pictures_per_second,
            "ceiling_gflops_per_second": self.ceiling / 1e9,
            "of_ceiling": self.of_ceiling(),
            **self.step.to_json(),
            "sizes_bytes": sizes,
        }


@dataclass(frozen=True)
class RunProfile:
    """A run's training step and sampling step; None where it cannot be run, with the reason in `missing`."""

    path: Path
    shape: tuple[int, ...]
    parameters: int
    device: str
    threads: int
    training: Half | None
    sampling: Half | None
    missing: Mapping[str, str]

    def to_json(self) -> dict[str, Json]:
        """What `nirvana profile --json` prints."""
        return {
            "run": str(self.path),
            "shape": list(self.shape),
            "parameters": self.parameters,
            "device": self.device,
            "threads": self.threads,
            "training": None if self.training is None else self.training.to_json(),
            "sampling": None if self.sampling is None else self.sampling.to_json(),
            "missing": dict(self.missing),
        }


def profile_run(
    name: str, *, batch: int | None = None, device: str = "auto", budget: float = BUDGET, say: Say = lambda _: None
) -> RunProfile:
    """Measure both halves of the run called `name`, which is only read: it may be in training.

    The training step needs the data, the sampling step a checkpoint: where one is not there, the other is measured.
    Refused where it is no run, or where neither can be measured.
    """
    if batch is not None and batch < 1:
        raise Refused(f"--batch must be at least 1, got {batch}")
    run, where = RunFolder.open(find(name)), pick_device(device)
    missing: dict[str, str] = {}
    sampling = training = None
    # Sampling first: it holds less, so that its memory is not hidden by that of training.
    try:
        say("measuring a sampling step")
        sampling = _sampling(run, where, batch, budget)
    except Refused as refusal:
        missing["sampling"] = str(refusal)
    try:
        say("reading the data")
        data = _data(run)
    except Refused as refusal:
        missing["training"] = str(refusal)
    else:
        say("measuring a training step")
        training = _training(run, data, where, batch, budget)
    if len(missing) == 2:
        raise Refused(
            f"nothing of {called(run.path)} can be measured: {missing['training']}; and {missing['sampling']}"
        )
    parts = model_parts(run.model_spec)
    parameters = sum(tensor.numel() for tensor in parts.modules().parameters())
    return RunProfile(
        path=run.path,
        shape=parts.shape,
        parameters=parameters,
        device=str(where),
        threads=torch.get_num_threads(),
        training=_with_the_best_ceiling(training, sampling),
        sampling=_with_the_best_ceiling(sampling, training),
        missing=missing,
    )


def _with_the_best_ceiling(half: Half | None, other: Half | None) -> Half | None:
    """`half` with the higher of the two ceilings, where both are of one precision: neighbours only ever slow."""
    if half is None or other is None or half.step.dtype != other.step.dtype:
        return half
    return replace(half, ceiling=max(half.ceiling, other.ceiling))


def _sampling(run: RunFolder, device: torch.device, batch: int | None, budget: float) -> Half:
    """A step as `generate` makes it: the run's averaged weights, recommended solver and guidance."""
    parts = model_parts(run.model_spec)
    parts.load(load_weights(run), str(run.path))
    sampler = any_sampler(parts, device, str(run.path))
    pictures = min(PICTURES, sampler.request().batch) if batch is None else batch
    request = sampler.request(n=pictures, batch=pictures)

    def previews() -> Iterator[object]:
        while True:
            yield from sampler.stream(request)

    steps, fresh = previews(), sampler.stream(request)
    if request.steps > 1:
        next(fresh)  # the first step also draws the noise and the condition; the second one is as all others
    step = measure(lambda: next(steps), device, budget=budget, counted=lambda: next(fresh))
    guided = f", guidance {request.guidance:g}" if request.guidance != 1 else ""
    return Half(pictures, step, convolution_ceiling(device, step.dtype), f"{request.solver}{guided}", request.steps)


def _training(run: RunFolder, data: Dataset, device: torch.device, batch: int | None, budget: float) -> Half:
    """A step of the training loop itself, with the run's data, weights and plan."""
    recipe, size = _recipe(run), batch or run.plan.batch
    watch = Stopwatch()
    wording = subject_in(run.model_spec, run.config).wording
    batches = TimedBatches(PictureBatches(data, run.plan.seed, flip=recipe.flip, wording=wording), watch)
    # What is compiled has no kinds any more: the operations are measured one by one.
    how = "single operations, though the run compiles them" if run.plan.compile else ""
    rest = replace(run.plan, compile=False, warmup=0, checkpoint_every=None, sample_every=None, read_every=_STEPS)
    plan = replace(rest, images=size * _STEPS, batch=size)
    task = make_task(recipe, run.model_spec, plan, device, freeze=cast("list[str]", run.config.get("freeze", [])))
    if run.latest() is not None:
        task.load_state_dict(load_weights(run, "ema" if newest(run).packed else "raw"))
    with elsewhere(plan, run.model_spec, run.config) as copy:
        with closing(cast("Generator[Event]", train(task, batches, plan, copy))) as events:
            steps = (event for event in events if isinstance(event, StepDone))
            step = measure(lambda: next(steps), device, watch, budget)
        sizes = _sizes(task, plan, load(newest(copy), OPTIMIZER))
    return Half(size, step, convolution_ceiling(device, step.dtype), how, sizes=sizes)


def _sizes(task: PictureTask, plan: TrainPlan, optimiser: Mapping[str, Tensor]) -> Sizes:
    weights = [tensor for phase in task.phases for tensor in phase.parameters.values()]
    return Sizes(
        weights=_bytes(weights),
        gradients=_bytes(tensor for tensor in weights if tensor.requires_grad),
        optimiser=_bytes(optimiser.values()),
        averages=len(plan.ema) * _bytes(task.ema_parameters().values()),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _recipe(run: RunFolder) -> Recipe:
    """The recipe that made `run`: its objective and its flips, which the model's description does not hold."""
    name = str(run.config.get("recipe"))
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name](facts_in(run.model_spec))


def facts_in(spec: Mapping[str, Json]) -> Facts:
    """What the recipe of a described model looked at."""
    shape, subject = cast("list[int]", spec["shape"]), subject_in(spec)
    concat = cast("Mapping[str, Json] | None", spec.get("concat"))
    facts = Facts(shape[-1], shape[0], subject.names, encoder=subject.encoder, examples=subject.examples, concat=concat)
    return as_in(facts, spec)


def _data(run: RunFolder) -> Dataset:
    """The pictures of `run`. Refused, naming the source, where they are gone or are others by now."""
    parts, source, target = model_parts(run.model_spec), run.config.get("source"), run.config.get("target")
    if not isinstance(source, str):
        raise Refused(f"{called(run.path)} does not say what it was trained on, so no training step can be measured")
    try:
        # The side that the plan chose, where the command left it open.
        opened = partial(open_data, source) if target is None else partial(open_pairs, source, str(target))
        data = opened(size=parts.shape[-1], allow_bad=True)
    except Refused as refusal:
        raise Refused(f"the data of {called(run.path)} cannot be read ({refusal})") from None
    height, width, channels = data.images.shape[1:]
    known = parts.conditioner.names
    if parts.shape != (channels, height, width) or (known and data.names != known):
        raise Refused(f"the data of {called(run.path)} have changed: {source} has other pictures or labels than it had")
    return data
