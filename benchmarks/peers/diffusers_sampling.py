"""Sampling with diffusers: its DDIMPipeline around a UNet2DModel."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable

import diffusers
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers_training import call, network
from gauge import count_parameters, deviation
from memory import keep_memory
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from worker import Facts, Order


def load_network(weights: str, shape: tuple[int, ...]) -> UNet2DModel:
    """The reference network with the weights in the file."""
    net = network(shape)
    net.load_state_dict(load_file(weights))
    return net.eval().requires_grad_(False)


class Stored(ModelMixin, ConfigMixin):
    """A network that costs nothing: it answers with a stored tensor."""

    @register_to_config
    def __init__(self, sample_size: int, in_channels: int) -> None:
        super().__init__()
        # The pipeline asks a network for its dtype.
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.stored = torch.randn(16, in_channels, sample_size, sample_size, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, time: Tensor) -> UNet2DOutput:
        del time
        return UNet2DOutput(sample=self.stored[: len(x)])


class Weights:
    """Draws the weights that both sides load. settings: shape, weights (the file to write)."""

    def __init__(self, settings: Order) -> None:
        torch.manual_seed(0)
        self.net = network(tuple(settings["shape"]))
        save_file(self.net.state_dict(), settings["weights"])
        self.shape = tuple(settings["shape"])

    def facts(self) -> Facts:
        return {"parameters": count_parameters(self.net)}

    def prepare(self, order: Order) -> Callable[[], None]:
        raise ValueError(f"weights are not run: {order}")


class Pipeline:
    """settings: shape, weights (None: a stored tensor instead of a network), keep_memory.

    order: batch, steps, eta, seed, one_generator (False: a generator for each picture), save: a folder for the pictures
    and for the state they were made of, or None.
    """

    def __init__(self, settings: Order) -> None:
        if settings["keep_memory"]:
            keep_memory()
        self.shape = tuple(settings["shape"])
        weights = settings["weights"]
        self.net = load_network(weights, self.shape) if weights else Stored(self.shape[1], self.shape[0])
        scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
        self.pipeline = DDIMPipeline(self.net, scheduler)
        self.pipeline.set_progress_bar_config(disable=True)

    def facts(self) -> Facts:
        versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
        known = isinstance(self.net, UNet2DModel)
        return {"versions": versions, **({"deviation": deviation(self.net, call, self.shape)} if known else {})}

    def prepare(self, order: Order) -> Callable[[], None]:
        seeds = [order["seed"]] if order["one_generator"] else [order["seed"] + i for i in range(order["batch"])]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def run() -> None:
            images = self.pipeline(
                batch_size=order["batch"],
                generator=generators[0] if order["one_generator"] else generators,
                eta=order["eta"],
                num_inference_steps=order["steps"],
                output_type="np",
            ).images
            if order["save"]:
                np.save(f"{order['save']}/images.npy", images)
                np.save(f"{order['save']}/state.npy", self._state(order).numpy())

        return run

    @torch.no_grad()
    def _state(self, order: Order) -> Tensor:
        """What the pipeline has before it cuts off what leaves the range: its loop, as the documentation writes it."""
        generator = torch.Generator().manual_seed(order["seed"])
        x = torch.randn(order["batch"], *self.shape, generator=generator)
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(order["steps"])
        for t in scheduler.timesteps:
            x = scheduler.step(self.net(x, t).sample, t, x, eta=order["eta"], generator=generator).prev_sample
        return x
