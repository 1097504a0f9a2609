"""Multistep solvers: exact for polynomials, the formulas of the papers, the corrector, ends, warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from diffusion.solver.parts import F64, GAUSSIAN, GRIDS, Given, OfLevel, Silent, alternating, gaussian, tensor, walked
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.schedule import RectifiedFlow
from nirvana.diffusion.solver import DataInLam, Multistep, NoiseInLam, NoiseInRatio
from nirvana.diffusion.solver.coordinate import Linear

COEFFICIENTS = (0.4, -0.7, 0.3, 0.11, -0.05)
X = tensor(1.3, -0.4).reshape(2, 1)


def poly(q: Tensor, degree: int, derivative: int = 0) -> Tensor:
    """The polynomial sum_k COEFFICIENTS[k] q^k up to `degree`, or a derivative of it."""
    total = torch.zeros_like(q)
    for k in range(derivative, degree + 1):
        total = total + COEFFICIENTS[k] * math.perm(k, derivative) * q ** (k - derivative)
    return total


def primitive(q: Tensor, degree: int, rate: float) -> Tensor:
    """The primitive of exp(rate q) poly(q), by parts."""
    return torch.exp(rate * q) * sum((-1) ** i * poly(q, degree, i) / rate ** (i + 1) for i in range(degree + 1))  # pyright: ignore


def exact_data(levels: list[Level], degree: int, eta: float) -> Callable[[int], Tensor]:
    """x where x0 is the polynomial of lam: exp(eta^2 lam) x/sigma grows by kappa exp(kappa lam) x0, see kappa."""
    kappa = 1 + eta**2

    def at(i: int) -> Tensor:
        a, b = levels[0], levels[i]
        grown = kappa * (primitive(b.lam, degree, kappa) - primitive(a.lam, degree, kappa))
        return b.sigma * torch.exp(-(eta**2) * b.lam) * (torch.exp(eta**2 * a.lam) * X / a.sigma + grown)

    return at


def exact_noise(levels: list[Level], degree: int) -> Callable[[int], Tensor]:
    """x where eps is the polynomial of lam: x/alpha falls by exp(-lam) eps."""

    def at(i: int) -> Tensor:
        a, b = levels[0], levels[i]
        return b.alpha * (X / a.alpha - primitive(b.lam, degree, -1) + primitive(a.lam, degree, -1))

    return at


def exact_ratio(levels: list[Level], degree: int) -> Callable[[int], Tensor]:
    """x where eps is the polynomial of the ratio: x/alpha grows by eps."""

    def whole(r: Tensor) -> Tensor:
        return sum((COEFFICIENTS[k] * r ** (k + 1) / (k + 1) for k in range(degree + 1)), torch.zeros_like(r))

    def at(i: int) -> Tensor:
        a, b = levels[0], levels[i]
        return b.alpha * (X / a.alpha + whole(b.ratio) - whole(a.ratio))

    return at


def furthest(found: list[Tensor], exact: Callable[[int], Tensor], first: int = 0) -> float:
    """The largest error of any step from the `first` on."""
    return max(float((x - exact(i + 1)).abs().max()) for i, x in enumerate(found) if i >= first)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_a_polynomial_of_degree_points_less_one_is_integrated_exactly(points: int, grid: str):
    levels = GRIDS[grid](12)
    by_lam = OfLevel(lambda level: poly(level.lam, points - 1))
    by_ratio = OfLevel(lambda level: poly(level.ratio, points - 1), eps=True)
    eps_by_lam = OfLevel(lambda level: poly(level.lam, points - 1), eps=True)
    for solver, denoise, exact in (
        (Multistep(DataInLam(), points), by_lam, exact_data(levels, points - 1, 0.0)),
        (Multistep(NoiseInLam(), points), eps_by_lam, exact_noise(levels, points - 1)),
        (Multistep(NoiseInRatio(), points), by_ratio, exact_ratio(levels, points - 1)),
    ):
        assert furthest(walked(solver, denoise, levels, exact, primed=points - 1), exact, points - 1) < 1e-11
        one_more = walked(
            solver, OfLevel(lambda level: poly(level.lam, points)), levels, exact_data(levels, points, 0.0)
        )
        assert furthest(one_more, exact_data(levels, points, 0.0)) > 1e-6


@pytest.mark.parametrize("points", [1, 2, 3])
def test_the_corrector_integrates_one_degree_more(points: int):
    """Given what the predictor makes of an exact x, it goes on as the predictor does from the next exact x."""
    levels = alternating(12)
    exact, denoise = exact_data(levels, points, 0.0), OfLevel(lambda level: poly(level.lam, points))
    predicted = walked(Multistep(DataInLam(), points), denoise, levels, exact, primed=12)
    solver = Multistep(DataInLam(), points, corrects=True)
    state = solver.init(X)
    for i, (now, nxt) in enumerate(pairwise(levels)):
        step, state = solver.step(denoise, predicted[i - 1] if i else X, now, nxt, state, Silent())
        if i >= points:
            assert torch.allclose(step.x, predicted[i], rtol=0, atol=1e-12)
    assert furthest(predicted, exact) > 1e-5


def test_with_noise_the_drift_is_that_of_the_reverse_diffusion():
    levels = alternating(10)

    def probe(solver: Multistep) -> Tensor:
        exact, state = exact_data(levels, 1, 1.0), solver.init(X)
        denoise, x = OfLevel(lambda level: poly(level.lam, 1)), X
        for i, (now, nxt) in enumerate(pairwise(levels)):
            x = exact(i) if i <= 1 else x
            step, state = solver.step(denoise, x, now, nxt, state, Given(torch.zeros_like(X)))
            x = step.x
        return x - exact(10)

    assert float(probe(Multistep(DataInLam(1.0), 2)).abs().max()) < 1e-12
    assert float(probe(Multistep(DataInLam(0.9), 2)).abs().max()) > 1e-3


def two_steps(solver: Multistep, levels: list[Level], x0s: list[float], z: float = 0.0) -> list[Tensor]:
    """The x after each step, when the predictions are the x0s."""
    said, state, x, out = iter(x0s), solver.init(X), X, list[Tensor]()
    for now, nxt in pairwise(levels):
        step, state = solver.step(
            lambda x, level, nxt=None: Prediction(torch.full_like(x, next(said))),
            x,
            now,
            nxt,
            state,
            Given(torch.full_like(X, z)),
        )
        x = step.x
        out.append(x)
    return out


LEVELS = [Level.from_lam(lam) for lam in (-1.4, -0.8, -0.5, 0.6)]
X0S = [0.3, -0.2, 0.7]


def test_2m_is_the_papers():
    """Lu et al. 2022, DPM-Solver++, algorithm 2: D = (1 + 1/2r) x0 - 1/2r x0_before."""
    x1, x2, _ = two_steps(SOLVERS["dpmpp-2m"](), LEVELS, X0S)
    a, b, c = LEVELS[:3]
    h, before = c.lam - b.lam, b.lam - a.lam
    D = (1 + h / before / 2) * X0S[1] - h / before / 2 * X0S[0]
    assert torch.allclose(x2, c.sigma / b.sigma * x1 - c.alpha * torch.expm1(-h) * D, rtol=0, atol=1e-14)


def test_2m_sde_is_k_diffusions():
    z = 0.4
    x1, x2, _ = two_steps(SOLVERS["dpmpp-2m-sde"](), LEVELS, X0S, z)
    a, b, c = LEVELS[:3]
    h, r = c.lam - b.lam, (b.lam - a.lam) / (c.lam - b.lam)
    share = -torch.expm1(-2 * h)
    expected = c.sigma / b.sigma * torch.exp(-h) * x1 + c.alpha * share * (X0S[1] + (X0S[1] - X0S[0]) / (2 * r))
    assert torch.allclose(x2, expected + c.sigma * share.sqrt() * z, rtol=0, atol=1e-14)


def unipc(points: int, linear: Linear) -> Tensor:
    """x after three steps by the paper's own linear systems (Zhao et al. 2023, section 3.3 and algorithms 5 to 7)."""

    def moved(x: Tensor, levels: list[Level], m: list[float], order: int, m_nxt: float | None) -> Tensor:
        s, t = levels[-2], levels[-1]
        h = t.lam - s.lam
        b_h = -h if linear == "bh1" else torch.expm1(-h)
        r = [(level.lam - s.lam) / h for level in reversed(levels[:-2])][: order - 1]
        differences = [(value - m[-1]) / ratio for value, ratio in zip(reversed(m[:-1]), r, strict=False)]
        if m_nxt is not None:
            r, differences = [*r, tensor(1.0)[0]], [*differences, m_nxt - m[-1]]
        first = t.sigma / s.sigma * x - t.alpha * torch.expm1(-h) * m[-1]
        if not r:
            return first
        phi, rows, right, factorial = torch.expm1(-h) / -h - 1, [], [], 1.0
        for k in range(1, len(r) + 1):
            rows.append(torch.stack([ratio ** (k - 1) for ratio in r]))
            factorial *= k
            right.append(phi * factorial / b_h)
            phi = phi / -h - 1 / (factorial * (k + 1))
        weights = tensor(0.5) if len(r) == 1 else torch.linalg.solve(torch.stack(rows), torch.stack(right))
        return first - t.alpha * b_h * sum(w * d for w, d in zip(weights, differences, strict=True))

    x = guess = X
    for i in range(3):
        if i:
            x = moved(x, LEVELS[: i + 1], X0S[:i], min(points, i), X0S[i])
        guess = moved(x, LEVELS[: i + 2], X0S[: i + 1], min(points, i + 1), None)
    return guess


