"""Guidance: which branches are called, batching, and the closed form on a mixture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.exact import MixtureDenoiser
from nirvana.diffusion.guidance import CFG, Clipped, Guided, Interval, WithCond, guided
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import Prediction

F64 = torch.float64
LEVEL, NXT = Level.of(0.6, 0.8), Level.of(0.8, 0.6)


class Shifted:
    """x0 = sin(x) * alpha + cond["vector"], var_frac = the vector too; remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Level, Level | None]] = []
        self.freshened = 0

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.calls.append((len(x), level, nxt))
        vector = cond["vector"].sum(1, keepdim=True)
        return Prediction(torch.sin(x) * left_align(level.alpha, x) + vector, vector.expand_as(x))


class Freshened(Shifted):
    def fresh(self) -> Freshened:
        self.freshened += 1
        return Freshened()


def conds() -> tuple[Cond, Cond]:
    generator = torch.Generator().manual_seed(2)
    strong, weak = torch.randn(2, 3, 4, generator=generator, dtype=F64)
    return {"vector": strong}, {"vector": weak}


def state() -> Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(4), dtype=F64)


def test_w_one_is_the_strong_branch_and_nothing_else():
    strong, weak = conds()
    denoiser = Shifted()
    found = guided(denoiser, strong, weak, 1.0)(state(), LEVEL, {}, NXT)
    assert denoiser.calls == [(3, LEVEL, NXT)]
    assert torch.equal(found.x0, Shifted()(state(), LEVEL, strong).x0)


def test_w_zero_is_the_weak_branch_and_nothing_else():
    strong, weak = conds()
    denoiser = Shifted()
    found = guided(denoiser, strong, weak, 0.0)(state(), LEVEL, {}, NXT)
    assert denoiser.calls == [(3, LEVEL, NXT)]
    assert torch.equal(found.x0, Shifted()(state(), LEVEL, weak).x0)


@pytest.mark.parametrize("w", [0.3, 2.0, 7.5])
@pytest.mark.parametrize("lam", [0.2, torch.tensor([-1.0, 0.0, 2.0], dtype=F64)], ids=["one", "per-item"])
def test_two_branches_of_one_denoiser_are_one_call(lam: float | Tensor, w: float):
    strong, weak = conds()
    level, nxt = Level.from_lam(lam), Level.from_lam(lam + 1)
    denoiser, apart = Shifted(), (Shifted(), Shifted())
    together = guided(denoiser, strong, weak, w)(state(), level, {}, nxt)
    separate = Guided((WithCond(apart[0], strong), WithCond(apart[1], weak)), CFG(w))(state(), level, {}, nxt)
    assert [n for n, _, _ in denoiser.calls] == [6]
    assert [one.calls for one in apart] == [[(3, level, nxt)], [(3, level, nxt)]]
    assert torch.allclose(together.x0, separate.x0, rtol=0, atol=1e-14)
    a, b = (Shifted()(state(), level, cond).x0 for cond in (strong, weak))
    assert torch.allclose(together.x0, b + w * (a - b), rtol=0, atol=1e-14)
    _, seen_level, seen_nxt = denoiser.calls[0]
    assert seen_nxt is not None
    if isinstance(lam, Tensor):
        assert torch.equal(seen_level.alpha, torch.cat([level.alpha] * 2))
        assert torch.equal(seen_nxt.sigma, torch.cat([nxt.sigma] * 2))


@pytest.mark.parametrize("w", [0.3, 1.0, 3.0])
def test_all_but_x0_is_the_strong_branch(w: float):
    strong, weak = conds()
    for branches in ((Shifted(),) * 2, (Shifted(), Shifted())):
        found = Guided((WithCond(branches[0], strong), WithCond(branches[1], weak)), CFG(w))(state(), LEVEL, {})
        assert found.var_frac is not None
        assert torch.equal(found.var_frac, Shifted()(state(), LEVEL, strong).var_frac)  # pyright: ignore


def test_conditions_of_other_shapes_are_called_apart():
    strong, weak = conds()
    denoiser = Shifted()
    shorter = {"vector": weak["vector"][:, :2]}
    found = guided(denoiser, strong, shorter, 2.0)(state(), LEVEL, {})
    a, b = (Shifted()(state(), LEVEL, cond).x0 for cond in (strong, shorter))
    assert [n for n, _, _ in denoiser.calls] == [3, 3]
    assert torch.allclose(found.x0, 2 * a - b, rtol=0, atol=1e-14)


