"""Rules around rules: where one acts, what becomes of its x0, and of which conditions its strong branch is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.guidance.rules import Rule, acts, called
from nirvana.diffusion.level import Coefficient, Level, left_align


@dataclass(frozen=True)
class Interval:
    """`rule` where the ratio sigma/alpha lies in [low, high], elsewhere the strong branch, bit for bit and alone.

    Guidance at much noise costs variety, at little noise it does nothing (Kynkaanniemi et al. 2024, eq. 6); where it
    does not act the weak branch is not called. Pure noise has the ratio inf, data 0.
    Raises ValueError unless 0 <= low < high.
    """

    rule: Rule
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"the guidance interval is [{self.low}, {self.high}]: give ratios with 0 <= low < high")

    @property
    def first_order_only(self) -> bool:
        """As the rule."""
        return self.rule.first_order_only

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, ...]:
        """What the rule needs where any item lies inside, and the strong branch where any lies outside."""
        inside, needs = self._inside(level), self.rule.needs(level, nxt)
        strong, *others = (need and bool(inside.any()) for need in needs)
        return strong or not bool(inside.all()), *others

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """The x0 of the rule for the items inside, the strong one for those outside."""
        inside = self._inside(level)
        if not bool(inside.any()):
            return called(x0s[0])
        needed = [x0 if need else None for x0, need in zip(x0s, self.rule.needs(level, nxt), strict=True)]
        steered = self.rule(needed, x, level, nxt)
        if bool(inside.all()):
            return steered
        return torch.where(left_align(inside, x).bool(), steered, called(x0s[0]))

    def fresh(self) -> Interval:
        """The same with an empty memory of the rule."""
        return replace(self, rule=self.rule.fresh())

    def _inside(self, level: Level) -> Tensor:
        return (level.ratio >= self.low) & (level.ratio <= self.high)


@dataclass(frozen=True)
class Rescaled:
    """The x0 of `rule` times 1 + phi*(std(strong)/std(x0) - 1), std over a whole item (Lin et al. 2023, eq. 15-16).

    Guidance raises the contrast of x0; phi = 1 gives it back the standard deviation of the strong branch, phi = 0
    leaves it. Raises ValueError unless 0 <= phi <= 1.
    """

    rule: Rule
    phi: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.phi <= 1:
            raise ValueError(f"phi is {self.phi}: give a number from 0 (no rescaling) to 1 (all of it)")

    @property
    def first_order_only(self) -> bool:
        """As the rule."""
        return self.rule.first_order_only

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, ...]:
        """What the rule needs, and the strong branch unless phi = 0."""
        strong, *others = self.rule.needs(level, nxt)
        return strong or self.phi > 0, *others

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """The rescaled x0; a constant one stays as it is."""
        x0 = self.rule(x0s, x, level, nxt)
        if self.phi == 0:
            return x0
        now, wanted = (one.flatten(1).std(1, correction=0) for one in (x0, called(x0s[0])))
        ratio = torch.where(now > 0, wanted / torch.where(now > 0, now, 1.0), 1.0)
        return x0 * left_align(1 + self.phi * (ratio - 1), x)

    def fresh(self) -> Rescaled:
        """The same with an empty memory of the rule."""
        return replace(self, rule=self.rule.fresh())


@dataclass(frozen=True)
class Thresholded:
    """The x0 of `rule` clipped to [-s, s] and times bound/s (Saharia et al. 2022, section 2.3, "dynamic").

    s is the `percentile` (a fraction) of the item's |x0|, and at least `bound`, the largest number of the data: x0
    beyond it comes back into the range without all of it ending at the same value, as with `Clipped`.
    Raises ValueError unless 0 < percentile <= 1 and bound is finite and > 0.
    """

    rule: Rule
    percentile: float = 0.995
    bound: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 1:
            raise ValueError(f"percentile is {self.percentile}: give a fraction above 0 and up to 1, such as 0.995")
        if not 0 < self.bound < math.inf:
            raise ValueError(f"bound is {self.bound}: give the largest number of the data, such as 1")

    @property
    def first_order_only(self) -> bool:
        """As the rule."""
        return self.rule.first_order_only

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, ...]:
        """What the rule needs."""
        return self.rule.needs(level, nxt)

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """The thresholded x0; one within the bound stays as it is."""
        x0 = self.rule(x0s, x, level, nxt)
        s = left_align(quantile(x0.abs().flatten(1), self.percentile).clamp(min=self.bound), x)
        return x0.clamp(-s, s) * (self.bound / s)

    def fresh(self) -> Thresholded:
        """The same with an empty memory of the rule."""
        return replace(self, rule=self.rule.fresh())


def quantile(values: Float[Tensor, "b n"], q: float) -> Float[Tensor, "b"]:
    """The q-quantile of each row, linear between neighbours; `torch.quantile` refuses more than 2^24 numbers."""
    ordered = values.sort(1).values
    place = q * (values.shape[1] - 1)
    below, above = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    return below.lerp(above, place - math.floor(place))


@dataclass(frozen=True, eq=False)
class Composed:
    """`rule` between strong = weak + sum_i weight_i*(cond_i - weak) and weak; branches (cond_1, ..., cond_k, weak).

    With p(x) the density of weak, strong has the score of p(x) prod_i p(cond_i | x)^weight_i (Liu et al. 2022, sec. 4).
    However many the conditions, weak is called once; it is not called where the weights sum to 1 and the rule does
    without. weights: numbers, or tensors (B,) with one for each item; negative ones lead away.
    Raises ValueError where there is none or one is not finite.
    """

    weights: tuple[Coefficient, ...]
    rule: Rule

    def __post_init__(self) -> None:
        if not self.weights or not all(bool(torch.as_tensor(w).isfinite().all()) for w in self.weights):
            raise ValueError(f"the weights of the conditions are {self.weights}: give one finite number for each")

    @property
    def first_order_only(self) -> bool:
        """As the rule."""
        return self.rule.first_order_only

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, ...]:
        """The conditions with a weight where the rule needs strong; weak where the rule or the sum needs it."""
        strong, weak = self.rule.needs(level, nxt)
        return *(strong and acts(w) for w in self.weights), weak or (strong and acts(self._rest))

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """The x0 of the rule between the composed strong branch and the weak one."""
        needs_strong, needs_weak = self.rule.needs(level, nxt)
        terms = zip((*self.weights, self._rest), x0s, strict=True)
        strong = sum_of([(w, called(x0)) for w, x0 in terms if acts(w)]) if needs_strong else None
        return self.rule((strong, x0s[-1] if needs_weak else None), x, level, nxt)

    def fresh(self) -> Composed:
        """The same with an empty memory of the rule."""
        return replace(self, rule=self.rule.fresh())

    @property
    def _rest(self) -> Coefficient:
        """The coefficient of weak in strong = sum_i weight_i*cond_i + (1 - sum_i weight_i)*weak."""
        rest: Coefficient = 1.0
        for w in self.weights:
            rest = rest - w
        return rest


def sum_of(terms: Sequence[tuple[Coefficient, Tensor]]) -> Tensor:
    """sum_i w_i*x_i; a single term of weight 1 is its x, bit for bit."""
    (w, x), *others = terms
    total = left_align(w, x) * x
    for w, x in others:
        total = total + left_align(w, x) * x
    return total
