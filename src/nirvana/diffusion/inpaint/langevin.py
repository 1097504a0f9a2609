"""Langevin dynamics of what is free, beside what is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.inpaint.method import index_of
from nirvana.diffusion.inpaint.observed import Observed
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import Edit
from nirvana.diffusion.solver.protocol import Denoise


@dataclass(frozen=True)
class Langevin:
    """Underdamped Langevin dynamics of what is free at every level, while what is known stays: `steps` on average.

    With q = x/sigma and a momentum p: dq = p dt, dp = -eps dt - friction p dt + sqrt(2 friction) dW, as the score is
    -eps/sigma. It leaves p(x_free | x_known) of the level as it is, which becomes p(x0_free | y) where sigma goes to 0:
    exact in the limit of many steps and levels. Split as BAOAB, the half kicks of two steps joined: one network call a
    step (Leimkuhler & Matthews 2013, section 4). In q the curvature of -log p is at most 1 and a size below 2 stable;
    there the law of q is exact on a Gaussian. Guidance of weight w may raise it to w, and size 1 is stable below 4.
    Curvatures k far below 1, of what x_known all but determines, mix in 1/sqrt(k) steps, where overdamped dynamics
    take 1/k. The momentum goes on from level to level. Each level has the steps of its way in lam from the one before:
    the error of a step of the solver, which knows nothing of y, is as large for every way in lam.
    Raises ValueError unless steps >= 0, 0 < size < 2 and friction > 0.
    """

    steps: int = 4
    size: float = 1.0
    friction: float = 0.2

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}: give the number of Langevin steps at each level, at least 0")
        if not 0 < self.size < 2:
            raise ValueError(f"size is {self.size}: give a step above 0 and below 2, where the dynamics explode")
        if not 0 < self.friction < math.inf:
            raise ValueError(f"friction is {self.friction}: give a number above 0")

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        """One, which acts at all levels but pure noise, where free and known are independent."""
        return (_Dynamics(self, observed, tuple(levels), tuple(self.turns(levels))),)

    def calls(self, levels: Sequence[Level]) -> int:
        """One a step: `steps` for each level but pure noise and the last."""
        return sum(self.turns(levels))

    def turns(self, levels: Sequence[Level]) -> list[int]:
        """The steps at each level but the last, shared out by the way in lam; the first way is taken for the second."""
        lam = torch.stack([level.lam.mean() for level in levels[:-1]])
        noisy = lam[lam.isfinite()]
        way = noisy.diff()
        way = torch.cat([way[:1] if len(way) else torch.ones_like(noisy), way])
        done = torch.round(self.steps * len(way) * way.cumsum(0) / way.sum())
        return [0] * (len(lam) - len(way)) + [int(n) for n in done.diff(prepend=done.new_zeros(1))]


@dataclass(frozen=True, eq=False)
class _Dynamics:
    """The dynamics along one trajectory. The momentum it keeps is due a kick: half of one when it is new."""

    method: Langevin
    observed: Observed
    levels: tuple[Level, ...]
    turns: tuple[int, ...]
    _momentum: list[Tensor] = field(default_factory=list[Tensor], init=False, repr=False)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, denoise: Denoise, noise: Noise) -> Tensor:
        index = index_of(level, self.levels)
        if not index:
            self._momentum.clear()  # another trajectory
        for turn in range(self.turns[index]):
            x = self._stepped(x, level, denoise, noise, ("langevin", index, turn))
        return x

    def _stepped(self, x: Tensor, level: Level, denoise: Denoise, noise: Noise, key: tuple[str | int, ...]) -> Tensor:
        """x after a kick, half a drift, friction with its noise, and half a drift."""
        (alpha, sigma), h = level.like(x), self.method.size
        eps, kept = (x - alpha * denoise(x, level).x0) / sigma, math.exp(-h * self.method.friction)
        if self._momentum:
            before = self._momentum.pop() - h * eps
        else:
            before = noise.fresh("momentum").to(x) - h / 2 * eps
        after = kept * before + math.sqrt(1 - kept**2) * noise.fresh(key).to(x)
        self._momentum.append(after)
        return self.observed.hold(x, x + sigma * (h / 2) * (before + after))
