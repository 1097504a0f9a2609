"""A tiny run of digits with random weights, and a cheap feature space, for tests of whole evaluations."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from nirvana.data import open_data
from nirvana.evaluate.space import ModuleSpace
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from tiny_run import save, spec


class Coarse(nn.Module):
    """The grey levels of 4 x 4 places."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x[:, :1], 4).flatten(1)


def space() -> ModuleSpace:
    return ModuleSpace("coarse", 16, Coarse(), side=8, prepare=lambda x: x / 255)


def digits_run(path: Path, seed: int = 1, source: str = "digits") -> Path:
    """A run that says it was trained on the built-in digits."""
    data = open_data("digits")
    description = spec(data.names)
    manifest = {**data.manifest.to_json(), "source": source}
    run = RunFolder.create(path, {"recipe": "tiny"}, TrainPlan(images=100, batch=10), manifest, description, "train")
    save(run, description, seed)
    return path
