"""Denoisers, grids and walks that the tests of solvers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nirvana.diffusion.exact import GaussianDenoiser
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.noise import Key
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver import Solver

F64 = torch.float64
MEAN = torch.tensor([0.5, -1.0, 0.3, 1.2], dtype=F64)
VARIANCE = torch.tensor([0.05, 0.3, 1.0, 2.5], dtype=F64)
GAUSSIAN = GaussianDenoiser(MEAN, torch.diag(VARIANCE))


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def alternating(n: int, low: float = -2.5, high: float = 2.0) -> list[Level]:
    """n steps in lam, every other one half as long as its neighbours."""
    length = torch.ones(n, dtype=F64)
    length[1::2] = 0.5
    part = torch.cat([tensor(0.0), length.cumsum(0) / length.sum()])
    return walk(Level.from_lam(low + (high - low) * part))


def bent(n: int, low: float = -2.5, high: float = 2.0) -> list[Level]:
    """n steps in lam whose length changes smoothly, by a factor of 2.7; the norms of the levels jump, to 1 at last."""
    u = torch.linspace(0, 1, n + 1, dtype=F64)
    level = Level.from_lam(low + (high - low) * (u + 0.46 * torch.sin(2 * math.pi * u) / (2 * math.pi)))
    return walk(level.scaled(1 + torch.arange(n, -1, -1) % 3))


GRIDS: dict[str, Callable[[int], list[Level]]] = {"alternating": alternating, "bent": bent}


class Silent:
    """No noise may be drawn."""

    def initial(self) -> Tensor:
        raise AssertionError("noise drawn")

    def path(self, now: Level, nxt: Level) -> Tensor:
        raise AssertionError("noise drawn")

    def fresh(self, key: Key) -> Tensor:
        raise AssertionError("noise drawn")


class Given(Silent):
    """Always the same noise."""

    def __init__(self, z: Tensor) -> None:
        self.z = z

    def path(self, now: Level, nxt: Level) -> Tensor:
        return self.z

    def fresh(self, key: Key) -> Tensor:
        return self.z


class OfLevel:
    """x0 = p x + q f with f a function of the level alone; counts its calls."""

    def __init__(self, f: Callable[[Level], Tensor], *, eps: bool = False) -> None:
        self.f = f
        self.eps = eps
        self.calls = 0

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        self.calls += 1
        f = self.f(level).expand_as(x)
        return Prediction((x - level.sigma * f) / level.alpha if self.eps else f)


def gaussian(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
    return GAUSSIAN(x, level, {}, nxt)


def walked(
    solver: Solver[Any],
    denoise: Callable[..., Prediction],
    levels: Sequence[Level],
    exact: Callable[[int], Tensor],
    primed: int = 0,
) -> list[Tensor]:
    """x after each step; the first `primed` + 1 of them start at the exact x, so that the history is exact."""
    x, state, out = exact(0), solver.init(exact(0)), list[Tensor]()
    for i, (now, nxt) in enumerate(pairwise(levels)):
        step, state = solver.step(denoise, exact(i) if i <= primed else x, now, nxt, state, Silent())
        x = step.x
        out.append(x)
    return out


def slopes(errors: Sequence[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]