@pytest.mark.parametrize(
    ("name", "points", "linear"),
    [("unipc-1", 1, "bh2"), ("unipc-2", 2, "bh2"), ("unipc-2-bh1", 2, "bh1"), ("unipc-3", 3, "bh2")],
)
def test_unipc_is_the_papers(name: str, points: int, linear: Linear):
    assert torch.allclose(two_steps(SOLVERS[name](), LEVELS, X0S)[-1], unipc(points, linear), rtol=0, atol=1e-13)


def test_ipndm_on_even_steps_has_the_coefficients_of_adams_and_bashforth():
    """(55, -59, 37, -9)/24 of the last four eps, after (23, -16, 5)/12 and (3, -1)/2 (Liu et al. 2022, PNDM, eq. 9)."""
    levels = walk(Level.from_ratio(torch.arange(5.0, 0.5, -1, dtype=F64)))
    eps = iter([0.3, -0.2, 0.7, 0.45])
    solver, x = SOLVERS["ipndm"](), X
    state = solver.init(x)
    expected = X / levels[0].alpha
    for (now, nxt), taps in zip(
        pairwise(levels),
        ([1], [-1 / 2, 3 / 2], [5 / 12, -16 / 12, 23 / 12], [-9 / 24, 37 / 24, -59 / 24, 55 / 24]),
        strict=True,
    ):
        e = next(eps)
        step, state = solver.step(
            lambda x, level, nxt=None, e=e: Prediction((x - level.sigma * e) / level.alpha),
            x,
            now,
            nxt,
            state,
            Silent(),
        )
        x = step.x
        expected = expected - sum(c * v for c, v in zip(taps, [0.3, -0.2, 0.7, 0.45], strict=False))
        assert torch.allclose(x / nxt.alpha, expected, rtol=0, atol=1e-13)


