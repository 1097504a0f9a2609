"""Inpainting: what is known stays, what is called, what is refused, and the same alone and in a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from nirvana.diffusion import (
    DDIM,
    SOLVERS,
    Cond,
    Guided,
    Level,
    Prediction,
    RectifiedFlow,
    SeededNoise,
    Solver,
    Step,
    WithCond,
    start,
    trajectory,
    uniform,
)
from nirvana.diffusion.guidance import CFG, CFGpp
from nirvana.diffusion.inpaint import METHODS, Known, Langevin, Method, Observed, RePaint, calls, inpainted
from nirvana.diffusion.inpaint.repaint import renoised
from nirvana.diffusion.noise import Key
from nirvana.diffusion.solver import Multistep
from nirvana.diffusion.solver.multistep import History
from nirvana.errors import Refused
from nirvana.generate.named import made

F64 = torch.float64
SHAPE = (1, 4, 4)
LEVELS = uniform(RectifiedFlow(), 6)


class Smooth:
    """x0 = (alpha x + 0.3 sigma^2 mean of the picture)/(alpha^2 + sigma^2), and where it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Level, Level | None]] = []

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.asked.append((level, nxt))
        alpha, sigma = level.like(x)
        x0 = (alpha * x + 0.3 * sigma**2 * x.mean((1, 2, 3), keepdim=True)) / (alpha**2 + sigma**2)
        return Prediction(x0, torch.full_like(x, 0.25))


def y() -> Tensor:
    return torch.linspace(-1, 1, 16).reshape(SHAPE)


def one_pixel() -> Tensor:
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[0, 1, 2] = True
    return known


def most() -> Tensor:
    return ~one_pixel()


def noise(*seeds: int, dtype: torch.dtype = torch.float32) -> SeededNoise:
    return SeededNoise(seeds or (3, 4), SHAPE, dtype=dtype)


def ended(
    method: Method,
    observed: Observed,
    solver: Solver[Any] | None = None,
    *seeds: int,
    levels: Sequence[Level] = LEVELS,
    denoiser: Any = None,
) -> Tensor:
    given = noise(*seeds)
    *_, last = inpainted(
        method,
        denoiser or Smooth(),
        observed.begun(given, levels[0]),
        observed,
        levels,
        solver or DDIM(),
        cond={},
        noise=given,
    )
    return last.x


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", METHODS)
def test_what_is_known_stays_bit_for_bit_with_every_solver(name: str, solver: str):
    for known in (one_pixel(), most()):
        end = ended(METHODS[name](), Observed(y(), known), SOLVERS[solver]())
        assert torch.equal(end[:, known], y()[known].expand(2, -1))
        assert bool(end.isfinite().all()) and not bool((end == y())[:, ~known].any())


@pytest.mark.parametrize("name", METHODS)
def test_all_known_is_y_and_nothing_known_is_sampling(name: str):
    assert torch.equal(ended(METHODS[name](), Observed(y(), torch.ones(1))), y().expand(2, -1, -1, -1))
    nothing, given = Observed(torch.tensor(math.nan), torch.tensor(False)), noise()
    *_, plain = trajectory(Smooth(), start(given, LEVELS[0]), LEVELS, DDIM(), cond={}, noise=given)
    same = torch.equal(ended(METHODS[name](), nothing), plain.x)
    assert same == (name in ("ddnm", "replacement"))  # the others draw numbers that plain sampling does not


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "heun", "ddpm", "heun-churn"])
@pytest.mark.parametrize("method", [*(make() for make in METHODS.values()), Langevin(3), RePaint(2, 1), RePaint(1, 9)])
def test_calls_are_exact(method: Method, solver: str):
    for levels in (LEVELS, LEVELS[1:], LEVELS[:2], LEVELS[1:3]):
        denoiser, of = Smooth(), SOLVERS[solver]()
        ended(method, Observed(y(), one_pixel()), of, levels=levels, denoiser=denoiser)
        assert len(denoiser.asked) == calls(method, of, levels)
    assert calls(method, SOLVERS["adaptive"](), LEVELS) is None


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_is_the_same_alone_and_in_a_batch(name: str):
    observed = Observed(y(), most())
    together = ended(METHODS[name](), observed, SOLVERS["ddpm"](), 5, 6, 7)
    assert torch.equal(together[1:2], ended(METHODS[name](), observed, SOLVERS["ddpm"](), 6))
    assert not torch.equal(together[1], together[2])


