"""Training with denoising-diffusion-pytorch: its Unet, its GaussianDiffusion loss, and the step of its Trainer."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from ddp_library import EMA, GaussianDiffusion, Unet
from gauge import count_parameters, deviation, training_flops
from memory import keep_memory
from torch import Tensor, nn
from worker import Facts, Order


def call(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
    return net(x, time.to(x.dtype))


class Training:
    """settings: shape (c, h, w), batch, dim and mults of the Unet, keep_memory, bfloat16: with channels-last."""

    def __init__(self, settings: Order) -> None:
        if settings["keep_memory"]:
            keep_memory()
        torch.manual_seed(0)
        self.size = (settings["batch"], *settings["shape"])
        self.format = torch.channels_last if settings["bfloat16"] else torch.contiguous_format
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=settings["bfloat16"])
        net = Unet(dim=settings["dim"], dim_mults=tuple(settings["mults"]), channels=self.size[1])
        self.diffusion = GaussianDiffusion(net.to(memory_format=self.format), image_size=self.size[-1], timesteps=1000)
        # What follows are the defaults of its Trainer.
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)

    def facts(self) -> Facts:
        net = self.diffusion.model

        def as_trained(net: nn.Module, x: Tensor, time: Tensor) -> Tensor:
            with self.autocast:
                return call(net, x.contiguous(memory_format=self.format), time)

        return {
            "parameters": count_parameters(net),
            "flops": training_flops(net, call, self.size[1:]),
            "deviation": deviation(net, as_trained, self.size[1:], call),
            "versions": {
                "torch": torch.__version__,
                "denoising-diffusion-pytorch": version("denoising-diffusion-pytorch"),
            },
        }

    def prepare(self, order: Order) -> Callable[[], None]:
        del order
        clean = torch.rand(self.size).contiguous(memory_format=self.format)
        return lambda: self._step(clean)

    def _step(self, clean: Tensor) -> None:
        with self.autocast:
            loss = self.diffusion(clean)
        loss.item()
        loss.backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
