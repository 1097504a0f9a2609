"""Kills trainings of a GAN and a VAE, continues each, and prints how they differ in the end (see train.crash_worker).

Both in one process: half of the time goes into importing torch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import train.crash_worker as crash
from nirvana.data import open_data
from nirvana.recipes.task import PictureBatches
from nirvana.train.events import Event
from nirvana.train.loop import train
from tiny_families import FAMILIES, made_task
from train.tiny import HOOKS, PLAN, open_run, outcome

DATA = open_data("digits")


def go(family: str, path: Path, deadly: tuple[str, int] | None = None) -> Iterator[Event]:
    """The training in `path`, begun or continued; killed in the loss of that phase at that number of images."""
    run = open_run(path)
    task = made_task(family, PLAN)
    if deadly is not None:
        loss = task.loss

        def kills(phase: Any, batch: Any, position: Any) -> Any:
            if (phase.name, position.images) == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(phase, batch, position)

        task.loss = kills
    return train(task, PictureBatches(DATA, PLAN.seed, flip=True), run.plan, run, HOOKS)


def problems(family: str, folder: Path) -> dict[str, list[str]]:
    """How the trainings that were killed differ from the one that was not."""
    crash.go = partial(go, family)  # type: ignore[assignment]
    for _ in go(family, folder / "whole"):
        pass
    wanted = outcome(folder / "whole")
    assert wanted["finished"], "the training did not end"
    path = folder / "killed"
    found: dict[str, list[str]] = {}
    for phase in [phase.name for phase in made_task(family, PLAN).phases]:
        for images in (0, 24, 56):
            code = crash.in_child(lambda: list(go(family, path, (phase, images))) and None)  # noqa: B023 - called at once
            name = f"in the {phase} of {images}"
            found[name] = crash.different(path, wanted) if code == -signal.SIGKILL else [f"ended with {code}"]
    found |= crash.random_moments(path, wanted, 4)
    found |= crash.interrupts(path, wanted, 3)
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.fsync = lambda handle: None
    print(json.dumps({family: problems(family, Path(sys.argv[1]) / family) for family in FAMILIES}))
