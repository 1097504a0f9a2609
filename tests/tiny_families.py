"""A tiny GAN and VAE of digits: descriptions, tasks with shaken weights, and run folders of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nirvana.generate.family import model_parts
from nirvana.generate.latent_spec import latent_spec
from nirvana.nn import PyramidConfig
from nirvana.recipes.image import make_task
from nirvana.recipes.recipe import RECIPES, Facts, Recipe
from nirvana.train import checkpoint
from nirvana.train.ema import Average
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder

FAMILIES = ("gan", "vae")
NAMES = ("cat", "dog", "otter")
DIGITS = tuple("0123456789")


def spec(family: str, names: tuple[str, ...] = NAMES, channels: int = 1) -> dict[str, Any]:
    """The description of a tiny model of 8x8 pictures."""
    net = PyramidConfig(channels, (8, 8), width=4, blocks=1, vector_dim=6 if names else 0)
    return latent_spec(family, net, 5, names)


def made_task(family: str, plan: TrainPlan, names: tuple[str, ...] = DIGITS) -> Any:
    """A task on 8x8 digits with weights that are nowhere 0."""
    recipe = RECIPES[family](Facts(8, 1, names))
    recipe = Recipe(spec(family, names), recipe.objective)
    task: Any = make_task(recipe, recipe.model, plan, torch.device("cpu"))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.modules.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.05, generator=rng))
    return task


def make_run(
    path: Path, family: str, names: tuple[str, ...] = NAMES, data: dict[str, Any] | None = None, seed: int = 1
) -> Path:
    """A finished run at `path` with EMA weights of `seed` and raw ones of `seed + 1`."""
    description = spec(family, names)
    manifest = {"source": "pets", "pictures": 100, "rejected": []} if data is None else data
    plan = TrainPlan(images=100, batch=10)
    run = RunFolder.create(path, {"recipe": family}, plan, manifest, description, "nirvana train pets")

    def weights(number: int) -> dict[str, torch.Tensor]:
        shapes = model_parts(description).modules().state_dict()
        rng = torch.Generator().manual_seed(number)
        return {name: torch.randn(value.shape, generator=rng) * 0.3 for name, value in shapes.items()}

    averages = [Average(100, width, weights(seed)) for width in plan.ema]
    checkpoint.save(run, checkpoint.Progress(100, True, True, 0, 1.0, []), weights(seed + 1), {}, averages)
    return path
