"""Churn: noise added before each step of any solver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, between, left_align
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.solver.protocol import Denoise, Solver, Step

RHO, WIDTH = 7.0, 80 ** (1 / 7) - 0.002 ** (1 / 7)
"""EDM's grid is even in r^(1/rho), from r = 80 to 0.002 (Karras et al. 2022, table 1)."""


@dataclass(frozen=True)
class _Raised:
    """(factor of sigma, standard deviation of the noise at the norm of `now`) of a churned step."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float

    def __call__(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor]:
        r = now.ratio
        gamma = self.s_churn * (r ** (1 / RHO) - nxt.ratio ** (1 / RHO)) / WIDTH
        inside = (r >= self.s_tmin) & (r <= self.s_tmax) & r.isfinite()
        gamma = torch.where(inside, gamma.clamp(max=math.sqrt(2) - 1), 0.0)
        return 1 + gamma, now.sigma * self.s_noise * torch.sqrt(gamma * (2 + gamma))


State = tuple[int, Any]
"""The number of steps taken, which keys the noise, and the state of the solver inside."""


@dataclass(frozen=True)
class Churn:
    """Before each step of `inner` noise is added: sigma -> (1 + gamma) sigma, and the network then sees that level.

    Karras et al. 2022, algorithm 2. gamma = S_churn (r^(1/7) - r_nxt^(1/7))/(80^(1/7) - 0.002^(1/7)), r = sigma/alpha,
    at most sqrt(2) - 1, for r from s_tmin to s_tmax, else 0. On N steps of the grid `karras` that is EDM's S_churn/N,
    and on any other the same noise for the same way, so that it converges as steps shrink. s_noise: a factor on the
    noise, which fits the level at 1 only. The noise is fresh, since the step goes back over levels that were passed,
    and a history of `inner` is dropped where noise is added.
    Raises ValueError for s_churn or s_noise below 0 and where s_tmin is above s_tmax.
    """

    inner: Solver[Any]
    s_churn: float = 40.0
    s_tmin: float = 0.05
    s_tmax: float = 50.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.s_churn < math.inf and 0 <= self.s_noise < math.inf):
            raise ValueError(f"s_churn and s_noise are at least 0 and finite, got {self.s_churn} and {self.s_noise}")
        if not 0 <= self.s_tmin <= self.s_tmax:
            raise ValueError(f"s_tmin = {self.s_tmin} to s_tmax = {self.s_tmax} is no range of sigma/alpha")

    @property
    def order(self) -> int:
        """That of `inner`, in mean and covariance; 1 where it has a history, which is dropped."""
        return self.inner.order if self.inner.init(torch.empty(0)) is None else 1

    @property
    def started_order(self) -> int:
        """`order`."""
        return self.order

    @property
    def deterministic(self) -> bool:
        """Without churn, where `inner` is."""
        return self.s_churn == 0 and self.inner.deterministic

    def calls(self, levels: Sequence[Level]) -> int | None:
        """Those of `inner`."""
        return self.inner.calls(levels)

    def init(self, x: Tensor) -> State:
        """No step taken."""
        return 0, self.inner.init(x)

    def revise(self, state: State) -> State:
        """The same number of steps."""
        return state[0], self.inner.revise(state[1])

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: State, noise: Noise
    ) -> tuple[Step, State]:
        """x from `now` up to its raised level, and from there to `nxt` by `inner`."""
        (steps, inner), level = state, now
        factor, std = between(_Raised(self.s_churn, self.s_tmin, self.s_tmax, self.s_noise), now, nxt)
        if bool((torch.as_tensor(factor) > 1).any()):
            x = x + left_align(std, x) * noise.fresh(("churn", steps)).to(x)
            level, inner = Level(now.alpha, now.sigma * factor), self.inner.revise(inner)
        step, inner = self.inner.step(denoise, x, level, nxt, inner, noise)
        return replace(step, now=now), (steps + 1, inner)
