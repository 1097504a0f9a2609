"""The recipe of denoising-diffusion-pytorch's README on Fashion-MNIST: its Unet of dim 64, multipliers 1, 2, 4, 8."""
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

from importlib.metadata import version

import torch
from ddp_library import EMA, GaussianDiffusion, Unet
from gauge import count_parameters
from memory import keep_memory
from quality import Quality
from torch import Tensor, nn
from torch.nn import functional
from worker import Facts, Order

BORDER = 2
"""Its three halvings need a multiple of 8: 28 becomes 32, black around the picture as inside."""


class Readme:
    """Adam at 8e-5, batch 32, T = 1000; drawn with the averaged weights, without labels."""

    batch = 32

    def __init__(self) -> None:
        torch.manual_seed(0)
        net = Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=1)
        self.diffusion = GaussianDiffusion(net, image_size=28 + 2 * BORDER, timesteps=1000, sampling_timesteps=250)
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=8e-5, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10)

    def facts(self) -> Facts:
        name = "denoising-diffusion-pytorch"
        return {"parameters": count_parameters(self.diffusion.model), "versions": {name: version(name)}}

    def step(self, pictures: Tensor, labels: Tensor) -> None:
        del labels
        self.diffusion(functional.pad(pictures, [BORDER] * 4)).backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def draw(self, labels: Tensor, steps: int) -> Tensor:
        sampler = self.ema.ema_model
        sampler.sampling_timesteps = steps
        made = sampler.sample(batch_size=len(labels))
        return made[:, :, BORDER:-BORDER, BORDER:-BORDER].clone()


def make(settings: Order) -> Quality:
    """The case. settings: keep_memory."""
    if settings["keep_memory"]:
        keep_memory()
    return Quality(Readme())
