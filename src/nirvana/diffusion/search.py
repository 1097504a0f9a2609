"""The grid of a given model and solver that few steps need most: found by dynamic programming on trajectories of it.

References:
    Watson, Ho, Norouzi, Chan 2021, Learning to Efficiently Sample from Diffusion Probabilistic Models, arXiv:2106.03802.
    Sabour, Fidler, Kreis 2024, Align Your Steps, arXiv:2404.14507.
    Xue et al. 2024, Accelerating Diffusion Sampling with Optimized Time Steps, arXiv:2402.17376.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.grid import LamRange
from nirvana.diffusion.level import Level, float64, strictly_monotone, walk
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver.protocol import Denoise, Solver

S = TypeVar("S")

CANDIDATES = 64
"""Steps of the grid whose levels are chosen from."""

SUBSTEPS = 3
"""Steps of the teacher in each of them: 192, so that its end is that of many steps of the same solver."""

_MESH = 20_001


def candidates(first: Level, lam: LamRange, n: int = CANDIDATES) -> list[Level]:
    """n + 1 levels from `first` over the range of lam to the clean one, at unit norm.

    Even in the mean of two coordinates, lam and the angle, each over its range: lam alone is wide where pictures get
    their shapes, the angle alone is wide where they get their details. Raises ValueError at a range that is none, or
    where `first` has no more noise than its end.
    """
    low, high = max(lam[0], float(first.lam)), lam[1]
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"the candidates lie between two finite lam that rise, got {low} and {high}")
    mesh = torch.linspace(low, high, _MESH, dtype=torch.float64)
    angle = Level.from_lam(mesh).angle
    place = (mesh - low) / (high - low) + (angle[0] - angle) / (angle[0] - angle[-1])
    wanted = torch.arange(n + 1, dtype=torch.float64) * (2 / n)
    levels = Level.from_lam(mesh[torch.searchsorted(place, wanted).clamp(max=_MESH - 1)])
    start, zero, one = first.unit(), float64(0.0), float64(1.0)
    alpha = torch.cat([start.alpha[None], levels.alpha[1:-1], one[None]])
    sigma = torch.cat([start.sigma[None], levels.sigma[1:-1], zero[None]])
    return walk(Level(alpha, sigma))


def refined(levels: Sequence[Level], by: int) -> list[Level]:
    """`levels` with by - 1 more between every two neighbours, even in lam, or in the angle towards an exact end."""
    out: list[Level] = []
    for now, nxt in pairwise(levels):
        part = torch.arange(by, dtype=torch.float64) / by
        if bool(now.lam.isinf() | nxt.lam.isinf()):
            between = Level.from_angle(now.angle + part * (nxt.angle - now.angle))
        else:
            between = Level.from_lam(now.lam + part * (nxt.lam - now.lam))
        out += [now, *(Level(between.alpha[i], between.sigma[i]) for i in range(1, by))]
    return walk(_stacked([*out, levels[-1]]))


@dataclass(frozen=True, eq=False)
class Found:
    """A searched grid: its levels, and the mean distance of their walks' ends to those of the teacher."""

    levels: list[Level]
    distance: float


@dataclass(frozen=True, eq=False)
class _Node(Generic[S]):
    """A walk that ends at one of the candidates: x and the solver's state there, and the candidates it visited."""

    x: Tensor
    state: S
    path: tuple[int, ...]
    distance: float


def search(
    denoise: Denoise,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[S],
    n: int,
    noise: Noise,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """n + 1 of `levels`, the ends among them, on which the walks of `solver` from x end nearest to its fine ones.

    Dynamic programming over (steps taken, candidate reached). The cost of a node is the mean distance of the walk's x
    to the teacher's at this level, the teacher being `solver` on `refined` levels; of all walks that reach a node the
    best one goes on, with its x and the history of its solver. So errors that cancel do, a multistep solver is judged
    by the steps it would make, and the cost of the end is that which is wanted: no weights between levels are assumed.

    x: at levels[0], of at least 64 trajectories to hold for others; denoise: must not depend on `nxt`, so that it is
    asked once at a node; progress(nodes expanded and teacher's steps done, in all). Takes about SUBSTEPS*N + (n - 1)
    (N - n) network calls for a solver of one call a step, N + 1 candidates. Raises ValueError before the first one
    where n is not in 1..N, the solver draws noise or the levels do not fall, and where no walk has a finite end.
    """
    N = len(levels) - 1
    if not 1 <= n <= N:
        raise ValueError(f"of {N + 1} candidates a grid of 1 to {N} steps can be made, {n} were asked for")
    if not solver.deterministic:
        raise ValueError("a grid is searched for a deterministic solver, such as ddim: this one draws noise")
    if strictly_monotone(levels) != "falling":
        raise ValueError("the candidates go from data to noise: turn them round")
    total, done = SUBSTEPS * N + 1 + (n - 1) * (N - n + 1), 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    teacher = _teacher(denoise, x, levels, solver, noise, count)
    layer = {0: _Node(x, solver.init(x), (0,), 0.0)}
    for k in range(1, n + 1):
        reached = range(k, N - n + k + 1) if k < n else range(N, N + 1)
        layer = _expanded(denoise, layer, levels, reached, solver, noise, teacher, count)
    best = layer[N]
    if not math.isfinite(best.distance):
        raise ValueError("no walk ends at finite numbers: the network gives none, or the guidance is too high")
    return Found(walk(_stacked([levels[i] for i in best.path])), best.distance)


def _teacher(
    denoise: Denoise, x: Tensor, levels: Sequence[Level], solver: Solver[S], noise: Noise, count: Callable[[], None]
) -> list[Tensor]:
    """x at each of `levels` on the way over the refined ones."""
    state, found = solver.init(x), [x]
    for i, (now, nxt) in enumerate(pairwise(refined(levels, SUBSTEPS)), start=1):
        step, state = solver.step(denoise, x, now, nxt, state, noise)
        x = step.x
        if i % SUBSTEPS == 0:
            found.append(x)
        count()
    return found


def _expanded(
    denoise: Denoise,
    layer: Mapping[int, _Node[S]],
    levels: Sequence[Level],
    reached: range,
    solver: Solver[S],
    noise: Noise,
    teacher: Sequence[Tensor],
    count: Callable[[], None],
) -> dict[int, _Node[S]]:
    """The best walk to each candidate of `reached` that is one step longer than one of `layer`."""
    found: dict[int, _Node[S]] = {}
    for i, node in layer.items():
        once = _Once(denoise, node.x, levels[i])
        for j in reached:
            if j <= i:
                continue
            step, state = solver.step(once, node.x, levels[i], levels[j], node.state, noise)
            distance = float((step.x - teacher[j]).flatten(1).norm(dim=1).mean())
            # Not a number is no distance: such a walk goes on only where there is no other.
            distance = distance if math.isfinite(distance) else math.inf
            if j not in found or distance < found[j].distance:
                found[j] = _Node(step.x, state, (*node.path, j), distance)
        count()
    return found


class _Once:
    """A denoiser that is asked only once at one x and level, the start of the steps to all candidates."""

    def __init__(self, denoise: Denoise, x: Tensor, level: Level) -> None:
        self._denoise = denoise
        self._x, self._level = x, level
        self._known: Prediction | None = None

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        if x is not self._x or level is not self._level:
            return self._denoise(x, level, nxt)
        if self._known is None:
            self._known = self._denoise(x, level, nxt)
        return self._known


def _stacked(levels: Sequence[Level]) -> Level:
    return Level(torch.stack([level.alpha for level in levels]), torch.stack([level.sigma for level in levels]))
