"""Coordinates: in which variable a trajectory is smooth, what is interpolated in it, and its exact integrals.

A solver takes x from `now` to `nxt` by the first-order step and corrections of it,
`x_nxt = c_x*x + c_0*x0 + s*noise + sum_j d_j f_j` with `sum_j d_j = 0`: f is what the coordinate interpolates, f_j its
values at the nodes, and d_j follow from the exact integral of the Lagrange polynomial through them.

Each coordinate has eta, the share of new noise (0 is the probability flow, 1 the reverse diffusion); `position`, its
variable q of a level, which may be infinite at an end, and a step from or to there is then of first order; `level`, the
unit-norm level at q; `value`, f; `first`, (c_x, c_0, s) of the step in which f keeps its value at `now`; and `moments`,
what f = u^k, u = (q - q_now)/(q_nxt - q_now), adds to x_nxt for k = 0 .. count - 1, where there are `count` nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from nirvana.diffusion.level import Level, at, left_align
from nirvana.diffusion.quadrature import exponential_moments, lagrange_weights

Linear = Literal["exact", "bh1", "bh2"]
"""What weighs the slope of a line: its exact integral, or B/2 with B = H (bh1) or B = 1 - exp(-H) (bh2)."""


def ddim_coefficients(now: Level, nxt: Level, eta: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(c_x, c_0, s) of x_nxt = c_x*x + c_0*x0 + s*noise, float64, of the broadcast shape of the levels.

    From x_nxt = alpha_nxt*x0 + sqrt(sigma_nxt^2 - s^2)*eps + s*noise with eps = (x - alpha_now*x0)/sigma_now and
    s^2 = eta^2 sigma_nxt^2 (1 - rho^2), rho = exp(lam_now - lam_nxt): eta^2 times the variance of
    q(x_nxt | x_now, x0), at any norm of the two levels (Song, Meng & Ermon 2021, eq. 12 and 16). No difference of
    nearly equal numbers is taken: with h = lam_nxt - lam_now and k of `_decay`, c_x = sigma_nxt/sigma_now exp(-k) and
    c_0 = alpha_nxt (1 - exp(-h - k)). Raises ValueError where sigma_now = 0.
    """
    if bool((now.sigma == 0).any()):
        raise ValueError("no step starts at a clean level (sigma = 0): begin at the first level with sigma > 0")
    h = nxt.lam - now.lam
    ratio = nxt.sigma / now.sigma
    if not eta:
        # With rising noise exp(-h) may be infinite and alpha_nxt 0; exp(h) is at most 1 then.
        c_0 = torch.where(h > 0, -nxt.alpha * torch.expm1(-h), ratio * now.alpha * torch.expm1(h))
        return ratio, c_0, torch.zeros_like(c_0)
    k = _decay(h, eta)
    return ratio * torch.exp(-k), -nxt.alpha * torch.expm1(-h - k), nxt.sigma * torch.sqrt(-torch.expm1(-2 * k))


def _decay(h: Tensor, eta: float) -> Tensor:
    """k with exp(-2k) = 1 - eta^2 (1 - exp(-2h)): how much of the old noise gives way to new."""
    if not eta:
        return torch.zeros_like(h)
    kept = torch.full_like(h, math.log1p(-(eta**2)) if eta < 1 else -math.inf)
    return -torch.logaddexp(kept, 2 * math.log(eta) - 2 * h) / 2


def corrections(
    coordinate: Coordinate, now: Level, nxt: Level, others: Sequence[Level], *, through_now: bool = True
) -> tuple[Tensor, ...]:
    """(d of now, d of each of the others) for the polynomial through the others, and `through_now` or not.

    All 0 where q of `now` or of `nxt` is infinite: the step is then of first order.
    """
    q, length = coordinate.position(now), coordinate.position(nxt) - coordinate.position(now)
    nodes = [(coordinate.position(other) - q) / length for other in others]
    nodes += [torch.zeros_like(length)] * through_now
    weights = lagrange_weights(nodes, coordinate.moments(now, nxt, len(nodes)))[: len(others)]
    d = [torch.where(length.isfinite(), w, 0.0) for w in weights]
    return -sum(d, torch.zeros_like(length)), *d


class _Lam:
    def position(self, level: Level) -> Tensor:
        return level.lam

    def level(self, position: Tensor) -> Level:
        return Level.from_lam(position)


