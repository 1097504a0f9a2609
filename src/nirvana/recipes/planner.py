"""From a folder and a budget to a plan: what this machine can do is measured, and the plan is what fits into both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from nirvana.data import Dataset, Wording
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.family import family_of
from nirvana.generate.spec import network_bytes
from nirvana.recipes.order import DEFAULT_MINUTES, MOST_IMAGES, Order
from nirvana.recipes.recipe import WIDTH, Recipe
from nirvana.recipes.rehearsal import Rehearsal, needed, rehearse
from nirvana.recipes.task import PictureBatches, PictureTask
from nirvana.train import memory
from nirvana.train.allocator import give_back
from nirvana.train.device import pick_precision
from nirvana.train.plan import TrainPlan

WIDTHS = ((32, 0), (48, 40_000), (64, 120_000), (96, 400_000), (128, 1_500_000))
"""Channels at the finest level, and the number of images from which on they are worth their time: while few are seen,
many pictures through a narrow network beat few through a wide one (docs/benchmarks.md)."""

SIZES = ((32, 0), (64, 2_000), (128, 1_000_000), (256, 10_000_000))
"""Side of the training pictures where the files are at least so large, and the number of images it is worth."""

GRIDS = 6
GRIDS_SHARE = 0.08
"""Of the budget, at most, for drawing sample grids on the way."""
SHORT, LONG = 0.0, 2.0
"""Seconds of steps that are tried where images are ordered, and where minutes are."""
HARDLY_LONGER, MOST_AT_ONCE = 1.25, 512
"""A batch is doubled, up to so many pictures, where a step then takes at most so many times as long."""
_BRIEF = 0.1
"""Seconds: a step that takes longer leaves no part of the machine idle."""
_TRYING = 0.05
"""Of the budget, at most, for trying larger batches; where that is not `LONG` seconds, none are tried."""
_SLACK = 0.98
_SMALLER = "choose a smaller --size or --width, or free memory"
_SNAPSHOTS = 3
"""The snapshots of a training take about the time of so many checkpoints."""

Make = Callable[[int | None], Recipe]
"""width (None: of the run it starts from) -> the recipe."""
Draw = Callable[[Recipe, Mapping[str, Tensor]], float]
MakeTask = Callable[[Recipe, TrainPlan], PictureTask]


@dataclass(frozen=True)
class Forecast:
    """What a plan will take: seconds of it all and of its steps alone, and bytes, of so many that are there."""

    seconds: float
    steps: float
    memory: int
    available: int

    def to_json(self) -> dict[str, Json]:
        """For `--json`."""
        return {
            "seconds": self.seconds,
            "step_seconds": self.steps,
            "memory_bytes": self.memory,
            "available_bytes": self.available,
        }


@dataclass(frozen=True)
class Planned:
    """A recipe, the plan of its training, and what is expected of it."""

    recipe: Recipe
    plan: TrainPlan
    forecast: Forecast


def plan_of(recipe: Recipe, images: int, order: Order, grids: int = GRIDS) -> TrainPlan:
    """The plan that shows the model of `recipe` this many images, with so many sample grids on the way."""
    between = max(images // grids, recipe.batch)
    return TrainPlan(
        images=images,
        batch=recipe.batch,
        accumulate=order.accumulate,
        lr=recipe.lr,
        warmup=int(recipe.warmup * images),
        decay=recipe.decay,
        checkpoint_every=min(between, 50_000),
        sample_every=between,
        seed=order.seed,
        precision=order.precision,
        compile=order.compile,
    )


@dataclass
class Planner:
    """Plans `order` on `data`. make: width -> recipe; task: recipe, plan -> a fresh task; draw: seconds of a grid.

    wording: of the captions, for a model of texts. begun: `time.monotonic()` when the budget began to run.
    """

    order: Order
    data: Dataset
    make: Make
    task: MakeTask
    draw: Draw
    device: torch.device
    begun: float
    wording: Wording | None = None

    def plan(self) -> Planned:
        """The plan. Refused where the memory does not hold it, or the budget not a single step."""
        if self.order.images is not None:
            recipe = self._recipe(self._width_for(self.order.images))
            seen = self._rehearse(recipe, SHORT)
            plan = self._plan_of(recipe, self.order.images)
            return Planned(recipe, plan, self._forecast(plan, seen))
        return self._fit(*self._filling(*self._choose()))

    @property
    def affordable(self) -> int:
        """How many images the budget holds through the narrowest network that is thought of: a few steps are tried."""
        return self._images(*self._narrowest)

    @cached_property
    def _narrowest(self) -> tuple[Recipe, Rehearsal]:
        recipe = self._recipe(self._width_for(0))
        return recipe, self._rehearse(recipe, LONG)

    def _recipe(self, width: int | None) -> Recipe:
        recipe = self.make(width)
        return recipe if self.order.batch is None else replace(recipe, batch=self.order.batch)

    def _width_for(self, images: int) -> int | None:
        """The width for so many images; None where the run that it starts from has one."""
        if self.order.width is not None:
            return self.order.width
        return None if self.order.start is not None else max(w for w, least in WIDTHS if images >= least)

    def _choose(self) -> tuple[Recipe, Rehearsal]:
        """The widest network that still sees the images it needs: a wider one is tried only where it may."""
        recipe, seen = self._narrowest
        if self.order.width is not None or self.order.start is not None:
            return recipe, seen
        width = WIDTH
        for wider, least in WIDTHS[1:]:
            # Time grows more slowly than the square of the width: who fails even so is not tried.
            if self._images(recipe, seen) * (width / wider) ** 1.5 < least:
                break
            candidate = self._recipe(wider)
            try:
                tried = self._rehearse(candidate, LONG)
            except Refused:  # too wide for the memory, and the one before is not
                break
            if self._images(candidate, tried) < least:
                break
            width, recipe, seen = wider, candidate, tried
        return recipe, seen

    def _filling(self, recipe: Recipe, seen: Rehearsal) -> tuple[Recipe, Rehearsal]:
        """The batch doubled as long as that takes hardly longer: more pictures in as many steps of a large device."""
        trying = _TRYING * 60 * (self.order.minutes or DEFAULT_MINUTES)
        if self.order.batch is not None or trying < LONG:
            return recipe, seen
        until = time.monotonic() + trying
        while seen.step < _BRIEF and recipe.batch < MOST_AT_ONCE and time.monotonic() < until:
            larger = replace(recipe, batch=2 * recipe.batch)
            try:
                tried = self._rehearse(larger, SHORT)
            except Refused:  # too many for the memory
                break
            if tried.step > HARDLY_LONGER * seen.step:
                break
            recipe, seen = larger, tried
        return recipe, seen

    def _rehearse(self, recipe: Recipe, seconds: float) -> Rehearsal:
        plan = self._plan_of(recipe, recipe.batch)
        give_back()  # what the rehearsal before this one freed is there for this one
        self._check_weights(recipe, plan)
        try:
            task = self.task(recipe, plan)
            self._check_memory(task, plan)
        except Exception as error:
            if not memory.exhausted(error):
                raise
            raise Refused(f"not even two pictures at a time fit into the memory: {_SMALLER}") from None
        batches = PictureBatches(self.data, self.order.seed, flip=recipe.flip, wording=self.wording)
        return rehearse(task, batches, plan, recipe.model, lambda weights: self.draw(recipe, weights), seconds=seconds)

    def _check_weights(self, recipe: Recipe, plan: TrainPlan) -> None:
        """Refused where the weights alone, with gradients and averages, would not fit: before any are made."""
        if family_of(recipe.model) != "diffusion":
            return
        weights, there = network_bytes(recipe.model), memory.available(self.device)
        if (need := weights * (4 + len(plan.ema))) > there:
            raise Refused(
                f"a network of {weights / 4e6:.0f} million numbers needs about {gib(need)} to be trained, and"
                f" {gib(there)} are free: {_SMALLER}"
            )

    def _check_memory(self, task: PictureTask, plan: TrainPlan) -> None:
        """Refused, with what would fit, where a step would not. A count, so that nothing is tried that may fail."""
        height, width, channels = self.data.images.shape[1:]
        need, there = needed(task, plan, (channels, height, width)), memory.available(task.device)
        part = -(-plan.batch // plan.accumulate)
        if need(part) <= there:
            return
        missing = f"a step of {part} pictures at once needs about {gib(need(part))}, and {gib(there)} are free"
        if need(1) > there:
            raise Refused(f"{missing}; not even one picture at a time fits: {_SMALLER}")
        fits = max(count for count in range(1, part + 1) if need(count) <= there)
        parts = 2 ** math.ceil(math.log2(plan.batch / fits))
        raise Refused(
            f"{missing}; give --accumulate {min(parts, plan.batch)} (the same training in less memory)"
            f" or --batch {fits}"
        )

    @cached_property
    def _precision(self) -> str:
        """The precision of the order. The quicker one is settled now: a training that goes on must not change it."""
        return str(pick_precision(self.order.precision, self.device)).removeprefix("torch.")

    def _plan_of(self, recipe: Recipe, images: int, grids: int = GRIDS) -> TrainPlan:
        return replace(plan_of(recipe, images, self.order, grids), precision=self._precision)

    def _left(self) -> float:
        """Seconds of the budget that are left, less a little for what cannot be foreseen."""
        minutes = self.order.minutes or DEFAULT_MINUTES
        return _SLACK * 60 * minutes - (time.monotonic() - self.begun)

    def _grids(self, seen: Rehearsal) -> int:
        minutes = self.order.minutes or DEFAULT_MINUTES
        return max(1, min(GRIDS, int(GRIDS_SHARE * 60 * minutes / seen.draw))) if seen.draw else GRIDS

    def _images(self, recipe: Recipe, seen: Rehearsal) -> int:
        """What the rest of the budget holds, beside grids and checkpoints: whole batches, at least one."""
        grids = self._grids(seen)
        rest = self._left() - grids * (seen.draw + seen.save) - _SNAPSHOTS * seen.save
        return min(MOST_IMAGES, max(1, int(rest / seen.step)) * recipe.batch)

    def _fit(self, recipe: Recipe, seen: Rehearsal) -> Planned:
        if self._left() < seen.step:
            minutes = self.order.minutes or DEFAULT_MINUTES
            spent = time.monotonic() - self.begun
            raise Refused(
                f"{minutes:g} minutes are too few: reading the pictures and trying a step took {spent:.0f} s already;"
                " give more, or --images"
            )
        plan = self._plan_of(recipe, self._images(recipe, seen), self._grids(seen))
        return Planned(recipe, plan, self._forecast(plan, seen))

    def _forecast(self, plan: TrainPlan, seen: Rehearsal) -> Forecast:
        steps = math.ceil(plan.images / plan.batch) * seen.step
        grids = max(1, round(plan.images / (plan.sample_every or plan.images)))
        saves = max(1, round(plan.images / (plan.checkpoint_every or plan.images))) + _SNAPSHOTS
        spent = time.monotonic() - self.begun
        free = memory.available(self.device) + memory.current(self.device)
        return Forecast(spent + steps + grids * seen.draw + saves * seen.save, steps, seen.memory, free)


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"


def size_for(native: int, images: int) -> int:
    """The side of the training pictures for files of about `native` pixels of which so many can be seen."""
    return max(size for size, least in SIZES if images >= least and (size <= native or size == SIZES[0][0]))
