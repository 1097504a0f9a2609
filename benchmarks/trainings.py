"""Trainings that benchmarks compare: what so many minutes of one would be, and one that is begun or continued."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nirvana.recipes.image import prepare
from nirvana.recipes.order import Order
from nirvana.recipes.recipe import Facts, as_in
from nirvana.train.events import StepDone

_REPORT = 15.0


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def planned(order: Order) -> dict[str, Any]:
    """What `nirvana train --minutes` would do now: width, images, batch, size and parameters."""
    with tempfile.TemporaryDirectory() as folder:
        training = prepare(order, Path(folder) / "run")
        spec, plan = training.run.model_spec, training.run.plan
        network: Any = spec["network"]
        return {
            "width": network["width"] if network["kind"] == "pyramid" else as_in(Facts(0, 0), spec).width,
            "images": plan.images,
            "batch": plan.batch,
            "size": spec["shape"][-1],  # type: ignore[index, call-overload]
            "parameters": training.parameters,
        }


def larger(a: dict[str, Any], b: dict[str, Any] | None) -> dict[str, Any]:
    """The plan of more work, images by width: the neighbours on a machine only ever slow."""
    return a if b is None or a["images"] * a["width"] > b["images"] * b["width"] else b


def trained(order: Order, path: Path, command: str) -> Path:
    """The finished run at `path`, begun or continued."""
    said = time.monotonic()
    for event in prepare(order, path, command=command).events():
        if isinstance(event, StepDone) and time.monotonic() - said > _REPORT:
            said = time.monotonic()
            say(f"{path.name}: {event.images} of {event.total}, {event.seconds_left / 60:.1f} min left")
    return path
