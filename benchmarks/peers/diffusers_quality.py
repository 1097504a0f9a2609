"""The from-scratch recipe of the diffusion course of diffusers' makers (unit 2): a class-conditional UNet2DModel."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import diffusers
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from gauge import count_parameters
from memory import keep_memory
from quality import Quality
from torch import Tensor, nn
from torch.nn import functional
from worker import Facts, Order

CLASSES, WIDTH = 10, 4
BETAS = "squaredcos_cap_v2"


class Conditioned(nn.Module):
    """The label becomes `WIDTH` constant channels beside the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.label = nn.Embedding(CLASSES, WIDTH)
        self.net = UNet2DModel(
            sample_size=28,
            in_channels=1 + WIDTH,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        channels = self.label(labels)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.net(torch.cat([x, channels], dim=1), time).sample


class Course:
    """Adam at 1e-3, batch 128, eps of the cosine chain; drawn by DDIM."""

    batch = 128

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = Conditioned()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule=BETAS)

    def facts(self) -> Facts:
        return {"parameters": count_parameters(self.net), "versions": {"diffusers": diffusers.__version__}}

    def step(self, pictures: Tensor, labels: Tensor) -> None:
        clean = 2 * pictures - 1
        noise = torch.randn_like(clean)
        steps = torch.randint(0, 1000, (len(clean),))
        predicted = self.net(self.scheduler.add_noise(clean, noise, steps), steps, labels)
        loss = functional.mse_loss(predicted, noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def draw(self, labels: Tensor, steps: int) -> Tensor:
        scheduler = DDIMScheduler(num_train_timesteps=1000, beta_schedule=BETAS)
        scheduler.set_timesteps(steps)
        x = torch.randn(len(labels), 1, 28, 28)
        for t in scheduler.timesteps:
            x = scheduler.step(self.net(x, t, labels), t, x).prev_sample
        return x / 2 + 0.5


def make(settings: Order) -> Quality:
    """The case. settings: keep_memory."""
    if settings["keep_memory"]:
        keep_memory()
    return Quality(Course())