@pytest.mark.parametrize("name", METHODS)
def test_levels_of_each_picture(name: str):
    """Two pictures on levels of their own, in one batch as alone."""
    alone = [[Level.from_lam(lam + shift) for lam in (-1.0, 0.0, 0.5, 2.0, math.inf)] for shift in (0.0, 0.7)]
    both = [
        Level(torch.stack([a.alpha, b.alpha]), torch.stack([a.sigma, b.sigma])) for a, b in zip(*alone, strict=True)
    ]
    method = RePaint(2, 2) if name == "repaint" else METHODS[name]()
    together = ended(method, Observed(y(), one_pixel()), DDIM(), 5, 6, levels=both)
    for i, levels in enumerate(alone):
        single = ended(method, Observed(y(), one_pixel()), DDIM(), 5 + i, levels=levels)
        assert torch.allclose(together[i : i + 1], single, atol=1e-6)


def test_what_is_known_keeps_its_noise_on_the_way():
    given, observed = noise(dtype=F64), Observed(y(), most())
    x = observed.begun(given, LEVELS[0])
    walk = inpainted(Langevin(2), Smooth(), x, observed, LEVELS, DDIM(), cond={}, noise=given)
    for step in walk:
        expected = step.nxt.alpha * y().double() + step.nxt.sigma * given.initial()
        assert torch.allclose(step.x[:, most()], expected[:, most()], rtol=0, atol=1e-14)


def test_the_start_has_y_in_what_is_known_alone():
    level, given = Level.of(0.6, 0.8), noise()
    x = Observed(y(), one_pixel()).begun(given, level)
    assert torch.equal(x[:, most()], (0.8 * given.initial())[:, most()])
    assert torch.allclose(x[:, one_pixel()], (0.6 * y() + 0.8 * given.initial())[:, one_pixel()])


