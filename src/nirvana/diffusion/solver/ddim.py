"""DDIM: the first-order step, deterministic or with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nirvana.diffusion.level import Level, between, left_align
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.solver.protocol import Denoise, Step


def ddim_coefficients(now: Level, nxt: Level, eta: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(c_x, c_0, s) of x_nxt = c_x*x + c_0*x0 + s*noise, float64, of the broadcast shape of the levels.

    From x_nxt = alpha_nxt*x0 + sqrt(sigma_nxt^2 - s^2)*eps + s*noise with eps = (x - alpha_now*x0)/sigma_now and
    s^2 = eta^2 sigma_nxt^2 (1 - rho^2), rho = exp(lam_now - lam_nxt): eta^2 times the variance of
    q(x_nxt | x_now, x0), at any norm of the two levels (Song, Meng & Ermon 2021, eq. 12 and 16).
    Raises ValueError where sigma_now = 0.
    """
    if bool((now.sigma == 0).any()):
        raise ValueError("no step starts at a clean level (sigma = 0): begin at the first level with sigma > 0")
    c_x = nxt.sigma / now.sigma
    s = torch.zeros_like(c_x)
    if eta:
        lam_step = now.lam - nxt.lam
        # sigma_nxt^2 - s^2 without a difference: 1 - eta^2 (1 - rho^2) = (1 - eta^2) + eta^2 rho^2.
        c_x = c_x * torch.sqrt((1 - eta**2) + eta**2 * torch.exp(2 * lam_step))
        s = eta * nxt.sigma * torch.sqrt(-torch.expm1(2 * lam_step))
    return c_x, nxt.alpha - c_x * now.alpha, s


@dataclass(frozen=True)
class _Coefficients:
    """`ddim_coefficients` of one eta."""

    eta: float

    def __call__(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor, Tensor]:
        return ddim_coefficients(now, nxt, self.eta)


@dataclass(frozen=True)
class DDIM:
    """x_nxt = alpha_nxt*x0 + sqrt(sigma_nxt^2 - s^2)*eps + s*noise (Song, Meng & Ermon 2021, eq. 12).

    eta: 0 is deterministic, the Euler step of the probability flow, and exact for a constant x0; 1 draws from the
    posterior q(x_nxt | x_now, x0) as ancestral sampling does. Raises ValueError unless 0 <= eta <= 1.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: give a number from 0 (deterministic) to 1 (ancestral)")

    @property
    def order(self) -> int:
        """1."""
        return 1

    @property
    def started_order(self) -> int:
        """1."""
        return 1

    @property
    def deterministic(self) -> bool:
        """eta = 0."""
        return self.eta == 0

    def calls(self, levels: Sequence[Level]) -> int:
        """One network call a step."""
        return len(levels) - 1

    def init(self, x: Tensor) -> None:
        """It has no state."""

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: None, noise: Noise) -> tuple[Step, None]:
        """x from `now` to `nxt` by `ddim_coefficients`. Raises ValueError where sigma_now = 0."""
        c_x, c_0, s = between(_Coefficients(self.eta), now, nxt)
        prediction = denoise(x, now, nxt)
        x_nxt = left_align(c_x, x) * x + left_align(c_0, x) * prediction.x0
        if not self.deterministic:
            x_nxt = x_nxt + left_align(s, x) * noise.path(now, nxt).to(x)
        return Step(now, nxt, x_nxt, prediction), state

    def revise(self, state: None) -> None:
        """It has no state."""
