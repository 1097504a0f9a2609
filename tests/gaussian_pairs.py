"""Pairs of jointly Gaussian pictures, for which the best loss is known, and a network that is trained on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nirvana.condition import Concat
from nirvana.diffusion.level import Level
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts
from nirvana.recipes.task import DiffusionTask, Pictures
from nirvana.train.task import Position

SLOPE, OF_INPUT, LEFT = 0.9, 0.4, 0.1
BATCH = 32


def task_with(concat: Concat, side: int = 8, width: int = 8, channels: int = 1) -> DiffusionTask:
    """A task on tiny pictures."""
    made = RECIPES["flow"](Facts(side, channels, width=width, concat=concat.config()))
    task = make_task(made, made.model, plan_of(made, 64, Order("digits")), torch.device("cpu"))
    if not isinstance(task, DiffusionTask):
        raise TypeError
    return task


def gaussian_pairs(rng: np.random.Generator, count: int) -> Pictures:
    """c ~ N(0, OF_INPUT^2) and y = SLOPE c + N(0, LEFT^2), pixel by pixel, as bytes."""
    c = OF_INPUT * rng.standard_normal((count, 1, 4, 4))
    y = SLOPE * c + LEFT * rng.standard_normal(c.shape)
    wanted, shown = (((one + 1) * 127.5).round().clip(0, 255).astype(np.uint8) for one in (y, c))
    return Pictures(torch.from_numpy(wanted), torch.zeros(count, dtype=torch.int64), (), torch.from_numpy(shown))


def best_loss(lam: torch.Tensor, sd: float) -> torch.Tensor:
    """E (u - u_theta)^2 of the best network, u = eps - y: sd^2/(alpha^2 sd^2 + sigma^2) where y ~ N(m, sd^2)."""
    level = Level.from_lam(lam.double())
    alpha, sigma = (one / (level.alpha + level.sigma) for one in (level.alpha, level.sigma))
    return sd**2 / (alpha**2 * sd**2 + sigma**2)


def trained_losses(steps: int) -> dict[str, float]:
    """Losses on the same new pairs: the network's, with the inputs of others, and the best with and without inputs."""
    task, rng = task_with(Concat("paired", 1, drop=0.0), side=4), np.random.default_rng(0)
    optimizer = torch.optim.Adam(task.modules.parameters(), betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, 2 * (1 - step / steps))
        optimizer.zero_grad()
        position = Position(0, range(step * BATCH, (step + 1) * BATCH), 0)
        task.loss(task.phases[0], gaussian_pairs(rng, BATCH), position).total.backward()
        optimizer.step()
    batch, position = gaussian_pairs(rng, 256), Position(1, range(256), 0)
    if batch.inputs is None:
        raise TypeError
    with torch.no_grad():
        loss = task.loss(task.phases[0], batch, position)
        swapped = task.loss(task.phases[0], replace(batch, inputs=batch.inputs.roll(1, 0)), position)
    if loss.coordinate is None:
        raise TypeError
    spread = (SLOPE**2 * OF_INPUT**2 + LEFT**2) ** 0.5
    best, blind = (float(best_loss(loss.coordinate, sd).mean()) for sd in (LEFT, spread))
    return {"found": float(loss.total), "swapped": float(swapped.total), "best": best, "blind": blind}