MULTISTEP = [name for name in SOLVERS if isinstance(SOLVERS[name](), Multistep)]


@pytest.mark.parametrize("name", MULTISTEP)
@pytest.mark.parametrize("lams", [[-math.inf, -1.0, 0.5, math.inf], [-math.inf, math.inf], [-2.0, math.inf]])
def test_from_pure_noise_to_clean_a_constant_x0_is_kept_exactly(name: str, lams: list[float]):
    levels = [Level.from_lam(lam).scaled(c) for lam, c in zip(lams, (1.0, 3.0, 0.5, 2.0), strict=False)]
    noise, denoise = SeededNoise([3], (3, 1, 5), dtype=F64), OfLevel(lambda level: tensor(0.3))
    *_, last = trajectory(
        lambda x, level, cond, nxt=None: denoise(x, level),
        noise.initial(),
        levels,
        SOLVERS[name](),
        cond={},
        noise=noise,
    )
    assert torch.allclose(last.x, 0.3 * levels[-1].alpha.expand(1, 3, 1, 5), rtol=0, atol=1e-15)
    assert denoise.calls == len(lams) - 1


@pytest.mark.parametrize("name", [name for name in MULTISTEP if SOLVERS[name]().deterministic])
def test_a_walk_from_noise_to_data_and_back_arrives_at_its_start(name: str):
    levels = walk(RectifiedFlow()(torch.linspace(1, 0.02, 121, dtype=F64)))
    x = SeededNoise([1, 2], (4,), dtype=F64).initial()
    for way in (levels, walk(RectifiedFlow()(torch.linspace(0.02, 1, 121, dtype=F64)))):
        solver, there, state = SOLVERS[name](), GAUSSIAN.transport(x, way[0], way[-1]), SOLVERS[name]().init(x)
        start = x
        for now, nxt in pairwise(way):
            step, state = solver.step(gaussian, start, now, nxt, state, Silent())
            start = step.x
        assert float((start - there).abs().max()) < (0.06 if solver.order == 1 else 0.005)
        x = there


def test_a_revised_history_is_a_first_step():
    solver, levels = Multistep(DataInLam(), 3, corrects=True), alternating(8)
    state, x = solver.init(X), torch.ones(2, 4, dtype=F64)
    for now, nxt in pairwise(levels[:5]):
        step, state = solver.step(gaussian, x, now, nxt, state, Silent())
        x = step.x
    again, _ = solver.step(gaussian, x, levels[4], levels[5], solver.revise(state), Silent())
    fresh, _ = solver.step(gaussian, x, levels[4], levels[5], solver.init(x), Silent())
    gone, _ = solver.step(gaussian, x, levels[4], levels[5], state, Silent())
    assert torch.equal(again.x, fresh.x) and not torch.allclose(gone.x, fresh.x)


@pytest.mark.parametrize("points", [0, 5])
def test_as_many_points_as_it_can_are_taken(points: int):
    with pytest.raises(ValueError, match=f"1 to 4 evaluations, not {points}"):
        Multistep(DataInLam(), points)
