"""Stochastic solvers beyond Gaussians: the order of expectations under a mixture, by quadrature, without chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from nirvana.diffusion import Level, MixtureDenoiser, Noise, Prediction
from nirvana.diffusion.noise import Key
from nirvana.verify.finding import Finding
from nirvana.verify.problems import F64, WithVariance
from nirvana.verify.settings import SCHEDULES, interior
from nirvana.verify.slope import measured
from nirvana.verify.walks import AnySolver, Broken, watched

FIRST = 8
DEGREE, DRAWS = 80, 24
"""Chebyshev nodes in x, Gauss-Hermite nodes in the noise of a step."""

_WIDTH = 8.0
"""Half the interval of x, in norms of the level: beyond lies less than 1e-12 of the mass."""

_FREQUENCY = 1.5


def _line() -> MixtureDenoiser:
    """Two components on a line."""
    weights, variances = torch.tensor([0.35, 0.65], dtype=F64), torch.tensor([0.16, 0.3], dtype=F64)
    return MixtureDenoiser(weights, torch.tensor([[-0.9], [0.5]], dtype=F64), variances)


class _Nodes:
    """The noise of one step: item i sees values[i]. Raises Broken at a second draw."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.drawn = 0

    def initial(self) -> Tensor:
        """Raises Broken: a solver is given its start."""
        raise Broken("it draws the start of the trajectory")

    def path(self, now: Level, nxt: Level) -> Tensor:
        """The values."""
        del now, nxt
        self.drawn += 1
        return self.values

    def fresh(self, key: Key) -> Tensor:
        """The values."""
        del key
        self.drawn += 1
        return self.values


def weak_order(
    solver: AnySolver, name: str, schedule: str, spacing: str, last: int, *, early: bool = False
) -> Finding | None:
    """Expectations of cos and sin under a mixture on a line converge to those of the last level: at least `order`.

    u(x, now) = E u(step(x, noise), nxt), from the last level to the first: u by Chebyshev's polynomials, E by
    Gauss-Hermite's nodes. Here x0 is not linear in x, as it is for the Gaussian of `moments`.
    None for a solver with a history, or with two draws a step.
    """
    along = SCHEDULES[schedule]()
    if not _is_memoryless(solver, interior(along, spacing, 4)):
        return None

    def error(n: int) -> float:
        levels = interior(along, spacing, n)
        found, true = _expectation(solver, levels), _true(levels[-1])
        return float((found - true).norm() / true.norm())

    slope, declared = measured(error, first=FIRST, last=last, early=early), float(solver.order)
    passed = slope.at_least(declared)
    return Finding("weak order", name, f"{schedule} {spacing}", passed, str(slope), declared, slope.value)


def _is_memoryless(solver: AnySolver, levels: Sequence[Level]) -> bool:
    """Whether it walks alike when its state is forgotten before each step, with one draw a step at most."""
    noise = _Nodes(torch.tensor([[0.3], [-1.1], [0.8]], dtype=F64))
    kept = forgot = noise.values.flip(0)
    with watched(f"a walk of {len(levels) - 1} steps"):
        state = solver.init(kept)
        for now, nxt in pairwise(levels):
            step, state = solver.step(_denoise, kept, now, nxt, state, noise)
            kept, forgot = step.x, _stepped(solver, forgot, now, nxt, noise)
    return torch.equal(kept, forgot) and noise.drawn <= 2 * (len(levels) - 1)


def _expectation(solver: AnySolver, levels: Sequence[Level]) -> Tensor:
    """E (cos, sin)(_FREQUENCY x/norm) at the last level, of exact draws at the first that `solver` walks."""
    z, weights = _gauss_hermite(DRAWS)
    turn = torch.arange(DEGREE, dtype=F64)
    places = torch.cos(math.pi * (turn + 0.5) / DEGREE)
    to_series = torch.cos(turn[:, None] * torch.acos(places)) * (2 - (turn == 0).double()[:, None]) / DEGREE
    x_of = {id(level): _WIDTH * level.norm * places[:, None] for level in levels}
    with watched(f"a walk of {len(levels) - 1} steps"):
        u = _waves(x_of[id(levels[-1])], levels[-1])
        for now, nxt in reversed(list(pairwise(levels))):
            x, draws = x_of[id(now)].repeat_interleave(DRAWS, 0), z.repeat(DEGREE)[:, None]
            there = _stepped(solver, x, now, nxt, _Nodes(draws))
            values = _series(to_series @ u, there / (_WIDTH * nxt.norm))
            u = (values.reshape(DEGREE, DRAWS, 2) * weights[:, None]).sum(1)
    first, mixture = levels[0], _line()
    spread = (first.alpha**2 * mixture.variances + first.sigma**2).sqrt()
    x = (first.alpha * mixture.means + spread[:, None] * z).reshape(-1, 1)
    values = _series(to_series @ u, x / (_WIDTH * first.norm)).reshape(len(spread), DRAWS, 2)
    return (mixture.weights[:, None, None] * weights[:, None] * values).sum((0, 1))


def _true(level: Level) -> Tensor:
    """The same of the marginal at `level`: E exp(ikx) = sum_j weight_j exp(ik alpha mean_j - k^2 var_j/2)."""
    mixture, k = _line(), _FREQUENCY / level.norm
    spread = mixture.weights * torch.exp(-(k**2) * (level.alpha**2 * mixture.variances + level.sigma**2) / 2)
    at = k * level.alpha * mixture.means[:, 0]
    return torch.stack([(spread * torch.cos(at)).sum(), (spread * torch.sin(at)).sum()])


def _waves(x: Tensor, level: Level) -> Tensor:
    return torch.cat([torch.cos(_FREQUENCY * x / level.norm), torch.sin(_FREQUENCY * x / level.norm)], 1)


def _series(coefficients: Tensor, x: Tensor) -> Tensor:
    """Chebyshev's series at x (n, 1), kept in [-1, 1]: (n, 2)."""
    turn = torch.arange(len(coefficients), dtype=F64)
    return torch.cos(turn * torch.acos(x.clamp(-1, 1))) @ coefficients


def _gauss_hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a unit normal, from the eigenvectors of its Jacobi matrix (Golub & Welsch 1969)."""
    root = torch.arange(1, n, dtype=F64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(root, 1) + torch.diag(root, -1))
    return nodes, vectors[0].square()


def _stepped(solver: AnySolver, x: Tensor, now: Level, nxt: Level, noise: Noise) -> Tensor:
    return solver.step(_denoise, x, now, nxt, solver.init(x), noise)[0].x


def _denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
    return WithVariance(_line())(x, level, {}, nxt)