def test_a_plain_branch_takes_the_condition_of_the_call():
    strong, weak = conds()
    one, other = Shifted(), Shifted()
    found = Guided((one, WithCond(WithCond(other, weak), strong)), CFG(2.0))(state(), LEVEL, strong)
    a, b = (Shifted()(state(), LEVEL, cond).x0 for cond in (strong, weak))
    assert torch.allclose(found.x0, 2 * a - b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("lam", [-1.0, 0.5, 2.0])
def test_the_score_is_that_of_the_tilted_density(lam: float, w: float):
    """The guided score is grad log p(x)^(1 - w) p(x | class)^w, both densities in closed form."""
    generator = torch.Generator().manual_seed(3)
    means = torch.randn(4, 2, generator=generator, dtype=F64)
    whole = MixtureDenoiser(torch.tensor([0.1, 0.2, 0.3, 0.4]), means, torch.tensor([0.1, 0.2, 0.05, 0.3]))
    part = MixtureDenoiser(torch.tensor([0.1, 0.2]), means[:2], torch.tensor([0.1, 0.2]))
    level = Level.from_lam(lam).scaled(1.3)
    x = torch.randn(6, 2, generator=generator, dtype=F64).requires_grad_()
    tilted = (1 - w) * whole.log_prob(x, level) + w * part.log_prob(x, level)
    (score,) = torch.autograd.grad(tilted.sum(), x)
    found = Guided((part, whole), CFG(w))(x.detach(), level, {}).x0
    assert torch.allclose((level.alpha * found - x) / level.sigma**2, score, rtol=0, atol=1e-9)


@pytest.mark.parametrize("w", [-0.1, -math.inf, math.nan, math.inf])
def test_guidance_out_of_range_is_refused(w: float):
    with pytest.raises(ValueError, match="guidance is"):
        CFG(w)


def test_a_rule_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="of 3 branches"):
        Guided((Shifted(),) * 3, CFG(2.0))(state(), LEVEL, conds()[0])


def test_two_branches_without_a_learned_variance_are_one_call_too():
    class Bare(Shifted):
        def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
            return Prediction(super().__call__(x, level, cond, nxt).x0)

    strong, weak = conds()
    denoiser = Bare()
    found = guided(denoiser, strong, weak, 2.0)(state(), LEVEL, {})
    assert [n for n, _, _ in denoiser.calls] == [6] and found.var_frac is None
    assert torch.equal(found.x0, guided(Shifted(), strong, weak, 2.0)(state(), LEVEL, {}).x0)


def test_clipped_keeps_x0_in_the_range_and_nothing_else():
    class Wide:
        def __call__(self, x: Tensor, level: Level, cond: object, nxt: Level | None = None) -> Prediction:
            return Prediction(torch.tensor([[-3.0, -0.5, 0.7, 2.0]]), torch.full((1, 4), 9.0))

    found = Clipped(Wide(), -1.0, 0.5)(torch.zeros(1, 4), LEVEL, {})
    assert found.x0.tolist() == [[-1.0, -0.5, 0.5, 0.5]]
    assert found.var_frac is not None and found.var_frac.tolist() == [[9.0] * 4]
    assert Clipped(Wide())(torch.zeros(1, 4), LEVEL, {}).x0.tolist() == [[-1.0, -0.5, pytest.approx(0.7), 1.0]]
    with pytest.raises(ValueError, match="low must be below high"):
        Clipped(Wide(), 1.0, 1.0)


def test_fresh_reaches_branches():
    one, other = Freshened(), Freshened()
    strong, weak = conds()
    Guided((WithCond(one, strong), other), CFG(2.0)).fresh()(state(), LEVEL, weak)
    assert (one.freshened, other.freshened) == (1, 1) and one.calls == other.calls == []


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(
    ("ratio", "inside"),
    [(0.0, False), (0.49, False), (0.5, True), (1.0, True), (2.0, True), (2.1, False), (9e9, False)],
)
def test_an_interval_guides_inside_and_is_the_strong_branch_outside(ratio: float, inside: bool, w: float):
    strong, weak = conds()
    level = Level.of(0.3, 0.3 * ratio)
    denoiser = Shifted()
    found = guided(denoiser, strong, weak, w, (0.5, 2.0))(state(), level, {}, NXT).x0
    plain = Shifted()
    assert torch.equal(found, guided(plain, strong, weak, w if inside else 1.0)(state(), level, {}, NXT).x0)
    assert [n for n, _, _ in denoiser.calls] == [n for n, _, _ in plain.calls] == [6 if inside and w == 3 else 3]


def test_an_interval_at_pure_noise_is_outside():
    assert Interval(CFG(3.0), 0.0, 1e300).needs(Level.of(0.0, 1.0)) == (True, False)


@pytest.mark.parametrize("w", [0.0, 2.0])
def test_an_interval_holds_for_every_item_by_itself(w: float):
    strong, weak = conds()
    level = Level.from_ratio(torch.tensor([0.1, 1.0, 7.0], dtype=F64))
    found = guided(Shifted(), strong, weak, w, (0.5, 2.0))(state(), level, {}).x0
    inside, outside = (guided(Shifted(), strong, weak, u)(state(), level, {}).x0 for u in (w, 1.0))
    assert torch.equal(found, torch.stack([outside[0], inside[1], outside[2]]))


@pytest.mark.parametrize("ends", [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan)])
def test_an_interval_that_is_none_is_refused(ends: tuple[float, float]):
    with pytest.raises(ValueError, match="guidance interval"):
        Interval(CFG(2.0), *ends)


def test_fresh_reaches_the_rule_of_an_interval():
    class Memory(CFG):
        def fresh(self) -> CFG:
            return CFG(9.0)

    made = Interval(Memory(2.0), 0.5, 1.0).fresh()
    assert (made.rule, made.low, made.high) == (CFG(9.0), 0.5, 1.0)