class _Eps:
    eta: float = 0.0

    def value(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        of_x, of_x0 = at(_eps_of, level)
        return left_align(of_x, x) * x + left_align(of_x0, x) * x0

    def first(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor, Tensor]:
        return ddim_coefficients(now, nxt)


def _eps_of(level: Level) -> tuple[Tensor, Tensor]:
    return 1 / level.sigma, -level.alpha / level.sigma


@dataclass(frozen=True)
class DataInLam(_Lam):
    """x0 in lam: x_nxt = sigma_nxt/sigma exp(-k) x + alpha_nxt * integral over u of H exp(-H (1 - u)) x0(u), H = h + k.

    The variation of constants of the probability flow at eta = 0 (Lu et al. 2022, DPM-Solver++, eq. 8), of the reverse
    diffusion at eta = 1; between them one step has the noise of DDIM. linear: what weighs the slope where there are two
    nodes; "bh1" and "bh2" are those of UniPC (Zhao et al. 2023, section 3.1), and "bh2" that of the multistep 2M of
    DPM-Solver++. Raises ValueError unless 0 <= eta <= 1 and for an unknown `linear`.
    """

    eta: float = 0.0
    linear: Linear = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: give a number from 0 (deterministic) to 1 (ancestral)")
        if self.linear not in get_args(Linear):
            raise ValueError(f"unknown linear weight '{self.linear}' (known: {', '.join(get_args(Linear))})")

    def value(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        del x, level
        return x0

    def first(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor, Tensor]:
        """DDIM(eta)."""
        return ddim_coefficients(now, nxt, self.eta)

    def moments(self, now: Level, nxt: Level, count: int) -> list[Tensor]:
        """alpha_nxt M_k(H)."""
        h = nxt.lam - now.lam
        H = h + _decay(h, self.eta)
        M = exponential_moments(H, count)
        if count == 2 and self.linear != "exact":
            M[1] = (H if self.linear == "bh1" else -torch.expm1(-H)) / 2
        return [nxt.alpha * m for m in M]


@dataclass(frozen=True)
class NoiseInLam(_Lam, _Eps):
    """eps in lam: x_nxt = alpha_nxt/alpha x - sigma_nxt * integral over u of h exp(h (1 - u)) eps(u).

    Lu et al. 2022, DPM-Solver, eq. 3.4; DEIS in its variable log rho (Zhang & Chen 2023, section 3.3).
    """

    def moments(self, now: Level, nxt: Level, count: int) -> list[Tensor]:
        """sigma_nxt M_k(-h)."""
        return [nxt.sigma * m for m in exponential_moments(now.lam - nxt.lam, count)]


@dataclass(frozen=True)
class NoiseInRatio(_Eps):
    """eps in r = sigma/alpha: d(x/alpha)/dr = eps (Karras et al. 2022, eq. 3). Finite at a clean `nxt`."""

    def position(self, level: Level) -> Tensor:
        return level.ratio

    def level(self, position: Tensor) -> Level:
        return Level.from_ratio(position)

    def moments(self, now: Level, nxt: Level, count: int) -> list[Tensor]:
        """alpha_nxt (r_nxt - r)/(k + 1)."""
        return [nxt.alpha * (nxt.ratio - now.ratio) / (k + 1) for k in range(count)]


@dataclass(frozen=True)
class VelocityInAngle:
    """v in the angle a: d(x/norm)/da = v = (cos a x/norm - x0)/sin a. Finite at pure noise and at a clean `nxt`.

    The first-order step is that of Euler: unlike DDIM it is not exact for a constant x0.
    """

    eta: float = 0.0

    def position(self, level: Level) -> Tensor:
        return level.angle

    def level(self, position: Tensor) -> Level:
        return Level.from_angle(position)

    def value(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        of_x, of_x0 = at(_v_of, level)
        return left_align(of_x, x) * x + left_align(of_x0, x) * x0

    def first(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor, Tensor]:
        """x/norm + (a_nxt - a) v, at the norm of nxt."""
        (of_x, of_x0), (step,) = _v_of(now), self.moments(now, nxt, 1)
        return nxt.norm / now.norm + step * of_x, step * of_x0, torch.zeros_like(step)

    def moments(self, now: Level, nxt: Level, count: int) -> list[Tensor]:
        """norm_nxt (a_nxt - a)/(k + 1)."""
        return [nxt.norm * (nxt.angle - now.angle) / (k + 1) for k in range(count)]


def _v_of(level: Level) -> tuple[Tensor, Tensor]:
    return level.alpha / (level.sigma * level.norm), -level.norm / level.sigma


Coordinate = DataInLam | NoiseInLam | NoiseInRatio | VelocityInAngle
