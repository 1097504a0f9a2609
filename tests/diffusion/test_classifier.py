"""Guidance by gradients against exact posteriors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.grid import uniform
from nirvana.diffusion.guidance import APG, CFG, ClassifierGuided, Clipped, Guided
from nirvana.diffusion.level import Level
from nirvana.diffusion.named import DDIM
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.schedule import RectifiedFlow

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


MEANS, WEIGHTS, VARIANCES = (
    random(4, 3, seed=1),
    torch.tensor([0.1, 0.2, 0.3, 0.4]),
    torch.tensor([0.1, 0.2, 0.05, 0.3]),
)
WHOLE = MixtureDenoiser(WEIGHTS, MEANS, VARIANCES)
PART = MixtureDenoiser(WEIGHTS[:2], MEANS[:2], VARIANCES[:2])
"""The class y: the first two components."""


def posterior(x: Tensor, level: Level) -> Tensor:
    """log p(y | x) of the mixture."""
    return PART.log_prob(x, level) - WHOLE.log_prob(x, level) + math.log(0.3)


@pytest.mark.parametrize("lam", [-3.0, 0.0, 2.0, torch.tensor([-1.0, 0.5, 3.0])], ids=["noise", "mid", "data", "items"])
def test_the_exact_posterior_makes_the_exact_denoiser_of_the_class(lam: float | Tensor) -> None:
    level = Level.from_lam(lam).scaled(1.7)
    x = random(3, 3, seed=2)
    found = ClassifierGuided(WHOLE, posterior)(x, level, {}).x0
    assert torch.allclose(found, PART(x, level, {}).x0, rtol=0, atol=1e-9)
    assert not found.requires_grad


def test_the_scale_multiplies_the_term() -> None:
    level, x = Level.of(0.6, 0.8), random(3, 3, seed=2)
    plain, once, thrice = (ClassifierGuided(WHOLE, posterior, scale)(x, level, {}).x0 for scale in (0.0, 1.0, 3.0))
    assert torch.equal(plain, WHOLE(x, level, {}).x0)
    assert torch.allclose(thrice - plain, 3 * (once - plain), rtol=0, atol=1e-12)


def test_a_classifier_of_clean_data_is_differentiated_through_the_denoiser() -> None:
    """x0(x) of a Gaussian is linear, so the gradient is its matrix times that of the classifier."""
    cov = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=F64)
    denoiser, level, x = GaussianDenoiser(torch.zeros(2, dtype=F64), cov), Level.of(0.6, 0.8), random(4, 2)
    target = random(2, seed=9)

    def log_prob(x0: Tensor, level: Level) -> Tensor:
        return -0.5 * ((x0 - target) ** 2).sum(1)

    matrix = 0.6 * cov @ torch.linalg.inv(0.36 * cov + 0.64 * torch.eye(2, dtype=F64))
    x0 = x @ matrix.T
    expected = x0 + 2.0 * 0.64 / 0.6 * (target - x0) @ matrix
    found = ClassifierGuided(denoiser, log_prob, 2.0, "x0")(x, level, {}).x0
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_what_is_differentiated_further_keeps_its_graph() -> None:
    level, x = Level.of(0.6, 0.8), random(2, 3, seed=2).requires_grad_()
    for reads in ("x", "x0"):
        wanted = PART(x, level, {}).x0 if reads == "x" else None
        found = ClassifierGuided(WHOLE, posterior, reads=reads)(x, level, {}).x0
        (gradient,) = torch.autograd.grad(found.sum(), x)
        if wanted is not None:
            (exact,) = torch.autograd.grad(wanted.sum(), x)
            assert torch.allclose(gradient, exact, rtol=0, atol=1e-8)


def test_no_classifier_where_its_term_has_no_weight() -> None:
    def never(x: Tensor, level: Level) -> Tensor:
        raise AssertionError("called")

    x = random(2, 3)
    for level in (Level.of(0.0, 1.0), Level.of(1.0, 0.0)):
        for reads in ("x", "x0"):
            found = ClassifierGuided(WHOLE, never, reads=reads)(x, level, {}).x0
            assert torch.equal(found, WHOLE(x, level, {}).x0)


def test_items_at_pure_noise_are_left_alone_among_others() -> None:
    level, x = Level(torch.tensor([0.0, 0.6], dtype=F64), torch.tensor([1.0, 0.8], dtype=F64)), random(2, 3)
    found = ClassifierGuided(WHOLE, posterior)(x, level, {}).x0
    assert torch.equal(found[:1], WHOLE(x[:1], Level.of(0.0, 1.0), {}).x0)
    assert torch.allclose(found[1:], PART(x[1:], Level.of(0.6, 0.8), {}).x0, rtol=0, atol=1e-9)


class Fractional:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.seen.append((cond, nxt))
        return Prediction(x * 0.5, x * 3)


@pytest.mark.parametrize("reads", ["x", "x0"])
def test_all_but_x0_is_the_denoisers_and_its_arguments_are_passed_on(reads: Any) -> None:
    model, x, nxt = Fractional(), random(2, 3), Level.of(0.8, 0.6)
    cond = {"vector": torch.ones(2, 1)}
    found = ClassifierGuided(model, lambda x, level: x.sum(1), reads=reads)(x, Level.of(0.6, 0.8), cond, nxt)
    assert model.seen == [(cond, nxt)]
    assert found.var_frac is not None and torch.equal(found.var_frac, x * 3)


def test_guidance_by_branches_inside_and_a_trajectory_around() -> None:
    """Under no_grad; the memory of the rule keeps no graph, and starts anew."""
    rule = APG(2.0, momentum=0.5)
    guided = ClassifierGuided(Guided((PART, WHOLE), rule), posterior, 0.5, "x0")
    denoiser = Clipped(guided, -9.0, 9.0)
    levels, noise = uniform(RectifiedFlow(), 5), SeededNoise([1, 2], (3,))
    x = start(noise, levels[0])
    with torch.no_grad():
        walks = [[s.x for s in trajectory(denoiser, x, levels, DDIM(), cond={}, noise=noise)] for _ in range(2)]
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(*walks, strict=True))
    plain = Clipped(Guided((PART, WHOLE), rule), -9.0, 9.0)
    assert not torch.allclose(list(trajectory(plain, x, levels, DDIM(), cond={}, noise=noise))[-1].x, walks[0][-1])
    found = guided(x, levels[1], {}, levels[2])
    assert not found.x0.requires_grad and all(not d.requires_grad for d in rule._last)


def test_what_cannot_be_is_refused() -> None:
    x, level = random(2, 3), Level.of(0.6, 0.8)
    with torch.inference_mode(), pytest.raises(ValueError, match="no_grad"):
        ClassifierGuided(WHOLE, posterior)(x, level, {})
    for scale in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale"):
            ClassifierGuided(WHOLE, posterior, scale)
    made = object.__new__(ClassifierGuided)  # past the checked annotations of these tests
    made.__dict__.update(denoiser=WHOLE, log_prob=posterior, scale=1.0, reads="y")
    with pytest.raises(ValueError, match="reads 'x' or 'x0'"):
        made.__post_init__()
    with pytest.raises(ValueError, match="one number for each item"):
        ClassifierGuided(WHOLE, lambda x, level: x)(x, level, {})
    with pytest.raises(ValueError, match="no gradient"):
        ClassifierGuided(WHOLE, lambda x, level: torch.zeros(len(x)))(x, level, {})


def test_a_state_made_in_inference_mode_is_fine() -> None:
    with torch.inference_mode():
        x = random(2, 3)
    with torch.no_grad():
        found = ClassifierGuided(WHOLE, posterior)(x, Level.of(0.6, 0.8), {}).x0
    assert torch.allclose(found, PART(x, Level.of(0.6, 0.8), {}).x0, rtol=0, atol=1e-9)


def test_with_classes_it_multiplies_what_cfg_does() -> None:
    level, x = Level.of(0.6, 0.8), random(3, 3, seed=2)
    found = ClassifierGuided(Guided((PART, WHOLE), CFG(2.0)), posterior)(x, level, {}).x0
    assert torch.allclose(found, Guided((PART, WHOLE), CFG(3.0))(x, level, {}).x0, rtol=0, atol=1e-8)
