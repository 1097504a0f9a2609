"""Rates and positions of a plan, to the last image."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.errors import Refused
from nirvana.train.plan import TrainPlan


def test_factor_exactly() -> None:
    plan = TrainPlan(images=1000, batch=100, warmup=400, decay=0.5)
    assert [plan.factor(at) for at in range(0, 1000, 100)] == [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    cosine = TrainPlan(images=1000, batch=100, decay=0.4, decay_shape="cosine")
    assert cosine.factor(600) == 1 and cosine.factor(500) == 1
    assert cosine.factor(800) == pytest.approx(0.5)
    assert cosine.factor(900) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert [TrainPlan(images=1000, batch=100, decay=0.0).factor(at) for at in (0, 900)] == [1, 1]


plans = st.fixed_dictionaries(
    {
        "images": st.integers(1, 500),
        "batch": st.integers(1, 70),
        "accumulate": st.integers(1, 9),
        "warmup": st.integers(0, 600),
        "decay": st.floats(0, 1),
        "checkpoint_every": st.none() | st.integers(1, 600),
        "decay_shape": st.sampled_from(["linear", "cosine"]),
    }
)


def ends(plan: TrainPlan) -> list[int]:
    found, images = [], 0
    while images < plan.images:
        images = plan.next_indices(images).stop
        found.append(images)
    return found


@given(plans)
def test_every_image_once_at_a_positive_rate(fields: dict[str, Any]) -> None:
    plan = TrainPlan(**fields)
    stops = ends(plan)
    starts = [0, *stops[:-1]]
    assert stops[-1] == plan.images and [plan.step_of(images) for images in stops] == list(range(1, len(stops) + 1))
    assert all(0 < plan.factor(images) <= 1 for images in starts)
    for start, stop in zip(starts, stops, strict=True):
        parts = plan.parts(range(start, stop))
        assert [index for part in parts for index in part] == list(range(start, stop))
        assert len(parts) == min(plan.accumulate, stop - start)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(plans)
def test_what_is_due_comes_once_at_the_first_step_past_it(fields: dict[str, Any]) -> None:
    plan = TrainPlan(**fields)
    stops = ends(plan)
    every = plan.checkpoint_every
    due = [] if every is None else range(every, plan.images + 1, every)
    wanted = {next(stop for stop in stops if stop >= at) for at in due} | {plan.images}
    assert {stop for stop in stops if plan.is_scheduled(stop)} == wanted
    assert plan.is_scheduled(0) and plan.snapshots_at(0) == []
    taken = {fraction: stop for stop in stops for fraction in plan.snapshots_at(stop)}
    assert taken == {
        Fraction(k, 16): next(stop for stop in stops if 16 * stop >= k * plan.images) for k in (1, 2, 4, 8, 12, 16)
    }
    assert all(plan.snapshot_images(fraction) == stop for fraction, stop in taken.items())


@given(plans)
def test_json_round_trip(fields: dict[str, Any]) -> None:
    plan = TrainPlan(**fields)
    assert TrainPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    for wrong in ({**plan.to_json(), "new": 1}, {}):
        with pytest.raises(TypeError):
            TrainPlan.from_json(wrong)


def test_a_plan_of_before_compiling_was_a_choice_is_read() -> None:
    plan = TrainPlan(images=100, batch=7)
    stored = plan.to_json()
    assert stored.pop("compile") is False
    assert TrainPlan.from_json(stored) == plan
    assert TrainPlan.from_json({**stored, "compile": True}).compile


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("images", 0),
        ("batch", 0),
        ("accumulate", -1),
        ("keep", 0),
        ("read_every", 0),
        ("checkpoint_every", 0),
        ("sample_every", -5),
        ("warmup", -1),
        ("seed", -1),
        ("seed", 2**63),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("decay", 1.5),
        ("decay", float("nan")),
        ("clip", 0.0),
        ("decay_shape", "linaer"),
        ("precision", "float23"),
        ("ema", ()),
        ("ema", (0.5,)),
    ],
)
def test_nonsense_is_refused(field: str, value: Any) -> None:
    named = {"decay_shape": "did you mean 'linear'", "precision": "did you mean 'float32'"}.get(
        field, f"plan's {field}"
    )
    with pytest.raises(Refused, match=named):
        TrainPlan(**{"images": 100, field: value})
