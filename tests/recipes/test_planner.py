"""Plans: a rehearsal with known figures must become exactly the plan that arithmetic gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from nirvana.data import open_data
from nirvana.errors import Refused
from nirvana.recipes import planner
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import Planned, Planner, gib, plan_of, size_for
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.recipes.rehearsal import Rehearsal
from nirvana.train.plan import TrainPlan

DATA = open_data("digits")
CPU = torch.device("cpu")
NOW = 1000.0
_FLOW = RECIPES["flow"](Facts(8, 1, DATA.names, width=8))
TINY = make_task(_FLOW, _FLOW.model, plan_of(_FLOW, 8, Order("digits")), CPU)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget began 10 seconds ago, and memory is plenty."""
    monkeypatch.setattr(planner.time, "monotonic", lambda: NOW + 10)
    monkeypatch.setattr(planner.memory, "available", lambda _: 10**12)
    monkeypatch.setattr(planner.memory, "current", lambda _: 10**9)


def a_planner(order: Order, seen: Callable[[int], Rehearsal], monkeypatch: pytest.MonkeyPatch) -> Planner:
    """A planner that believes to see `seen(width)`, and has one task."""
    monkeypatch.setattr(planner, "rehearse", lambda _t, _b, _p, spec, _d, **_: seen(spec["network"]["width"]))
    monkeypatch.setattr(planner, "needed", lambda *_: lambda part: part)
    facts = Facts(8, 1, DATA.names)

    def make(width: int | None) -> Recipe:
        return RECIPES["flow"](facts if width is None else replace(facts, width=width))

    return Planner(order, DATA, make, lambda *_: TINY, lambda *_: 0.0, CPU, NOW)


def width_of(recipe: Recipe) -> int:
    network: Any = recipe.model["network"]
    return network["width"]


def test_the_images_fill_what_reading_grids_and_checkpoints_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Rehearsal(step=0.5, draw=2.0, save=1.0, memory=7)
    planned = a_planner(Order("digits", minutes=10.0, width=32), lambda _: seen, monkeypatch).plan()
    # 600 s, a fiftieth kept back, 10 gone; 6 grids and as many checkpoints of 3 s together, and 3 s of snapshots.
    steps = int((0.98 * 600 - 10 - 6 * 3 - 3) / 0.5)
    assert planned.plan.images == steps * planned.recipe.batch
    assert planned.forecast.steps == steps * 0.5
    assert 0.85 * 600 < planned.forecast.seconds <= 600
    assert planned.plan.sample_every == planned.plan.images // 6


def test_costly_grids_are_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(draw: float) -> Callable[[int], Rehearsal]:
        return lambda _: Rehearsal(0.1, draw, 0.0, 1)

    order = Order("digits", minutes=5.0, width=32)
    plans = [a_planner(order, seen(draw), monkeypatch).plan().plan for draw in (1.0, 10.0, 100.0)]
    assert [round(plan.images / (plan.sample_every or 1)) for plan in plans] == [6, 2, 1]


@pytest.mark.parametrize("minutes", [1.0, 10.0, 100.0, 1000.0])
def test_the_widest_network_is_taken_that_still_sees_its_images(
    monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    def seen(width: int) -> Rehearsal:
        return Rehearsal(0.2 * (width / 32) ** 1.8, 0.0, 0.0, 1)

    planned = a_planner(Order("digits", minutes=minutes), seen, monkeypatch).plan()
    able = [
        width
        for width, least in planner.WIDTHS
        if (0.98 * 60 * minutes - 10) / seen(width).step * planned.recipe.batch >= least
    ]
    assert width_of(planned.recipe) == max(able)


def test_wider_networks_that_cannot_do_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def seen(width: int) -> Rehearsal:
        tried.append(width)
        return Rehearsal(1.0, 0.0, 0.0, 1)

    a_planner(Order("digits", minutes=2.0), seen, monkeypatch).plan()
    assert tried == [32]


def test_images_that_were_ordered_stay_and_decide_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    for images, width in ((100, 32), (39_999, 32), (40_000, 48), (10**7, 128)):
        order = Order("digits", images=images)
        planned = a_planner(order, lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch).plan()
        assert (planned.plan.images, width_of(planned.recipe)) == (images, width)


def test_what_was_ordered_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order("digits", minutes=10.0, width=40, batch=7, accumulate=3, seed=5, precision="float32", compile=True)
    planned = a_planner(order, lambda _: Rehearsal(0.1, 0.0, 0.0, 1), monkeypatch).plan()
    plan = planned.plan
    assert (width_of(planned.recipe), plan.batch, plan.accumulate) == (40, 7, 3)
    assert (plan.seed, plan.precision, plan.compile) == (5, "float32", True)
    assert plan.images % 7 == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_quicker_precision_is_settled_with_the_plan(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "pick_precision", lambda name, device: dtype if name == "auto" else torch.float64)
    for order in (Order("digits", minutes=10.0), Order("digits", images=64)):
        planned = a_planner(order, lambda _: Rehearsal(0.1, 0.0, 0.0, 1), monkeypatch).plan()
        assert planned.plan.precision == str(dtype).removeprefix("torch.")


def test_a_budget_that_is_gone_before_the_first_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match=r"0.1 minutes are too few.* 10 s already; give more, or --images"):
        a_planner(Order("digits", minutes=0.1), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch).plan()


