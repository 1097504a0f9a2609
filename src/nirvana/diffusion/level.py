"""Noise levels: the pair (alpha, sigma) of x = alpha*x0 + sigma*eps, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Cast(NamedTuple):
    """The alpha and sigma of a level in the dtype, on the device and in the shape of a state."""

    alpha: Tensor
    sigma: Tensor


def float64(value: float | Tensor) -> Tensor:
    """`value` as a float64 tensor on the CPU."""
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def left_align(c: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Tensor:
    """`c` cast and moved to `x`, padded on the right with axes of 1 so that it multiplies `x`; no axes stay no axes.

    Raises ValueError where the axes of `c` do not match the first axes of `x`.
    """
    if c.ndim == 0:
        return c.to(x.device, x.dtype)
    leading = x.shape[: c.ndim]
    if c.ndim > x.ndim or any(n not in (1, m) for n, m in zip(c.shape, leading, strict=True)):
        raise ValueError(f"shape {tuple(c.shape)} of a level does not align with the left of {tuple(x.shape)}")
    return c.reshape(c.shape + (1,) * (x.ndim - c.ndim)).to(x.device, x.dtype)


@dataclass(frozen=True, eq=False)
class Level:
    """A noise level: x = alpha*x0 + sigma*eps.

    alpha, sigma: float64 on the CPU (other floats are converted), both >= 0 and not both 0, of any shape that aligns
    with the left of x: () for the whole batch, (B,) one per item, (B, C) or (1, C) one per channel, and so on.
    """

    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", float64(self.alpha))
        object.__setattr__(self, "sigma", float64(self.sigma))

    @staticmethod
    def of(alpha: float, sigma: float) -> Level:
        """The level of two numbers."""
        return Level(float64(alpha), float64(sigma))

    @staticmethod
    def from_lam(lam: float | Tensor) -> Level:
        """Unit-norm level: alpha^2 = sigmoid(2 lam), sigma^2 = sigmoid(-2 lam); exact at lam = ±inf."""
        lam = float64(lam)
        one = torch.ones_like(lam)
        # 1/hypot(1, e^-lam) is sqrt(sigmoid(2 lam)) without the underflow of e^(-2 lam) and without a difference.
        return Level(1 / torch.hypot(one, torch.exp(-lam)), 1 / torch.hypot(one, torch.exp(lam)))

    @staticmethod
    def from_ratio(ratio: float | Tensor) -> Level:
        """Unit-norm level of ratio = sigma/alpha (what EDM calls sigma), 0 to inf, exact at both ends."""
        ratio = float64(ratio)
        one = torch.ones_like(ratio)
        return Level(1 / torch.hypot(one, ratio), 1 / torch.hypot(one, 1 / ratio))

    @staticmethod
    def from_angle(angle: float | Tensor) -> Level:
        """Unit-norm level (cos angle, sin angle), angle in [0, pi/2], exact at both ends."""
        angle = float64(angle)
        # cos(pi/2) of the nearest float64 is 6e-17: pure noise has to be alpha = 0 and nothing else.
        return Level(torch.where(angle >= math.pi / 2, 0.0, torch.cos(angle)), torch.sin(angle))

    @property
    def lam(self) -> Tensor:
        """log(alpha/sigma), half the log-SNR, -inf (pure noise) to inf (clean)."""
        return torch.log(self.alpha / self.sigma)

    @property
    def ratio(self) -> Tensor:
        """sigma/alpha, 0 (clean) to inf (pure noise)."""
        return self.sigma / self.alpha

    @property
    def angle(self) -> Tensor:
        """atan2(sigma, alpha), 0 (clean) to pi/2 (pure noise): bounded and independent of the scale."""
        return torch.atan2(self.sigma, self.alpha)

    @property
    def snr(self) -> Tensor:
        """(alpha/sigma)^2, 0 (pure noise) to inf (clean)."""
        return (self.alpha / self.sigma).square()

    @property
    def norm(self) -> Tensor:
        """sqrt(alpha^2 + sigma^2)."""
        return torch.hypot(self.alpha, self.sigma)

    @property
    def is_clean(self) -> bool:
        """sigma = 0 everywhere."""
        return not bool(self.sigma.any())

    @property
    def is_pure_noise(self) -> bool:
        """alpha = 0 everywhere."""
        return not bool(self.alpha.any())

    def scaled(self, c: float | Tensor) -> Level:
        """The level of c*x: (c*alpha, c*sigma)."""
        return Level(self.alpha * c, self.sigma * c)

    def unit(self) -> Level:
        """The same ratio with alpha^2 + sigma^2 = 1."""
        return self.scaled(1 / self.norm)

    def like(self, x: Float[Tensor, "..."]) -> Cast:
        """(alpha, sigma) in the dtype and on the device of `x`, padded with axes of 1 on the right to multiply it."""
        return Cast(left_align(self.alpha, x), left_align(self.sigma, x))


def strictly_monotone(levels: Sequence[Level]) -> Literal["falling", "rising"]:
    """Whether the noise of `levels` falls (sampling) or rises (encoding) from each level to the next.

    Raises ValueError, with index and values, at fewer than two levels, where a level is none (NaN, negative, infinite,
    both 0) or where two neighbours are not in the order of the first two.
    """
    if len(levels) < 2:
        raise ValueError(f"a trajectory needs at least 2 levels, got {len(levels)}")
    lams: list[Tensor] = []
    for i, level in enumerate(levels):
        lam = level.lam
        bad = lam.isnan() | (level.alpha < 0) | (level.sigma < 0) | level.norm.isinf()
        if bool(bad.any()):
            raise ValueError(f"level {i} is no noise level: alpha={level.alpha.tolist()}, sigma={level.sigma.tolist()}")
        lams.append(lam)
    falling = bool((lams[1] > lams[0]).all())
    for i, (now, nxt) in enumerate(pairwise(lams)):
        if not bool(((nxt > now) if falling else (nxt < now)).all()):
            word = "fall" if falling else "rise"
            raise ValueError(
                f"levels {i} and {i + 1} are not strictly monotone: the noise should {word} everywhere,"
                f" but lam goes from {now.tolist()} to {nxt.tolist()}"
            )
    return "falling" if falling else "rising"
