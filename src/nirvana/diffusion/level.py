"""Noise levels: the pair (alpha, sigma) of x = alpha*x0 + sigma*eps, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Float
from torch import Tensor

Coefficient = float | Tensor
"""A number for the whole batch, or a float64 tensor of the shape of a level."""

Native = Literal["unit", "ratio", "sum"]
"""A scale of x, such as the one a network knows: alpha^2 + sigma^2 = 1, alpha = 1, or alpha + sigma = 1."""

Coefficients = Callable[..., tuple[Tensor, ...]]
"""A function of one or more levels, element by element; hashable, and one key stands for one function."""


class Cast(NamedTuple):
    """The alpha and sigma of a level in the dtype, on the device and in the shape of a state."""

    alpha: Tensor
    sigma: Tensor


def float64(value: float | Tensor) -> Tensor:
    """`value` as a float64 tensor on the CPU."""
    if isinstance(value, Tensor) and value.dtype == torch.float64 and value.is_cpu:
        return value  # `as_tensor` takes several microseconds to find that out
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def moved(c: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`c` on `device`, cast; from the CPU without waiting. Not so to MPS, which may read `c` after it was freed."""
    background = c.device.type == "cpu" and device.type != "mps"
    return c.to(device, dtype or c.dtype, non_blocking=background)


