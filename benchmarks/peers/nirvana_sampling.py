"""Sampling with nirvana's loop: the network of diffusers, with the same weights, behind an adapter."""
# pyright: basic, reportMissingImports=false, reportCallIssue=false

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers_sampling import load_network
from diffusers_training import call
from gauge import deviation
from torch import Tensor, nn
from worker import Facts, Order

from nirvana.diffusion import (
    DDIM,
    Chain,
    Eps,
    Level,
    Preconditioned,
    SeededNoise,
    TableCode,
    linear_betas,
    trajectory,
    walk,
)
from nirvana.diffusion.noise import Key
from nirvana.engine import ENGINES, EngineNet, Inputs
from nirvana.generate.network import in_bfloat16
from nirvana.train import allocator


class Adapter(nn.Module):
    """A network called (x, time) as one of ours: (x, noise, cond)."""

    slots: frozenset[str] = frozenset()

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, noise: Tensor, cond: dict[str, Tensor]) -> Tensor:
        del cond
        return self.net(x, noise)


class Eager(nn.Module):
    """The network of diffusers in this memory format."""

    def __init__(self, net: nn.Module, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.net, self.format = net.to(memory_format=memory_format), memory_format

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return call(self.net, x.contiguous(memory_format=self.format), time)


class Upsample(nn.Module):
    """Upsampling of diffusers without its branch on the size of the batch, which no exporter can follow."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        self.conv = theirs.conv

    def forward(self, x: Tensor, output_size: int | None = None) -> Tensor:
        del output_size  # powers of two
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


def exported(net: nn.Module, shape: tuple[int, ...], engine: str, precision: torch.dtype) -> nn.Module:
    """The network as `nirvana export` writes it and `nirvana generate --engine` runs it."""
    for block in net.up_blocks:
        block.upsamplers = block.upsamplers and nn.ModuleList(map(Upsample, block.upsamplers))
    inputs = Inputs(shape, {})
    with tempfile.TemporaryDirectory() as folder:
        ENGINES[engine].export(Adapter(Eager(net, torch.contiguous_format)), inputs, Path(folder), precision)
        return EngineNet(inputs, ENGINES[engine].load(Path(folder), precision))


class Stored:
    """A network that costs nothing: it answers with a stored tensor."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.stored = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        del time
        return self.stored[: len(x)]


class OneGenerator:
    """The noise as the pipeline draws it from one generator: the start, then one tensor a step."""

    def __init__(self, seed: int, shape: Sequence[int]) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._shape = tuple(shape)
        self._start = self._next()

    def _next(self) -> Tensor:
        return torch.randn(self._shape, generator=self._generator)

    def initial(self) -> Tensor:
        return self._start

    def path(self, now: Level, nxt: Level) -> Tensor:
        del now, nxt
        return self._next()

    def fresh(self, key: Key) -> Tensor:
        raise ValueError(f"the pipeline draws nothing by a key ({key})")


class Sampling:
    """settings: shape, weights (None: a stored tensor instead of a network), engine ("eager", "channels-last" or one of
    `ENGINES`), bfloat16, keep_memory: the allocator as `nirvana generate` sets it.

    order: as that of the pipeline. Without one_generator the noise is nirvana's own, a generator for each picture.
    """

    def __init__(self, settings: Order) -> None:
        os.environ[allocator.VARIABLE] = "keep" if settings["keep_memory"] else "system"
        allocator.keep_memory()
        self.shape = tuple(settings["shape"])
        self.net = self._network(settings["weights"], settings["engine"], settings["bfloat16"])
        self.table = Chain(linear_betas(1000)).schedule()
        self.denoiser = Preconditioned(
            self.net, Eps(), native="unit", c_in="none", c_noise=TableCode(self.table)
        ).requires_grad_(False)

    def _network(self, weights: str | None, engine: str, bfloat16: bool) -> nn.Module:
        if weights is None:
            return Adapter(Stored(self.shape))
        net = load_network(weights, self.shape)
        if engine in ENGINES:
            return exported(net, self.shape, engine, torch.bfloat16 if bfloat16 else torch.float32)
        net = in_bfloat16(net) if bfloat16 else net
        return Adapter(Eager(net, {"eager": torch.contiguous_format, "channels-last": torch.channels_last}[engine]))

    def facts(self) -> Facts:
        versions = {"torch": torch.__version__}
        full = next(self.denoiser.parameters(), torch.empty(0)).dtype == torch.float32
        if full and isinstance(self.net, Adapter) and isinstance(self.net.net, Eager):
            return {"versions": versions, "deviation": deviation(self.net.net, _call, self.shape)}
        return {"versions": versions}

    def prepare(self, order: Order) -> Callable[[], None]:
        batch, seed = order["batch"], order["seed"]
        one = OneGenerator(seed, (batch, *self.shape)) if order["one_generator"] else None

        def run() -> None:
            noise = one or SeededNoise(range(seed, seed + batch), self.shape)
            levels = walk(self.table.at(torch.tensor([*(t + 1 for t in _times(order["steps"])), 0])))
            x = noise.initial()
            with torch.inference_mode():
                for step in trajectory(self.denoiser, x, levels, DDIM(order["eta"]), cond={}, noise=noise):
                    x = step.x
            images = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            if order["save"]:
                np.save(f"{order['save']}/images.npy", images)
                np.save(f"{order['save']}/state.npy", x.numpy())

        return run


def _call(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    return net(x, time)


def _times(steps: int) -> range:
    """The pipeline's own points in a table of 1000, "leading": every (1000 // steps)-th, down to 0."""
    apart = 1000 // steps
    return range(apart * (steps - 1), -1, -apart)
