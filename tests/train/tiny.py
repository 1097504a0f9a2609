"""The smallest things the loop can drive: a linear model with dropout, numbered data, a two-player game."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nirvana.train.events import Event
from nirvana.train.loop import Hooks, train
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from nirvana.train.task import Loss, Phase, Position

Batch = tuple[Tensor, Tensor]


def draw(index: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(index))


class Numbers:
    """Sample i is a function of i: x normal, y a linear function of x."""

    def batch(self, indices: range) -> Batch:
        x = torch.stack([draw(index, 3) for index in indices])
        return x, 2 * x[:, :2] + 0.5

    def files(self, indices: range) -> list[str]:
        return [f"pictures/{index:03d}.png" for index in indices]


class Linear:
    """y = x w + b. The loss of sample `poison` is NaN while the weights are above `limit`."""

    def __init__(self, dropout: float = 0.25, poison: int = -1, limit: float = 0.0) -> None:
        self.w = nn.Parameter(0.1 * draw(7, 3, 2))
        self.b = nn.Parameter(torch.zeros(2))
        self.dropout, self.poison, self.limit = dropout, poison, limit
        self.phases = [Phase("main", {"w": self.w, "b": self.b}, weight_decay=0.01)]

    def loss(self, phase: Phase, batch: Batch, position: Position) -> Loss:
        x, y = batch
        noise = torch.stack([draw(1000 + index, 2) for index in position.indices])
        guess = nn.functional.dropout(x, self.dropout) @ self.w + self.b
        each = (guess - y + 0.1 * noise).square().mean(1)
        if self.poison in position.indices and self.w.detach().abs().max() > self.limit:
            each = each * torch.tensor([float("nan") if i == self.poison else 1.0 for i in position.indices])
        return Loss(each.mean(), each, {"bias": self.b.square().mean()}, 3 * noise[:, 0])

    def state_dict(self) -> dict[str, Tensor]:
        return {"w": self.w.detach(), "b": self.b.detach()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.w.copy_(state_dict["w"])
            self.b.copy_(state_dict["b"])

    def ema_parameters(self) -> dict[str, Tensor]:
        return self.state_dict()


class Game(Linear):
    """A critic `c` learns at every second step what tells y from the guess; the player learns against it."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(draw(9, 2))
        self.phases = [
            Phase("critic", {"c": self.c}, lr=0.02, every=2),
            Phase("player", {"w": self.w, "b": self.b}, betas=(0.0, 0.9)),
        ]

    def loss(self, phase: Phase, batch: Batch, position: Position) -> Loss:
        x, y = batch
        gap = ((nn.functional.dropout(x, 0.25) @ self.w + self.b - y) * self.c).sum(1)
        if phase.name == "critic":
            return Loss((self.c.square().sum() - gap.square().mean()) * 0.01)
        return Loss(gap.square().mean(), gap.square())

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "c": self.c.detach()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        super().load_state_dict(state_dict)
        with torch.no_grad():
            self.c.copy_(state_dict["c"])

    def ema_parameters(self) -> dict[str, Tensor]:
        return super().state_dict()


PLAN = TrainPlan(
    images=60,
    batch=8,
    lr=0.05,
    warmup=16,
    checkpoint_every=16,
    sample_every=24,
    keep=2,
    read_every=3,
    seed=5,
    precision="float32",
)
"""Eight steps, the last one of 4 samples; checkpoints at 0, 16, 32, 48, 60; samples at 24, 48, 60."""

MANIFEST: dict[str, Any] = {
    "source": "pictures",
    "rejected": [{"path": "pictures/broken <1>.png", "reason": "truncated"}],
}


def open_run(path: Path, plan: TrainPlan = PLAN) -> RunFolder:
    return RunFolder.open_or_create(path, {"size": 8, "recipe": "tiny"}, plan, MANIFEST, {"kind": "linear"}, "train x")


def picture(weights: Mapping[str, Tensor], images: int) -> bytes:
    return b"png of " + str(images).encode() + b"".join(weights[name].numpy().tobytes() for name in sorted(weights))


HOOKS = Hooks(sample=picture)


def go(path: Path, task: Any = None, plan: TrainPlan = PLAN, hooks: Hooks = HOOKS) -> Iterator[Event]:
    """The training in `path`, begun or continued."""
    run = open_run(path, plan)
    return train(task if task is not None else Linear(), Numbers(), run.plan, run, hooks)


TIMES = ("at", "seconds", "images_per_second")


def outcome(path: Path) -> dict[str, Any]:
    """All that must not depend on how often a training was killed."""
    run = RunFolder.open(path)
    checkpoints = list(run.checkpoints())
    metrics = [{key: value for key, value in line.items() if key not in TIMES} for line in run.metrics()]
    rollbacks = [
        {key: value for key, value in event.items() if key not in TIMES}
        for event in run.events()
        if event["event"] == "rolled_back"
    ]
    kept = [*(path / "ema").iterdir(), *(path / "samples").iterdir()]
    value = {
        "finished": run.finished,
        "checkpoints": [(c.images, c.scheduled, c.settled, c.rollbacks, c.window, dict(c.files)) for c in checkpoints],
        "metrics": metrics,
        "rollbacks": rollbacks,
        "kept": {file.name: file.read_bytes().hex() for file in sorted(kept)},
        "leftovers": [str(file.relative_to(path)) for file in path.rglob(".tmp-*")],
    }
    return json.loads(json.dumps(value))
