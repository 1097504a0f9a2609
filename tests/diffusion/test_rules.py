"""Rules of guidance against closed forms, against each other, and along whole trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.grid import uniform
from nirvana.diffusion.guidance import (
    APG,
    CFG,
    RULES,
    CFGpp,
    Clipped,
    Composed,
    Guided,
    Interval,
    Rescaled,
    Rule,
    Thresholded,
    WithCond,
)
from nirvana.diffusion.guidance.around import quantile
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.named import DDIM, SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction, eps_from_x0
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.schedule import Cosine, RectifiedFlow
from nirvana.diffusion.solver import Ancestral

F64 = torch.float64
LEVEL, NXT = Level.of(0.6, 0.8), Level.of(0.8, 0.6)
LEVELS = {
    "inside": (Level.of(0.6, 0.8), Level.of(0.8, 0.6)),
    "from pure noise": (Level.of(0.0, 1.0), Level.of(0.3, 0.7)),
    "to clean": (Level.of(0.9, 0.4), Level.of(1.0, 0.0)),
    "in one step": (Level.of(0.0, 1.0), Level.of(1.0, 0.0)),
    "of another norm": (Level.of(1.0, 4.0), Level.of(1.0, 0.5)),
    "encoding": (Level.of(0.8, 0.6), Level.of(0.2, 0.9)),
    "encoding to pure noise": (Level.of(0.8, 0.6), Level.of(0.0, 1.0)),
    "per item": (Level.from_lam(torch.tensor([-2.0, 0.0, 1.0])), Level.from_lam(torch.tensor([-1.0, 3.0, 1.1]))),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pair(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """strong, weak, x."""
    return random(3, 2, 5, seed=seed), random(3, 2, 5, seed=seed + 10), random(3, 2, 5, seed=seed + 20)


@dataclass
class Fixed:
    """Always the same x0; counts its calls."""

    x0: Tensor
    calls: int = 0

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.calls += 1
        return Prediction(self.x0)


@dataclass
class Labelled:
    """x0 = cond + x/9; counts the items of every call."""

    calls: list[int]

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.calls.append(len(x))
        return Prediction(cond["vector"] + x / 9)


# Every rule


ALL: dict[str, Callable[[float], Rule]] = {
    "cfg": CFG,
    "rescale": lambda w: Rescaled(CFG(w)),
    "apg": APG,
    "interval": lambda w: Interval(APG(w), 0.1, 9.0),
    "composed": lambda w: Composed((1.0,), CFG(w)),
    "threshold": lambda w: Thresholded(CFG(w), bound=100.0),
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_w_one_is_the_strong_branch_bit_for_bit_and_calls_no_other(make: Callable[[float], Rule]) -> None:
    strong, weak, x = pair()
    branches = Fixed(strong.float()), Fixed(weak.float())
    found = Guided(branches, make(1.0)).fresh()(x.float(), LEVEL, {}, NXT).x0
    assert torch.equal(found, strong.float())
    assert [branch.calls for branch in branches] == [1, 0]


@pytest.mark.parametrize("make", [*ALL.values(), lambda w: CFGpp(min(w, 1.0))], ids=[*ALL, "cfg++"])
@pytest.mark.parametrize("w", [0.0, 0.4, 3.0])
def test_an_item_is_the_same_alone_and_in_a_batch(make: Callable[[float], Rule], w: float) -> None:
    """Along three steps, so that memories differ too."""
    whole = make(w).fresh()
    alone = [make(w).fresh() for _ in range(3)]
    for seed in range(3):
        strong, weak, x = pair(seed)
        together = whole((strong, weak), x, LEVEL, NXT)
        for i, rule in enumerate(alone):
            single = rule((strong[i : i + 1], weak[i : i + 1]), x[i : i + 1], LEVEL, NXT)
            assert torch.allclose(single[0], together[i], rtol=0, atol=1e-13)


def test_the_table_of_rules_makes_what_it_says() -> None:
    assert RULES.keys() == {"cfg", "cfg++", "rescale", "apg", "threshold"}
    assert RULES["cfg"](2.0) == CFG(2.0) and RULES["cfg++"](0.5) == CFGpp(0.5)
    assert RULES["apg"](2.0, norm=3.0) == APG(2.0, norm=3.0)
    assert RULES["rescale"](2.0, phi=0.5) == Rescaled(CFG(2.0), 0.5)
    assert RULES["threshold"](2.0, percentile=0.9) == Thresholded(CFG(2.0), 0.9, 1.0)


# CFG++


def cfgpp_step(strong: Tensor, weak: Tensor, x: Tensor, now: Level, nxt: Level, w: float) -> Tensor:
    """Chung et al. 2024, algorithm 2: the guided x0, and the eps of the weak branch."""
    x0 = weak + w * (strong - weak)
    return left_align(nxt.alpha, x) * x0 + left_align(nxt.sigma, x) * eps_from_x0(x, weak, now)


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
def test_a_ddim_step_with_the_rule_is_the_step_of_cfg_plus_plus(levels: tuple[Level, Level], w: float) -> None:
    strong, weak, x = pair()
    now, nxt = levels
    denoiser = Guided((Fixed(strong), Fixed(weak)), CFGpp(w))

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return denoiser(x, level, {}, nxt)

    solver = DDIM()
    found = solver.step(denoise, x, now, nxt, solver.init(x), SeededNoise([0, 1, 2], (2, 5)))[0].x
    assert torch.allclose(found, cfgpp_step(strong, weak, x, now, nxt, w), rtol=0, atol=1e-12)


def test_the_weight_of_cfg_plus_plus_makes_plain_guidance_the_same_step() -> None:
    """The number itself, and in a walk, where it is worked out beforehand."""
    now, nxt = LEVELS["inside"]
    assert float(CFGpp(0.5).weight(now, nxt)) == pytest.approx(0.5 / (1 - (0.6 / 0.8) * (0.6 / 0.8)), abs=1e-15)
    levels = uniform(RectifiedFlow(), 4)
    for a, b in pairwise(levels):
        single = CFGpp(0.5).weight(Level(a.alpha, a.sigma), Level(b.alpha, b.sigma))
        assert CFGpp(0.5).weight(a, b) == pytest.approx(float(single), abs=1e-15)


@pytest.mark.parametrize(
    "around",
    [
        lambda rule: Interval(rule, 0.0, math.inf),
        lambda rule: Rescaled(rule, 0.0),
        lambda rule: Thresholded(rule, bound=1e3),
        lambda rule: Composed((1.0,), rule),
    ],
    ids=["interval", "rescaled", "thresholded", "composed"],
)
def test_rules_around_a_rule_tell_it_where_the_step_goes(around: Callable[[Rule], Rule]) -> None:
    strong, weak, x = pair()
    assert around(CFGpp(0.5)).needs(LEVEL, NXT) == (True, True)
    assert around(CFGpp(1.0)).needs(*LEVELS["to clean"])[1] is False
    expected = CFGpp(0.5)((strong, weak), x, LEVEL, NXT)
    assert torch.allclose(around(CFGpp(0.5))((strong, weak), x, LEVEL, NXT), expected, rtol=0, atol=1e-14)
    assert around(CFGpp(0.5)).first_order_only and not around(CFG(2.0)).first_order_only


@pytest.mark.parametrize(
    ("w", "levels", "needs"),
    [
        (0.0, "inside", (False, True)),
        (0.5, "inside", (True, True)),
        (1.0, "inside", (True, True)),
        (1.0, "to clean", (True, False)),
        (1.0, "from pure noise", (True, False)),
        (0.5, "to clean", (True, True)),
    ],
)
def test_cfg_plus_plus_calls_what_it_needs(w: float, levels: str, needs: tuple[bool, bool]) -> None:
    assert CFGpp(w).needs(*LEVELS[levels]) == needs


def test_cfg_plus_plus_refuses_other_solvers_and_scales() -> None:
    model = Fixed(torch.zeros(1, 2))
    noise = SeededNoise([0], (2,))
    inner = Guided((model, model), Rescaled(Interval(CFGpp(0.5), 0.0, 9.0), 0.5))
    for denoiser in (inner, Clipped(inner), WithCond(inner, {}), Guided((inner, model), Composed((1.0,), CFG(1.0)))):
        for solver in (SOLVERS["dpmpp-2m"](), Ancestral(), DDIM(0.5)):
            with pytest.raises(ValueError, match="first order"):
                trajectory(denoiser, torch.zeros(1, 2), uniform(Cosine(), 3), solver, cond={}, noise=noise)
        trajectory(denoiser, torch.zeros(1, 2), uniform(Cosine(), 3), DDIM(), cond={}, noise=noise)
    assert model.calls == 0
    with pytest.raises(ValueError, match="use a first-order solver"):
        CFGpp(0.5).needs(LEVEL)
    for w in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="guidance is"):
            CFGpp(w)


# APG


@pytest.mark.parametrize("w", [0.0, 0.5, 2.0, 7.0])
def test_apg_without_its_changes_is_cfg(w: float) -> None:
    rule = APG(w, eta=1.0, norm=math.inf, momentum=0.0)
    for seed in range(3):
        strong, weak, x = pair(seed)
        expected = CFG(w)((strong, weak), x, LEVEL)
        assert torch.allclose(rule((strong, weak), x, LEVEL), expected, rtol=0, atol=1e-13)


def test_apg_is_what_its_paper_says() -> None:
    """By the projections written out: momentum, then the length, then the parts."""
    rule, last = APG(3.0, eta=0.25, norm=2.0, momentum=-0.5).fresh(), torch.zeros(3, 10, dtype=F64)
    for seed in range(3):
        strong, weak, x = pair(seed)
        last = (strong - weak).flatten(1) - 0.5 * last
        d = last.clone()
        for row in d:
            row *= min(1.0, 2.0 / float(row.norm()))
        unit = torch.nn.functional.normalize(strong.flatten(1), dim=1)
        parallel = (d * unit).sum(1, keepdim=True) * unit
        expected = strong.flatten(1) + 2.0 * ((d - parallel) + 0.25 * parallel)
        found = rule((strong, weak), x, LEVEL).flatten(1)
        assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_apg_without_the_parallel_part_moves_at_right_angles_to_the_strong_branch() -> None:
    strong, weak, x = pair()
    moved = APG(5.0, eta=0.0, norm=math.inf, momentum=0.0)((strong, weak), x, LEVEL) - strong
    assert torch.allclose((moved * strong).flatten(1).sum(1), torch.zeros(3, dtype=F64), atol=1e-12)
    assert float(moved.abs().max()) > 1


def test_apg_of_nothing_is_nothing() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert torch.equal(APG(3.0)((one, one), one, LEVEL), one)
    assert torch.equal(APG(3.0, norm=math.inf)((one, one), one, LEVEL), one)
    assert torch.equal(APG(3.0, momentum=0.0)((zero, one), one, LEVEL), -2 * one)


def test_a_trajectory_begins_without_a_memory_and_leaves_none() -> None:
    denoiser = Clipped(Guided((Labelled([]), Labelled([])), Interval(Rescaled(APG(3.0, momentum=0.8)), 0.01, 50.0)))
    strong, weak = {"vector": random(2, 3, seed=3)}, {"vector": random(2, 3, seed=4)}
    guided = Clipped(
        Guided((WithCond(denoiser, strong), WithCond(denoiser, weak)), APG(3.0, momentum=0.8)), -50.0, 50.0
    )
    levels, noise = uniform(Cosine(), 6), SeededNoise([1, 2], (3,))
    x = start(noise, levels[0])

    def walked() -> list[Tensor]:
        return [step.x for step in trajectory(guided, x, levels, DDIM(), cond={}, noise=noise)]

    first, second = walked(), walked()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # Two that run in turns do not disturb each other.
    walks = [trajectory(guided, x, levels, DDIM(), cond={}, noise=noise) for _ in range(2)]
    for a, b, expected in zip(*walks, first, strict=True):
        assert torch.equal(a.x, expected) and torch.equal(b.x, expected)
    without = Clipped(Guided(guided.denoiser.branches, APG(3.0, momentum=0.0)), -50.0, 50.0)  # pyright: ignore
    last = list(trajectory(without, x, levels, DDIM(), cond={}, noise=noise))[-1].x
    assert not torch.allclose(last, first[-1], atol=1e-3)


def test_apg_refuses_to_go_on_with_another_batch() -> None:
    rule = APG(3.0)
    strong, weak, x = pair()
    rule((strong, weak), x, LEVEL)
    with pytest.raises(ValueError, match="fresh"):
        rule((strong[:2], weak[:2]), x[:2], LEVEL)
    rule.fresh()((strong[:2], weak[:2]), x[:2], LEVEL)


# Rescaling and thresholding


def test_rescaling_gives_the_strong_branch_its_deviation_back() -> None:
    strong, weak, x = pair()
    plain = CFG(4.0)((strong, weak), x, LEVEL)
    assert torch.equal(Rescaled(CFG(4.0), 0.0)((strong, weak), x, LEVEL), plain)
    whole = Rescaled(CFG(4.0), 1.0)((strong, weak), x, LEVEL)
    assert torch.allclose(whole.flatten(1).std(1), strong.flatten(1).std(1), rtol=0, atol=1e-14)
    some = Rescaled(CFG(4.0), 0.3)((strong, weak), x, LEVEL)
    assert torch.allclose(some, 0.3 * whole + 0.7 * plain, rtol=0, atol=1e-14)


def test_rescaling_needs_the_strong_branch_and_bears_constants() -> None:
    assert Rescaled(CFG(0.0), 0.5).needs(LEVEL) == (True, True)
    assert Rescaled(CFG(0.0), 0.0).needs(LEVEL) == (False, True)
    strong, weak, x = pair()
    found = Rescaled(CFG(0.0), 1.0)((strong, weak), x, LEVEL)
    assert torch.allclose(found.flatten(1).std(1), strong.flatten(1).std(1), rtol=0, atol=1e-14)
    flat = torch.full((2, 3), 0.5)
    assert torch.equal(Rescaled(CFG(2.0), 1.0)((flat, flat), flat, LEVEL), flat)


@pytest.mark.parametrize("percentile", [0.1, 0.5, 0.77, 0.995, 1.0])
def test_thresholding_is_by_the_quantile_of_every_item(percentile: float) -> None:
    strong, weak, x = pair()
    guided = CFG(4.0)((strong, weak), x, LEVEL)
    found = Thresholded(CFG(4.0), percentile, bound=0.8)((strong, weak), x, LEVEL)
    for one, result in zip(guided, found, strict=True):
        s = max(float(torch.quantile(one.abs().flatten(), percentile)), 0.8)
        assert torch.allclose(result, one.clamp(-s, s) / s * 0.8, rtol=0, atol=1e-14)
    assert float(found.abs().max()) == pytest.approx(0.8, abs=1e-12)


def test_thresholding_leaves_what_is_in_range() -> None:
    x0 = random(2, 9).clamp(-1, 1)
    assert torch.equal(Thresholded(CFG(1.0))((x0, None), x0, LEVEL), x0)
    assert Thresholded(CFG(0.0)).needs(LEVEL) == (False, True)


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_quantiles_are_those_of_torch(n: int) -> None:
    values = random(4, n)
    for q in (0.01, 0.3, 0.5, 0.995, 1.0):
        assert torch.allclose(quantile(values, q), torch.quantile(values, q, dim=1), rtol=0, atol=1e-15)


# Composition


def three(seed: int = 0) -> tuple[list[Tensor], Tensor]:
    return [random(3, 2, 5, seed=seed + i) for i in range(3)], random(3, 2, 5, seed=seed + 9)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 4.0])
def test_one_condition_of_weight_one_is_cfg_bit_for_bit(w: float) -> None:
    strong, weak, x = pair()
    for rule in (CFG(w), Rescaled(CFG(w)), Interval(CFG(w), 2.0, 3.0)):
        composed = Composed((1.0,), rule)
        assert composed.needs(LEVEL) == rule.needs(LEVEL)
        x0s = [x0 if needed else None for x0, needed in zip((strong, weak), rule.needs(LEVEL), strict=True)]
        assert torch.equal(composed(x0s, x, LEVEL), rule(x0s, x, LEVEL))


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 4.0])
def test_conditions_add_up(w: float) -> None:
    (a, b, null), x = three()
    found = Composed((1.5, -0.3), CFG(w))((a, b, null), x, LEVEL)
    expected = null + w * (1.5 * (a - null) - 0.3 * (b - null))
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)


def test_weights_of_each_item() -> None:
    (a, b, null), x = three()
    weights = torch.tensor([1.0, 0.5, 0.0], dtype=F64), torch.tensor([0.0, 2.0, 1.0], dtype=F64)
    found = Composed(weights, CFG(3.0))((a, b, null), x, LEVEL)
    for i in range(3):
        single = Composed(tuple(float(one[i]) for one in weights), CFG(3.0))
        parts = [part[i : i + 1] for part in (a, b, null)]
        assert torch.allclose(single(parts, x[i : i + 1], LEVEL)[0], found[i], rtol=0, atol=1e-13)


def test_the_score_of_a_composition_is_that_of_the_product() -> None:
    """grad log p(x) (p(x | a)/p(x))^1.5 (p(x | b)/p(x))^0.5, in closed form."""
    means = random(3, 2, seed=5)
    whole = MixtureDenoiser(torch.tensor([0.2, 0.3, 0.5]), means, torch.tensor([0.1, 0.2, 0.3]))
    a, b = (MixtureDenoiser(torch.ones(1), means[i : i + 1], torch.tensor([0.1 * (i + 1)])) for i in (0, 1))
    x = random(4, 2, seed=6).requires_grad_()
    logs = [one.log_prob(x, LEVEL) for one in (a, b, whole)]
    (score,) = torch.autograd.grad((1.5 * logs[0] + 0.5 * logs[1] - logs[2]).sum(), x)
    found = Guided((a, b, whole), Composed((1.5, 0.5), CFG(1.0)))(x.detach(), LEVEL, {}).x0
    assert torch.allclose((LEVEL.alpha * found - x) / LEVEL.sigma**2, score, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("weights", "w", "needs"),
    [
        ((1.5, 0.5), 1.0, (True, True, True)),
        ((0.5, 0.5), 1.0, (True, True, False)),
        ((0.5, 0.5), 2.0, (True, True, True)),
        ((0.5, 0.0), 2.0, (True, False, True)),
        ((0.5, 0.5), 0.0, (False, False, True)),
    ],
)
def test_a_composition_calls_what_it_needs(weights: tuple[float, ...], w: float, needs: tuple[bool, ...]) -> None:
    assert Composed(weights, CFG(w)).needs(LEVEL) == needs


def test_all_conditions_and_one_null_are_one_call() -> None:
    model, conds = Labelled([]), [{"vector": random(3, 5, seed=i)} for i in range(4)]
    x = random(3, 5, seed=8)
    found = Guided(tuple(WithCond(model, cond) for cond in conds), Composed((1.0, 2.0, -0.5), CFG(2.0)))(x, LEVEL, {})
    assert model.calls == [12]
    a, b, c, null = (cond["vector"] + x / 9 for cond in conds)
    expected = null + 2.0 * ((a - null) + 2.0 * (b - null) - 0.5 * (c - null))
    assert torch.allclose(found.x0, expected, rtol=0, atol=1e-13)


def test_an_interval_inside_of_a_composition_is_the_composed_strong_branch_outside() -> None:
    (a, b, null), x = three()
    rule = Composed((1.5, 0.5), Interval(CFG(4.0), 5.0, 6.0))
    assert rule.needs(LEVEL) == (True, True, True)
    assert torch.allclose(rule((a, b, null), x, LEVEL), 1.5 * a + 0.5 * b - null, rtol=0, atol=1e-13)


# Autoguidance: the weak branch is another model


def test_a_weaker_model_as_the_weak_branch() -> None:
    """Two Gaussians of one mean, the weaker one wider: guidance makes the density narrower, in closed form."""
    mean = random(2, seed=2)
    strong, weak = (GaussianDenoiser(mean, scale * torch.eye(2, dtype=F64)) for scale in (0.5, 1.5))
    x = random(5, 2, seed=3).requires_grad_()
    tilted = 2.5 * strong.log_prob(x, LEVEL) - 1.5 * weak.log_prob(x, LEVEL)
    (score,) = torch.autograd.grad(tilted.sum(), x)
    found = Guided((strong, weak), CFG(2.5))(x.detach(), LEVEL, {}).x0
    assert torch.allclose((LEVEL.alpha * found - x) / LEVEL.sigma**2, score, rtol=0, atol=1e-9)


def test_branches_of_two_models_are_two_calls_of_their_own() -> None:
    one, other, cond = Labelled([]), Labelled([]), {"vector": random(3, 5)}
    x = random(3, 5, seed=7)
    branches: Sequence[Denoiser] = (WithCond(one, cond), WithCond(other, cond), WithCond(one, cond))
    Guided(tuple(branches), Composed((1.0, 1.0), CFG(2.0)))(x, LEVEL, {})
    assert (one.calls, other.calls) == ([6], [3])


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APG(math.nan), "guidance is"),
        (lambda: APG(-1.0), "guidance is"),
        (lambda: APG(2.0, eta=-0.1), "eta is"),
        (lambda: APG(2.0, eta=1.1), "eta is"),
        (lambda: APG(2.0, norm=0.0), "norm is"),
        (lambda: APG(2.0, norm=math.nan), "norm is"),
        (lambda: APG(2.0, momentum=1.0), "momentum is"),
        (lambda: APG(2.0, momentum=-1.0), "momentum is"),
        (lambda: Rescaled(CFG(2.0), -0.1), "phi is"),
        (lambda: Rescaled(CFG(2.0), 1.1), "phi is"),
        (lambda: Thresholded(CFG(2.0), 0.0), "percentile is"),
        (lambda: Thresholded(CFG(2.0), 1.1), "percentile is"),
        (lambda: Thresholded(CFG(2.0), 0.9, 0.0), "bound is"),
        (lambda: Thresholded(CFG(2.0), 0.9, math.inf), "bound is"),
        (lambda: Composed((), CFG(2.0)), "one finite number"),
        (lambda: Composed((1.0, math.inf), CFG(2.0)), "one finite number"),
        (lambda: Composed((torch.tensor([1.0, math.nan]),), CFG(2.0)), "one finite number"),
    ],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