@overload
def left_align(c: float, x: Float[Tensor, "..."]) -> float: ...
@overload
def left_align(c: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Tensor: ...
def left_align(c: Coefficient, x: Float[Tensor, "..."]) -> Coefficient:
    """`c` cast and moved to `x`, padded on the right with axes of 1 so that it multiplies `x`; no axes stay no axes.

    A number multiplies as it is. Raises ValueError where the axes of `c` do not match the first axes of `x`.
    """
    if not isinstance(c, Tensor):
        return c
    if c.ndim == 0:
        return moved(c, x.device, x.dtype)
    check_aligned(c.shape, x)
    return moved(c.reshape(c.shape + (1,) * (x.ndim - c.ndim)), x.device, x.dtype)


def times(c: Coefficient, x: Float[Tensor, "b *s"]) -> Float[Tensor, "b *s"]:
    """c*x; for the number 1 x itself, without a pass over memory. Raises ValueError as `left_align` does."""
    return x if not isinstance(c, Tensor) and c == 1 else left_align(c, x) * x


def combined(*terms: tuple[Coefficient, Float[Tensor, "b *s"]]) -> Float[Tensor, "b *s"]:
    """The sum of c*x, of at least one; a number takes one pass over memory, after the first the number 0 none.

    Raises ValueError as `left_align` does.
    """
    (c, first), *others = terms
    total = times(c, first)
    for c, x in others:
        if isinstance(c, Tensor):
            total = total + left_align(c, total) * x
        elif c:
            total = torch.add(total, x, alpha=c) if total is first else total.add_(x, alpha=c)
    return total


def check_aligned(shape: torch.Size, x: Float[Tensor, "..."]) -> None:
    """Raise ValueError unless `shape` matches the first axes of `x`."""
    if len(shape) > x.ndim or any(n not in (1, m) for n, m in zip(shape, x.shape[: len(shape)], strict=True)):
        raise ValueError(f"shape {tuple(shape)} of a level does not align with the left of {tuple(x.shape)}")


@dataclass(frozen=True, eq=False)
class Level:
    """A noise level: x = alpha*x0 + sigma*eps.

    alpha, sigma: float64 on the CPU (other floats are converted), both >= 0 and not both 0, of any shape that aligns
    with the left of x: () for the whole batch, (B,) one per item, (B, C) or (1, C) one per channel, and so on.
    place: where it stands in a walk, if it was made with one.
    """

    alpha: Float[Tensor, "..."]
    sigma: Float[Tensor, "..."]
    place: Place | None = field(default=None, repr=False)

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
        alpha = torch.cos(angle)
        # cos(pi/2) of the nearest float64 is 6e-17: pure noise has to be alpha = 0 and nothing else, its slope stays.
        return Level(alpha - torch.where(angle >= math.pi / 2, alpha, 0.0).detach(), torch.sin(angle))

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
        return self.scaled(self.scale_to("unit"))

    def scale_to(self, native: Native) -> Tensor:
        """The factor c that brings c*x to the scale `native`. Raises ValueError for "ratio" at alpha = 0."""
        if native == "unit":
            return 1 / self.norm
        if native == "sum":
            return 1 / (self.alpha + self.sigma)
        if bool((self.alpha == 0).any()):
            raise ValueError("a network with the native scale 'ratio' has no pure noise: start the levels at alpha > 0")
        return 1 / self.alpha

    def like(self, x: Float[Tensor, "..."]) -> Cast:
        """(alpha, sigma) in the dtype and on the device of `x`, padded with axes of 1 on the right to multiply it."""
        return Cast(left_align(self.alpha, x), left_align(self.sigma, x))


@dataclass(frozen=True, eq=False)
class Place:
    """Where a level stands in a walk."""

    walk: Walk
    index: int

    def leads(self, levels: Sequence[Level]) -> bool:
        """Whether `levels` follow one another in the same walk, the first of them here."""
        for index, level in enumerate(levels, self.index):
            place = level.place
            if place is None or place.walk is not self.walk or place.index != index:
                return False
        return True


class Walk:
    """Levels of shape () that were made together, so that a function of levels is worked out for all in one go.

    level: of shape (n,), in the order of the visit. At a step the coefficients are then numbers that are there: the
    arithmetic of 0-dimensional tensors costs more time than that of the state, and a number needs no copy to a device.
    """

    def __init__(self, level: Level) -> None:
        self.level = level
        self._tables: dict[tuple[Hashable, int], list[tuple[float, ...]] | None] = {}

    def row(self, index: int, of: Coefficients, count: int) -> tuple[float, ...] | None:
        """`of` at the `count` levels from `index` on; None where it raises ValueError at any of the walk."""
        key = of, count
        if key not in self._tables:
            self._tables[key] = _rows(of, [self._from(first, count) for first in range(count)])
        table = self._tables[key]
        return None if table is None else table[index]

    def _from(self, first: int, count: int) -> Level:
        """The level `first` and those after it, as many as there are runs of `count` neighbours."""
        part = slice(first, len(self.level.alpha) - count + 1 + first)
        return Level(self.level.alpha[part], self.level.sigma[part])


def _rows(of: Coefficients, levels: Sequence[Level]) -> list[tuple[float, ...]] | None:
    try:
        columns = torch.broadcast_tensors(levels[0].alpha, *of(*levels))[1:]
    except ValueError:
        return None  # one of the levels is not possible, but it may never be visited
    if any(column.requires_grad for column in columns):
        return None  # a number would cut the gradient off
    return list(zip(*(column.tolist() for column in columns), strict=True))


def walk(level: Level) -> list[Level]:
    """The n levels of a `level` of shape (n,), as a `Walk`: what grids return."""
    whole = Walk(level)
    pairs = zip(level.alpha, level.sigma, strict=True)
    return [Level(alpha, sigma, Place(whole, i)) for i, (alpha, sigma) in enumerate(pairs)]


def rewalked(levels: Sequence[Level]) -> list[Level]:
    """`levels` of shape () in this order as a `Walk` of their own: a walk that is reversed, as encoding goes."""
    return walk(Level(torch.stack([level.alpha for level in levels]), torch.stack([level.sigma for level in levels])))


def at(of: Coefficients, level: Level) -> tuple[Coefficient, ...]:
    """`of(level)`: numbers, worked out once, where the level is part of a walk. `of` is hashable and elementwise."""
    return between(of, level)


def between(of: Coefficients, *levels: Level) -> tuple[Coefficient, ...]:
    """`of(*levels)`: numbers, worked out once, where the levels follow one another in a walk."""
    place = levels[0].place
    if place is not None and place.leads(levels):
        row = place.walk.row(place.index, of, len(levels))
        if row is not None:
            return row
    return of(*levels)


def strictly_monotone(levels: Sequence[Level]) -> Literal["falling", "rising"]:
    """Whether the noise of `levels` falls (sampling) or rises (encoding) from each level to the next.

    Raises ValueError, with index and values, at fewer than two levels, where a level is none (NaN, negative, infinite,
    both 0) or where two neighbours are not in the order of the first two.
    """
    if len(levels) < 2:
        raise ValueError(f"a trajectory needs at least 2 levels, got {len(levels)}")
    whole = _stacked(levels)
    lam = whole.lam
    bad = (lam.isnan() | (whole.alpha < 0) | (whole.sigma < 0) | whole.norm.isinf()).any(1)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        alpha, sigma = levels[i].alpha.tolist(), levels[i].sigma.tolist()
        raise ValueError(f"level {i} is no noise level: alpha={alpha}, sigma={sigma}")
    falling = bool((lam[1] > lam[0]).all())
    follows = (lam[1:] > lam[:-1] if falling else lam[1:] < lam[:-1]).all(1)
    if not bool(follows.all()):
        i = int((~follows).nonzero()[0])
        now, nxt = levels[i].lam.tolist(), levels[i + 1].lam.tolist()
        word = "fall" if falling else "rise"
        raise ValueError(
            f"levels {i} and {i + 1} are not strictly monotone: the noise should {word} everywhere,"
            f" but lam goes from {now} to {nxt}"
        )
    return "falling" if falling else "rising"


def _stacked(levels: Sequence[Level]) -> Level:
    """All of them as one level of shape (n, elements)."""
    n = len(levels)
    place = levels[0].place
    if place is not None and place.leads(levels):
        part = slice(place.index, place.index + n)
        return Level(place.walk.level.alpha[part, None], place.walk.level.sigma[part, None])
    both = torch.broadcast_tensors(*(level.alpha for level in levels), *(level.sigma for level in levels))
    return Level(torch.stack(both[:n]).reshape(n, -1), torch.stack(both[n:]).reshape(n, -1))
