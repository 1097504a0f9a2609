"""Every recipe describes a model that can be built, trained and sampled."""

from __future__ import annotations

import json

import pytest
import torch

from nirvana.diffusion.grid import GRIDS
from nirvana.generate.latent_spec import FAMILIES
from nirvana.generate.spec import build
from nirvana.recipes.recipe import RECIPES, Facts, stem_of


@pytest.mark.parametrize("facts", [Facts(8, 1, ("a", "b")), Facts(28, 1), Facts(64, 3, ("a",))], ids=str)
@pytest.mark.parametrize("name", [name for name in RECIPES if name not in FAMILIES])
def test_a_recipe_can_be_stored_built_and_trained(name: str, facts: Facts) -> None:
    recipe = RECIPES[name](facts)
    parts = build(json.loads(json.dumps(recipe.model)))
    objective = recipe.objective(parts)
    rng = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, *parts.shape, generator=rng) for _ in range(2))
    level = objective.sampler(torch.tensor([0.0, 0.999]))
    cond = parts.conditioner(torch.zeros(2, dtype=torch.int64))
    loss = objective.loss(parts.denoiser, x0.clamp(-1, 1), eps, level, cond).total
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parts.denoiser.net.out.parameters())
    best = parts.recommended
    assert best.guidance > 1 if facts.names else best.guidance == 1
    assert len(GRIDS[best.grid](parts.trained_lam)(parts.schedule, best.steps)) == best.steps + 1


@pytest.mark.parametrize(("size", "stem"), [(8, 1), (20, 1), (28, 2), (40, 2), (64, 4), (80, 4), (128, 8)])
def test_the_stem_leaves_a_grid_of_about_sixteen(size: int, stem: int) -> None:
    assert stem_of(size) == stem
