"""The grid of a given model and solver that few steps need most: found by dynamic programming on trajectories of it.

References:
    Watson, Ho, Norouzi, Chan 2021, Learning to Efficiently Sample from Diffusion Probabilistic Models,
        arXiv:2106.03802.
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

from nirvana.diffusion.denoiser import Cond, Denoiser, Remembers
from nirvana.diffusion.grid import LamRange
from nirvana.diffusion.level import Level, float64, strictly_monotone, walk
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.sample import trajectory
from nirvana.diffusion.solver.protocol import Solver

S = TypeVar("S")

CANDIDATES = 64
"""Steps of the grid whose levels are chosen from."""

SUBSTEPS = 3
"""Steps of the teacher in each of them: 192, so that its end is that of many steps of the same solver."""

ROUNDS = 3
"""How often, at most, every run of inner levels is tried one candidate further."""

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
class _Node(Generic[S]):
    """A walk that ends at one of the candidates: x and the solver's state there, and the candidates it visited."""

    x: Tensor
    state: S
    path: tuple[int, ...]
    distance: float


def search(
    denoiser: Denoiser,
    x: Float[Tensor, "b *s"],
    levels: Sequence[Level],
    solver: Solver[S],
    n: int,
    *,
    cond: Cond,
    noise: Noise,
    progress: Callable[[int, int], None] | None = None,
) -> list[Level]:
    """n + 1 of `levels`, the ends among them, on which the walks of `solver` from x end nearest to its fine ones.

    Dynamic programming over (steps taken, candidate reached). The cost of a node is the mean distance of the walk's x
    to the teacher's at this level, the teacher being `solver` on `refined` levels; of all walks that reach a node the
    best one goes on, with its x and the history of its solver. So errors that cancel do, a multistep solver is judged
    by the steps it would make, and the cost of the end is that which is wanted: no weights between levels are assumed.
    As the best walk to a node need not be the start of the best walk of all, runs of inner levels are then moved by one
    candidate while that brings the end nearer.

    x: at levels[0], of 64 trajectories or more if the grid is to serve others; denoiser: of one level, it is asked once
    at a node, and a memory along the trajectory starts anew there; progress(done, at most) of evaluations, 2000 for 8
    steps of a solver of one call a step. Raises ValueError before the first one where n is
    not in 1..N, the solver draws noise or the levels do not fall; and where no walk has a finite end.
    """
    N = len(levels) - 1
    if not 1 <= n <= N:
        raise ValueError(f"of {N + 1} candidates a grid of 1 to {N} steps can be made, {n} were asked for")
    if not solver.deterministic:
        raise ValueError("a grid is searched for a deterministic solver, such as ddim: this one draws noise")
    if strictly_monotone(levels) != "falling":
        raise ValueError("the candidates go from data to noise: turn them round")
    moves = ROUNDS * n * (n - 1)
    count = _Count(SUBSTEPS * N + 1 + (n - 1) * (N - n + 1) + n * moves, progress)
    teacher = [x]
    for step in trajectory(denoiser, x, refined(levels, SUBSTEPS), solver, cond=cond, noise=noise):
        if step.index % SUBSTEPS == SUBSTEPS - 1:
            teacher.append(step.x)
        count()
    ways = _Ways(denoiser, cond, levels, solver, noise, teacher, count)
    path, distance = ways.best(n)
    if math.isinf(distance):
        raise ValueError("no walk ends at finite numbers: the network gives none, or the guidance is too high")
    path = ways.polished(path, distance)
    count.finish()
    return walk(_stacked([levels[i] for i in path]))


@dataclass(frozen=True, eq=False)
class _Ways(Generic[S]):
    """The walks over candidates, and the teacher's x at each of them."""

    denoiser: Denoiser
    cond: Cond
    levels: Sequence[Level]
    solver: Solver[S]
    noise: Noise
    teacher: Sequence[Tensor]
    count: _Count

    def best(self, n: int) -> tuple[tuple[int, ...], float]:
        """The candidates of the best walk of n steps by dynamic programming, and the distance of its end."""
        N = len(self.levels) - 1
        layer = {0: _Node(self.teacher[0], self.solver.init(self.teacher[0]), (0,), 0.0)}
        for k in range(1, n + 1):
            layer = self._longer(layer, range(k, N - n + k + 1) if k < n else range(N, N + 1))
        return layer[N].path, layer[N].distance

    def _longer(self, layer: Mapping[int, _Node[S]], ends: range) -> dict[int, _Node[S]]:
        """The best walk to each of `ends` that is one step longer than one of `layer`."""
        reached: dict[int, _Node[S]] = {}
        for i, node in layer.items():
            once = _Once(self.denoiser, self.cond, node.x, self.levels[i])
            for j in (j for j in ends if j > i):
                step, state = self.solver.step(once, node.x, self.levels[i], self.levels[j], node.state, self.noise)
                distance = _distance(step.x, self.teacher[j])
                if j not in reached or distance < reached[j].distance:
                    reached[j] = _Node(step.x, state, (*node.path, j), distance)
            self.count()
        return reached

    def polished(self, path: tuple[int, ...], distance: float) -> tuple[int, ...]:
        """`path` with runs of neighbouring inner levels moved one candidate up or down while the end comes nearer."""
        inner = range(1, len(path) - 1)
        for _ in range(ROUNDS):
            before = path
            for first, last, move in ((i, j, by) for i in inner for j in inner[i - 1 :] for by in (-1, 1)):
                tried = tuple(c + move if first <= i <= last else c for i, c in enumerate(path))
                self.count(len(path) - 1)
                if all(c < d for c, d in pairwise(tried)) and (moved := self._end(tried)) < distance:
                    path, distance = tried, moved
            if path == before:
                break
        return path

    def _end(self, path: Sequence[int]) -> float:
        levels = walk(_stacked([self.levels[i] for i in path]))
        steps = trajectory(self.denoiser, self.teacher[0], levels, self.solver, cond=self.cond, noise=self.noise)
        *_, last = steps
        return _distance(last.x, self.teacher[-1])


def _distance(x: Tensor, teacher: Tensor) -> float:
    """The mean distance of the items; infinite where one of them is not finite, so that any other walk is better."""
    distance = float((x - teacher).flatten(1).norm(dim=1).mean())
    return distance if math.isfinite(distance) else math.inf


class _Once:
    """A denoiser that is asked only once at one x and level, where the steps to all candidates start."""

    def __init__(self, denoiser: Denoiser, cond: Cond, x: Tensor, level: Level) -> None:
        self._denoiser = denoiser.fresh() if isinstance(denoiser, Remembers) else denoiser
        self._cond = cond
        self._x, self._level = x, level
        self._known: Prediction | None = None

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        if x is not self._x or level is not self._level:
            return self._denoiser(x, level, self._cond, nxt)
        if self._known is None:
            self._known = self._denoiser(x, level, self._cond, nxt)
        return self._known


class _Count:
    """Tells how much is done."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def __call__(self, more: int = 1) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)

    def finish(self) -> None:
        self(self._total - self._done)


def _stacked(levels: Sequence[Level]) -> Level:
    return Level(torch.stack([level.alpha for level in levels]), torch.stack([level.sigma for level in levels]))
