"""Training with diffusers: UNet2DModel and the plain loop of its documentation (unconditional image generation)."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable

import diffusers
import torch
from diffusers import DDPMScheduler, UNet2DModel
from gauge import count_parameters, deviation, training_flops
from memory import keep_memory
from torch import Tensor, nn
from torch.nn import functional
from worker import Facts, Order


def network(shape: tuple[int, ...]) -> UNet2DModel:
    """Three levels, attention at the second."""
    return UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=2,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )


def call(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    return net(x, time, return_dict=False)[0]


class Training:
    """settings: shape (c, h, w), batch, keep_memory, bfloat16: by autocast, and channels-last."""

    def __init__(self, settings: Order) -> None:
        if settings["keep_memory"]:
            keep_memory()
        torch.manual_seed(0)
        self.size = (settings["batch"], *settings["shape"])
        self.format = torch.channels_last if settings["bfloat16"] else torch.contiguous_format
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings["bfloat16"])
        self.net = network(self.size[1:]).to(memory_format=self.format)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4)

    def facts(self) -> Facts:
        def as_trained(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
            with self.autocast:
                return call(net, x.contiguous(memory_format=self.format), time)

        return {
            "parameters": count_parameters(self.net),
            "flops": training_flops(self.net, call, self.size[1:]),
            "deviation": deviation(self.net, as_trained, self.size[1:], call),
            "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        }

    def prepare(self, order: Order) -> Callable[[], None]:
        del order
        clean = (2 * torch.rand(self.size) - 1).contiguous(memory_format=self.format)
        return lambda: self._step(clean)

    def _step(self, clean: Tensor) -> None:
        noise = torch.randn_like(clean)
        steps = torch.randint(0, 1000, (len(clean),))
        noisy = self.scheduler.add_noise(clean, noise, steps)
        with self.autocast:
            loss = functional.mse_loss(call(self.net, noisy, steps), noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
