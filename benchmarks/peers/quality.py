"""Trains a peer's recipe on Fashion-MNIST for so many seconds at a time, and draws pictures with it in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from worker import Facts, Order

from nirvana.data import open_data

DRAW = 100
"""Pictures drawn at once."""


class Recipe(Protocol):
    """What a peer recommends. Pictures are float32 in [0, 1], (b, 1, 28, 28)."""

    batch: int

    def facts(self) -> Facts:
        """Versions and parameters."""
        ...

    def step(self, pictures: Tensor, labels: Tensor) -> None:
        """One training step."""
        ...

    def draw(self, labels: Tensor, steps: int) -> Tensor:
        """A picture for each label (which a recipe without labels ignores), in `steps` steps."""
        ...


class Quality:
    """order: {"train": seconds} or {"draw": how many, "steps": of the sampler, "save": the file to write}."""

    def __init__(self, recipe: Recipe) -> None:
        data = open_data("fashion-mnist")
        if data.labels is None:
            raise ValueError("Fashion-MNIST has labels")
        self.images, self.labels = torch.from_numpy(data.images[..., 0].copy()), torch.from_numpy(data.labels.copy())
        self.recipe = recipe
        self.seconds, self.steps = 0.0, 0

    def facts(self) -> Facts:
        return self.recipe.facts()

    def prepare(self, order: Order) -> Callable[[], Facts | None]:
        if "train" in order:
            return lambda: self._train(order["train"])
        return lambda: self._draw(order["draw"], order["steps"], order["save"])

    def _train(self, seconds: float) -> Facts:
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            chosen = torch.randint(0, len(self.images), (self.recipe.batch,))
            self.recipe.step(self.images[chosen, None].float() / 255, self.labels[chosen])
            self.steps += 1
        self.seconds += time.perf_counter() - started
        return {"trained": self.seconds, "images": self.steps * self.recipe.batch}

    def _draw(self, count: int, steps: int, save: str) -> None:
        labels = torch.arange(count) % 10
        made = torch.cat([self.recipe.draw(part, steps) for part in labels.split(DRAW)])
        np.save(save, (255 * made[:, 0].clamp(0, 1)).round().to(torch.uint8).numpy())