def test_a_step_that_does_not_fit_is_refused_with_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_planner(Order("digits", images=64, batch=32), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch)
    monkeypatch.setattr(planner, "needed", lambda *_: lambda part: (100 + part * 50) * 2**20)
    monkeypatch.setattr(planner.memory, "available", lambda _: 600 * 2**20)
    with pytest.raises(Refused) as refused:
        made.plan()
    # 100 + 10 * 50 = 600 MiB: ten at once fit, and the next power of two parts of 32 are 4.
    assert "32 pictures at once needs about 1.7 GiB, and 0.6 GiB are free" in str(refused.value)
    assert "--accumulate 4 " in str(refused.value) and "--batch 10" in str(refused.value)
    a_planner(Order("digits", images=64, batch=10), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch).plan()
    monkeypatch.setattr(planner, "needed", lambda *_: lambda part: (100 + part * 50) * 2**20)
    fits = a_planner(
        Order("digits", images=64, batch=32, accumulate=4), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch
    )
    monkeypatch.setattr(planner, "needed", lambda *_: lambda part: (100 + part * 50) * 2**20)
    assert fits.plan().plan.accumulate == 4
    monkeypatch.setattr(planner.memory, "available", lambda _: 149 * 2**20)
    with pytest.raises(Refused, match="not even one picture at a time fits: choose a smaller --size or --width"):
        made.plan()


def test_a_wider_network_that_does_not_fit_leaves_the_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(width: int) -> Rehearsal:
        if width > 48:
            raise Refused("too wide")
        return Rehearsal(0.2, 0.0, 0.0, 1)

    assert width_of(a_planner(Order("digits", minutes=1000.0), seen, monkeypatch).plan().recipe) == 48
    with pytest.raises(Refused, match="too wide"):
        a_planner(Order("digits", minutes=1000.0, width=64), seen, monkeypatch).plan()


@pytest.mark.parametrize(
    ("full", "most", "batch"), [(32, 10**9, 32), (128, 10**9, 128), (128, 64, 64), (4096, 10**9, 512)]
)
def test_a_batch_is_as_large_as_the_machine_takes_at_once(
    monkeypatch: pytest.MonkeyPatch, full: int, most: int, batch: int
) -> None:
    """A step takes as long for any batch up to `full` pictures and in proportion above; more than `most` do not fit."""

    def rehearse(_task: object, _batches: object, plan: TrainPlan, *_: object, **__: object) -> Rehearsal:
        if plan.batch > most:
            raise Refused("too many")
        return Rehearsal(0.02 * max(1.0, plan.batch / full), 0.0, 0.0, 1)

    def planned(order: Order) -> Planned:
        made = a_planner(order, lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch)
        monkeypatch.setattr(planner, "rehearse", rehearse)
        return made.plan()

    found = planned(Order("digits", minutes=1.0))
    assert found.recipe.batch == found.plan.batch == batch
    assert planned(Order("digits", minutes=1.0, batch=16)).plan.batch == 16


def test_weights_that_do_not_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_planner(Order("digits", images=64, width=1024), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch)
    made.task = lambda *_: pytest.fail("the weights were made")
    monkeypatch.setattr(planner.memory, "available", lambda _: 2**31)
    with pytest.raises(
        Refused, match=r"million numbers needs about \d.* GiB.*, and 2.0 GiB are free: .*smaller .*--width"
    ):
        made.plan()


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()]
)
def test_memory_that_runs_out_while_it_is_counted_is_refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    made = a_planner(Order("digits", images=64), lambda _: Rehearsal(1.0, 0.0, 0.0, 1), monkeypatch)

    def needed(*_: object) -> None:
        raise error

    monkeypatch.setattr(planner, "needed", needed)
    with pytest.raises(Refused, match="smaller --size or --width"):
        made.plan()
    error = ValueError("another")
    with pytest.raises(ValueError, match="another"):
        made.plan()


@pytest.mark.parametrize(
    ("native", "images", "size"),
    [(64, 1_999, 32), (64, 2_000, 64), (200, 10**6, 128), (100, 10**8, 64), (4000, 10**8, 256), (40, 10**6, 32)],
)
def test_the_size_grows_with_the_files_and_the_images(native: int, images: int, size: int) -> None:
    assert size_for(native, images) == size


def test_a_plan_has_its_grids_and_fractions() -> None:
    recipe = RECIPES["flow"](Facts(8, 1))
    plan = plan_of(recipe, 6000, Order("digits"), grids=3)
    assert (plan.sample_every, plan.checkpoint_every, plan.warmup) == (2000, 2000, int(recipe.warmup * 6000))
    assert plan_of(recipe, 600_000, Order("digits")).checkpoint_every == 50_000


def test_bytes_for_people() -> None:
    assert [gib(n) for n in (2**20, 100 * 2**20, 2**30, 5 * 2**29)] == ["1 MiB", "100 MiB", "1.0 GiB", "2.5 GiB"]
