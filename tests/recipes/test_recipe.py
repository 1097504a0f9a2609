"""Every recipe describes a model that can be built, trained and sampled."""

from __future__ import annotations

import json
import math

import pytest
import torch

from nirvana.condition.encoder import joint_config
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


@pytest.mark.parametrize("name", ["flow", "dit"])
def test_a_flow_is_trained_on_more_noise_and_a_wider_range_of_it_where_texts_say_what_to_draw(name: str) -> None:
    """log(sigma/alpha) is normal: (0, 1) without texts, (log 2, 1.5) with them; u = Phi(-1), 1/2, Phi(1)."""
    u, facts = torch.special.ndtr(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)), Facts(8, 1)
    texts = Facts(8, 1, encoder=joint_config(["a red square"]))
    for told, mean, std in ((facts, 0.0, 1.0), (texts, math.log(2), 1.5)):
        recipe = RECIPES[name](told)
        lam = recipe.objective(build(recipe.model)).sampler(u).lam
        assert torch.allclose(-lam, torch.tensor([mean - std, mean, mean + std], dtype=torch.float64), atol=1e-9)
    # Words that are read together are learnt only while the network that reads them changes slowly.
    assert RECIPES["flow"](texts).lr < RECIPES["flow"](facts).lr / 2


@pytest.mark.parametrize(("size", "stem"), [(8, 1), (20, 1), (28, 2), (40, 2), (64, 4), (80, 4), (128, 8)])
def test_the_stem_leaves_a_grid_of_about_sixteen(size: int, stem: int) -> None:
    assert stem_of(size) == stem
