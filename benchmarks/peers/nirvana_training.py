"""Training with nirvana: a turn is one step of the real training loop, with its averages and its records."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from gauge import count_parameters, deviation, training_flops
from torch import Tensor, nn
from worker import Facts, Order

from nirvana.generate.spec import build, network_spec
from nirvana.nn import UNetConfig
from nirvana.recipes.recipe import Facts as DataFacts
from nirvana.recipes.recipe import flow
from nirvana.recipes.task import DiffusionTask, Pictures
from nirvana.train import allocator
from nirvana.train.events import StepDone
from nirvana.train.loop import train
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder


class RandomPictures:
    """Fresh random bytes at every step, without labels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def batch(self, indices: range) -> Pictures:
        size = (len(indices), *self.shape)
        return Pictures(torch.randint(0, 256, size, dtype=torch.uint8), torch.zeros(len(indices), dtype=torch.int64))

    def files(self, indices: range) -> list[str]:
        return [str(index) for index in indices]


def call(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    return net(x, time.to(x.dtype), {})


class Training:
    """settings: shape (c, h, w), batch, network (entries of UNetConfig), keep_memory, bfloat16."""

    def __init__(self, settings: Order) -> None:
        os.environ[allocator.VARIABLE] = "keep" if settings["keep_memory"] else "system"
        allocator.keep_memory()
        torch.manual_seed(0)
        self.shape = tuple(settings["shape"])
        channels, size, _ = self.shape
        recipe = flow(DataFacts(size, channels))
        plain = network_spec(UNetConfig(channels, channels))
        spec = {**recipe.model, "network": {**plain, **settings["network"]}}
        self.parts = build(spec)
        task = DiffusionTask(
            self.parts, recipe.objective(self.parts), strata=settings["batch"], weight_decay=recipe.weight_decay
        )
        precision = "bfloat16" if settings["bfloat16"] else "float32"
        plan = TrainPlan(images=10**8, batch=settings["batch"], precision=precision)
        self.folder = tempfile.TemporaryDirectory()
        run = RunFolder.create(Path(self.folder.name) / "run", {}, plan, {}, spec, "")
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings["bfloat16"])
        self.events = train(task, RandomPictures(self.shape), plan, run)

    def facts(self) -> Facts:
        net = self.parts.denoiser.net

        def as_trained(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
            with self.autocast:
                return call(net, x, time)

        return {
            "parameters": count_parameters(net),
            "flops": training_flops(net, call, self.shape),
            "deviation": deviation(net, as_trained, self.shape, call),
            "versions": {"torch": torch.__version__},
        }

    def prepare(self, order: Order) -> Callable[[], None]:
        del order
        return self._step

    def _step(self) -> None:
        for event in self.events:
            if isinstance(event, StepDone):
                return