def test_replacement_has_new_noise_at_every_level():
    given, seen = noise(dtype=F64), list[Tensor]()
    observed = Observed(y(), one_pixel())
    x = observed.begun(given, LEVELS[0])

    def watching(x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        seen.append((x - level.alpha * y().double())[:, one_pixel()] / level.sigma)
        return Prediction(x)

    list(inpainted(METHODS["replacement"](), watching, x, observed, LEVELS, DDIM(), cond={}, noise=given))
    eps = torch.stack(seen)
    assert torch.allclose(eps[0], given.initial()[:, one_pixel()], atol=1e-14)
    for index in range(1, len(LEVELS) - 1):
        assert torch.allclose(eps[index], given.fresh(("replacement", index))[:, one_pixel()], atol=1e-13)
    assert len(eps.flatten().unique()) == eps.numel()


def test_soft_masks_mix_in_x0_and_are_exact_at_their_ends():
    known = torch.tensor([0.0, 0.25, 1.0, 0.5]).expand(SHAPE)
    target = y().clone()
    target[known == 0] = math.nan
    x0 = torch.full((2, *SHAPE), 0.4)
    mixed = Observed(target, known).mixed_into(x0)
    assert torch.equal(mixed[:, known == 0], x0[:, known == 0])
    assert torch.equal(mixed[:, known == 1], y()[known == 1].expand(2, -1))
    soft = (known > 0) & (known < 1)
    assert torch.allclose(mixed[:, soft], (known * y() + (1 - known) * 0.4)[soft].expand(2, -1))
    for make in METHODS.values():
        end = ended(make(), Observed(target, known))
        assert torch.equal(end[:, known == 1], y()[known == 1].expand(2, -1)) and bool(end.isfinite().all())
        hard = Observed(y(), known == 1)
        assert torch.equal(ended(make(), hard), ended(make(), Observed(y(), hard.known.float())))


def test_known_changes_x0_alone_and_passes_all_on():
    denoiser, x, nxt = Smooth(), torch.ones(2, *SHAPE), LEVELS[2]
    found = Known(denoiser, Observed(y(), one_pixel()))(x, LEVELS[1], {}, nxt)
    assert found.var_frac is not None and torch.equal(found.var_frac, torch.full_like(x, 0.25))
    assert torch.equal(found.x0[:, most()], Smooth()(x, LEVELS[1], {}).x0[:, most()])
    assert denoiser.asked == [(LEVELS[1], nxt)]
    plus = Guided((denoiser, denoiser), CFGpp(0.5))
    assert Known(plus, Observed(y(), one_pixel())).first_order_only
    assert not Known(denoiser, Observed(y(), one_pixel())).first_order_only


class Remembering(Smooth):
    """Says how often it was asked since it is fresh."""

    def fresh(self) -> Remembering:
        return Remembering()


def test_every_trajectory_has_a_fresh_memory():
    denoiser = Remembering()
    ended(Langevin(), Observed(y(), one_pixel()), denoiser=denoiser)
    assert denoiser.asked == []


class Recalling(Multistep):
    """Writes down how often its history was dropped."""

    def revise(self, state: History) -> History:
        dropped.append(len(state.levels))
        return super().revise(state)


dropped: list[int] = []


def test_history_is_kept_where_x_is_left_alone():
    inner = SOLVERS["dpmpp-2m"]()
    assert isinstance(inner, Multistep)
    expected = {"ddnm": 0, "replacement": 5, "langevin": 5, "repaint": 5}
    for name, count in expected.items():
        dropped.clear()
        ended(METHODS[name](), Observed(y(), one_pixel()), Recalling(inner.coordinate, inner.points))
        assert len(dropped) == count


def test_edits_begin_anew_with_every_trajectory():
    given, observed = noise(), Observed(y(), most())
    edits = Langevin(2).edits(observed, LEVELS)

    def walk() -> list[Step]:
        denoiser = Known(Smooth(), observed)
        x = observed.begun(given, LEVELS[0])
        return list(trajectory(denoiser, x, LEVELS, DDIM(), cond={}, noise=given, edits=edits))

    assert torch.equal(walk()[-1].x, walk()[-1].x)


def test_arguments_are_left_alone_and_the_walk_is_lazy():
    observed, given, denoiser = Observed(y(), most().float()), noise(), Smooth()
    x = observed.begun(given, LEVELS[0])
    before = x.clone()
    for make in METHODS.values():
        walk = inpainted(make(), denoiser, x, observed, LEVELS, DDIM(), cond={}, noise=given)
        assert denoiser.asked == []
        list(walk)
        denoiser.asked.clear()
    assert torch.equal(x, before) and torch.equal(observed.y, y()) and torch.equal(observed.known, most().float())


def test_guidance_goes_inside():
    weak, strong = Smooth(), Smooth()
    guided = Guided((WithCond(strong, {}), WithCond(weak, {})), CFG(3.0))
    end = ended(Langevin(2), Observed(y(), most()), denoiser=guided)
    assert torch.equal(end[:, most()], y()[most()].expand(2, -1))
    assert len(weak.asked) == len(strong.asked) == calls(Langevin(2), DDIM(), LEVELS)


def test_renoising_is_the_forward_process():
    """Of x = alpha_low c + sigma_low z: mean alpha_high c, and the variances add to sigma_high^2; also per picture."""
    low, high = Level(torch.tensor([0.9, 3.0]), torch.tensor([0.3, 1.1])), Level(torch.tensor(0.4), torch.tensor(0.7))
    one, none = torch.ones(2, 1, dtype=F64), torch.zeros(2, 1, dtype=F64)
    scale, std = renoised(one, low, high, none)[:, 0], renoised(none, low, high, one)[:, 0]
    assert torch.allclose(scale * low.alpha, high.alpha.expand(2))
    assert torch.allclose((scale * low.sigma) ** 2 + std**2, high.sigma.expand(2) ** 2)


def test_repaint_jumps_down_to_noisy_levels_and_back():
    denoiser = Smooth()
    ended(RePaint(resample=2, jump=3), Observed(y(), one_pixel()), denoiser=denoiser)
    index = {id(level): i for i, level in enumerate(LEVELS)}
    walked = [(index[id(now)], index[id(nxt)]) for now, nxt in denoiser.asked if nxt is not None]
    high, low = [(1, 2), (2, 3), (3, 4)], [(4, 5)]
    assert walked == [(0, 1), *high, *high, *high, *low, *low, *low, (5, 6)]
    turns = [len(RePaint(2, 1).below(LEVELS, i)) for i in range(6)]
    assert turns == [0, 1, 1, 1, 1, 0]  # not from pure noise, not to clean data


def test_repaint_has_new_noise_in_what_is_known_at_every_level_down():
    given, seen = noise(dtype=F64), list[Tensor]()
    observed = Observed(y().double(), one_pixel())
    x = observed.begun(given, LEVELS[0])

    def watching(x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        seen.append((x - level.alpha * observed.y)[:, one_pixel()] / level.sigma)
        return Prediction(x)

    list(inpainted(RePaint(1, 3), watching, x, observed, LEVELS, DDIM(), cond={}, noise=given))
    for call, draw in ((2, 1), (3, 3)):  # of the steps 1 -> 2 -> 3 -> 4, after the first and the second
        assert torch.allclose(seen[call], given.fresh(("repaint", 1, 0, draw))[:, one_pixel()], atol=1e-13)


class Listening(SeededNoise):
    """Writes down the keys of what is drawn."""

    def fresh(self, key: Key) -> Tensor:
        keys.append(key)
        return super().fresh(key)


keys: list[Key] = []


@pytest.mark.parametrize("method", [METHODS["replacement"](), RePaint(3, 2), Langevin(3)])
def test_no_number_is_drawn_twice_and_the_momentum_goes_on(method: Method):
    keys.clear()
    given, observed = Listening([1], SHAPE), Observed(y(), one_pixel())
    x = observed.begun(given, LEVELS[0])
    list(inpainted(method, Smooth(), x, observed, LEVELS, DDIM(), cond={}, noise=given))
    assert len(keys) == len(set(keys)) >= 5
    assert isinstance(method, Langevin) == ("momentum" in keys)


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        (y(), torch.full(SHAPE, 1.5), "outside of 0"),
        (y(), torch.full(SHAPE, math.nan), "outside of 0"),
        (torch.full(SHAPE, math.inf), one_pixel(), "not finite"),
    ],
)
def test_what_cannot_be_observed_is_refused(given: Tensor, known: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        Observed(given, known)


@pytest.mark.parametrize(
    ("observed", "levels", "denoiser", "message"),
    [
        (Observed(torch.zeros(3, 4, 4), torch.tensor(True)), LEVELS, Smooth(), r"y has shape \(3, 4, 4\)"),
        (Observed(torch.zeros(1), torch.ones(5, 4)), LEVELS, Smooth(), r"known has shape \(5, 4\)"),
        (Observed(torch.zeros(1), torch.ones(2, 2, *SHAPE)), LEVELS, Smooth(), "known has shape"),
        (Observed(y(), one_pixel()), LEVELS[::-1][1:], Smooth(), "from noise to data"),
        (Observed(y(), one_pixel()), LEVELS, Guided((Smooth(), Smooth()), CFGpp(0.5)), "ddnm or replacement"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(observed: Observed, levels: list[Level], denoiser: Any, message: str):
    with pytest.raises(ValueError, match=message):
        inpainted(Langevin(), denoiser, torch.zeros(2, *SHAPE), observed, levels, DDIM(), cond={}, noise=noise())
    assert getattr(denoiser, "asked", []) == []


def test_plus_plus_guidance_takes_the_methods_without_calls():
    plus = Guided((Smooth(), Smooth()), CFGpp(0.5))
    for name in ("ddnm", "replacement"):
        assert torch.equal(ended(METHODS[name](), Observed(y(), most()), denoiser=plus)[:, most()][0], y()[most()])


def test_edits_of_other_levels_are_refused():
    observed = Observed(y(), one_pixel())
    for name in ("replacement", "repaint", "langevin"):
        (edit,) = METHODS[name]().edits(observed, LEVELS)
        with pytest.raises(ValueError, match="other levels"):
            edit(torch.zeros(1, *SHAPE), Level.of(0.5, 0.5), lambda x, level, nxt=None: Prediction(x), noise(1))


def test_methods_are_made_by_name():
    assert made("method", "langevin:steps=5,size=1.5", METHODS) == Langevin(5, 1.5)
    assert made("method", "repaint", METHODS) == RePaint()
    for wrong, message in (
        ("langevin:size=2", "below 2"),
        ("langevin:steps=-1", "at least 0"),
        ("langevin:friction=0", "above 0"),
        ("repaint:jump=0", "at least 0 and 1"),
        ("langevin:step=3", "did you mean"),
    ):
        with pytest.raises(Refused, match=message):
            made("method", wrong, METHODS)
