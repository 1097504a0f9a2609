"""Sampling with denoising-diffusion-pytorch: GaussianDiffusion.sample by DDIM, with its own Unet."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from ddp_library import GaussianDiffusion, Unet
from ddp_training import call
from gauge import count_parameters, deviation
from worker import Facts, Order


class Sampling:
    """settings: shape, dim and mults of the Unet, steps. order: batch (it draws from torch's own generator)."""

    def __init__(self, settings: Order) -> None:
        torch.manual_seed(0)
        self.shape = tuple(settings["shape"])
        net = Unet(dim=settings["dim"], dim_mults=tuple(settings["mults"]), channels=self.shape[0])
        self.diffusion = GaussianDiffusion(
            net, image_size=self.shape[-1], timesteps=1000, sampling_timesteps=settings["steps"]
        ).eval()

    def facts(self) -> Facts:
        return {
            "parameters": count_parameters(self.diffusion.model),
            "deviation": deviation(self.diffusion.model, call, self.shape),
            "versions": {
                "torch": torch.__version__,
                "denoising-diffusion-pytorch": version("denoising-diffusion-pytorch"),
            },
        }

    def prepare(self, order: Order) -> Callable[[], None]:
        def run() -> None:
            self.diffusion.sample(batch_size=order["batch"]).numpy()

        return run
