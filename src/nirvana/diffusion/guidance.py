"""Guidance: a denoiser made of denoisers and a rule on their x0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, Remembers
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.prediction import Prediction


@runtime_checkable
class Rule(Protocol):
    """How the x0 of several branches, the strong one first, make one."""

    def needs(self, level: Level) -> tuple[bool, ...]:
        """For each branch whether it is called at `level`; at least one is."""
        ...

    def __call__(self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b *s"]:
        """The guided x0; `x0s` has None for a branch that was not called."""
        ...

    def fresh(self) -> Rule:
        """The rule with an empty memory, for a new trajectory."""
        ...


@dataclass(frozen=True)
class CFG:
    """x0 = weak + w*(strong - weak), branches (strong, weak) (Ho & Salimans 2022, eq. 6, whose w is this one less 1).

    w = 1 is the strong branch, bit for bit, and does not call the weak one; w = 0 is the weak branch and does not call
    the strong one. Raises ValueError unless w is finite and >= 0.
    """

    w: float

    def __post_init__(self) -> None:
        if not 0 <= self.w < math.inf:
            raise ValueError(
                f"guidance is {self.w}: give a number from 0 (ignore the condition), 1 (follow it) upwards"
            )

    def needs(self, level: Level) -> tuple[bool, bool]:
        """(strong unless w = 0, weak unless w = 1)."""
        del level
        return self.w != 0, self.w != 1

    def __call__(self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b *s"]:
        """weak + w*(strong - weak)."""
        del x, level
        strong, weak = x0s
        if strong is None or weak is None:
            return _called(strong if weak is None else weak)
        return weak + self.w * (strong - weak)

    def fresh(self) -> CFG:
        """It has no memory."""
        return self


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

    def needs(self, level: Level) -> tuple[bool, ...]:
        """What the rule needs where any item lies inside, and the strong branch where any lies outside."""
        inside, needs = self._inside(level), self.rule.needs(level)
        strong, *others = (need and bool(inside.any()) for need in needs)
        return strong or not bool(inside.all()), *others

    def __call__(self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b *s"]:
        """The x0 of the rule for the items inside, the strong one for those outside."""
        inside = self._inside(level)
        if not bool(inside.any()):
            return _called(x0s[0])
        needed = [x0 if need else None for x0, need in zip(x0s, self.rule.needs(level), strict=True)]
        steered = self.rule(needed, x, level)
        if bool(inside.all()):
            return steered
        return torch.where(left_align(inside, x).bool(), steered, _called(x0s[0]))

    def fresh(self) -> Interval:
        """The same with an empty memory of the rule."""
        return replace(self, rule=self.rule.fresh())

    def _inside(self, level: Level) -> Tensor:
        return (level.ratio >= self.low) & (level.ratio <= self.high)


@dataclass(frozen=True, eq=False)
class WithCond:
    """A denoiser with a condition of its own in place of the one it is called with."""

    denoiser: Denoiser
    cond: Cond

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction under the own condition."""
        del cond
        return self.denoiser(x, level, self.cond, nxt)

    def fresh(self) -> WithCond:
        """The same around a fresh denoiser."""
        return replace(self, denoiser=_fresh(self.denoiser))


@dataclass(frozen=True, eq=False)
class Guided:
    """The denoiser whose x0 is `rule` of the x0 of `branches`, the strong one first.

    Everything but x0 comes from the strong branch, or the first one called. Branches of one denoiser under several
    conditions (`WithCond`) are batched into one call where their conditions have the same slots and shapes.
    """

    branches: tuple[Denoiser, ...]
    rule: Rule

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The guided prediction at `level`. Raises ValueError where the rule does not fit the branches."""
        needs = self.rule.needs(level)
        if len(needs) != len(self.branches) or not any(needs):
            raise ValueError(f"the rule needs {needs} of {len(self.branches)} branches")
        calls = [_unwrapped(branch, cond) for branch, needed in zip(self.branches, needs, strict=True) if needed]
        made = iter(_call_all(calls, x, level, nxt))
        predictions = [next(made) if needed else None for needed in needs]
        first = next(p for p in predictions if p is not None)
        x0 = self.rule([None if p is None else p.x0 for p in predictions], x, level)
        return replace(first, x0=x0)

    def fresh(self) -> Guided:
        """The same with an empty memory, of the rule and of the branches."""
        return Guided(tuple(_fresh(branch) for branch in self.branches), self.rule.fresh())


@dataclass(frozen=True)
class Clipped:
    """`denoiser` with its x0 kept in [low, high], the range of the data; the solver draws its eps from that x0.

    An eps prediction far from data says little of x0 = (x - sigma*eps)/alpha: unclipped, its errors are divided by a
    small alpha and never come back (Ho et al. 2020, their sampler; Saharia et al. 2022, section 2.3, "static").
    Raises ValueError unless low < high.
    """

    denoiser: Denoiser
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"x0 cannot be clipped to [{self.low}, {self.high}]: low must be below high")

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The clipped prediction."""
        found = self.denoiser(x, level, cond, nxt)
        return replace(found, x0=found.x0.clamp(self.low, self.high))

    def fresh(self) -> Clipped:
        """The same with an empty memory of the denoiser."""
        return Clipped(_fresh(self.denoiser), self.low, self.high)


def guided(
    denoiser: Denoiser, cond: Cond, null_cond: Cond, w: float, interval: tuple[float, float] | None = None
) -> Guided:
    """Classifier-free guidance of one denoiser: `CFG(w)` between `cond` and `null_cond`, or only in an `Interval`."""
    rule = CFG(w) if interval is None else Interval(CFG(w), *interval)
    return Guided((WithCond(denoiser, cond), WithCond(denoiser, null_cond)), rule)


def _called(x0: Tensor | None) -> Tensor:
    if x0 is None:
        raise ValueError("no branch was called")
    return x0


def _fresh(denoiser: Denoiser) -> Denoiser:
    return denoiser.fresh() if isinstance(denoiser, Remembers) else denoiser


def _unwrapped(branch: Denoiser, cond: Cond) -> tuple[Denoiser, Cond]:
    while isinstance(branch, WithCond):
        branch, cond = branch.denoiser, branch.cond
    return branch, cond


def _call_all(calls: Sequence[tuple[Denoiser, Cond]], x: Tensor, level: Level, nxt: Level | None) -> list[Prediction]:
    """The prediction of every (denoiser, cond), in one call where all are the same denoiser and alike in shape."""
    denoiser = calls[0][0]
    together = len(calls) > 1 and all(d is denoiser and _shapes(c) == _shapes(calls[0][1]) for d, c in calls)
    if not together:
        return [d(x, level, c, nxt) for d, c in calls]
    n = len(calls)
    conds = {name: torch.cat([c[name] for _, c in calls]) for name in calls[0][1]}
    whole = denoiser(torch.cat([x] * n), _repeated(level, x, n), conds, None if nxt is None else _repeated(nxt, x, n))
    x0s = whole.x0.chunk(n)
    fractions = [None] * n if whole.var_frac is None else whole.var_frac.chunk(n)
    return [Prediction(x0, fraction) for x0, fraction in zip(x0s, fractions, strict=True)]


def _shapes(cond: Cond) -> Mapping[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in cond.items()}


def _repeated(level: Level, x: Tensor, n: int) -> Level:
    """The level of x repeated n times: one per item is repeated as the items are."""
    if level.alpha.ndim == 0 or level.alpha.shape[0] != x.shape[0]:
        return level
    return Level(torch.cat([level.alpha] * n), torch.cat([level.sigma] * n))
