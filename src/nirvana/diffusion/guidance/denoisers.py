"""Denoisers made of denoisers: with a condition of their own, guided by a rule, clipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser, first_order_only, freshened
from nirvana.diffusion.guidance.around import Interval
from nirvana.diffusion.guidance.rules import CFG, Rule
from nirvana.diffusion.level import Level
from nirvana.diffusion.prediction import Prediction


@dataclass(frozen=True, eq=False)
class WithCond:
    """A denoiser with a condition of its own in place of the one it is called with."""

    denoiser: Denoiser
    cond: Cond

    @property
    def first_order_only(self) -> bool:
        """As the denoiser."""
        return first_order_only(self.denoiser)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction under the own condition."""
        del cond
        return self.denoiser(x, level, self.cond, nxt)

    def fresh(self) -> WithCond:
        """The same around a fresh denoiser."""
        return replace(self, denoiser=freshened(self.denoiser))


@dataclass(frozen=True, eq=False)
class Guided:
    """The denoiser whose x0 is `rule` of the x0 of `branches`, the strong one first.

    Everything but x0 comes from the strong branch, or the first one called. Branches of one denoiser under several
    conditions (`WithCond`) are batched into one call where their conditions have the same slots and shapes; a branch
    may be another denoiser.
    """

    branches: tuple[Denoiser, ...]
    rule: Rule

    @property
    def first_order_only(self) -> bool:
        """As the rule or one of the branches."""
        return self.rule.first_order_only or any(map(first_order_only, self.branches))

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The guided prediction at `level`. Raises ValueError where the rule does not fit the branches."""
        needs = self.rule.needs(level, nxt)
        if len(needs) != len(self.branches) or not any(needs):
            raise ValueError(f"the rule needs {needs} of {len(self.branches)} branches")
        calls = [_unwrapped(branch, cond) for branch, needed in zip(self.branches, needs, strict=True) if needed]
        made = iter(_call_all(calls, x, level, nxt))
        predictions = [next(made) if needed else None for needed in needs]
        first = next(p for p in predictions if p is not None)
        x0 = self.rule([None if p is None else p.x0 for p in predictions], x, level, nxt)
        return replace(first, x0=x0)

    def fresh(self) -> Guided:
        """The same with an empty memory, of the rule and of the branches."""
        return Guided(tuple(freshened(branch) for branch in self.branches), self.rule.fresh())


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

    @property
    def first_order_only(self) -> bool:
        """As the denoiser."""
        return first_order_only(self.denoiser)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The clipped prediction."""
        found = self.denoiser(x, level, cond, nxt)
        return replace(found, x0=found.x0.clamp(self.low, self.high))

    def fresh(self) -> Clipped:
        """The same with an empty memory of the denoiser."""
        return Clipped(freshened(self.denoiser), self.low, self.high)


def guided(
    denoiser: Denoiser, cond: Cond, null_cond: Cond, w: float, interval: tuple[float, float] | None = None
) -> Guided:
    """Classifier-free guidance of one denoiser: `CFG(w)` between `cond` and `null_cond`, or only in an `Interval`."""
    rule = CFG(w) if interval is None else Interval(CFG(w), *interval)
    return Guided((WithCond(denoiser, cond), WithCond(denoiser, null_cond)), rule)


def _unwrapped(branch: Denoiser, cond: Cond) -> tuple[Denoiser, Cond]:
    while isinstance(branch, WithCond):
        branch, cond = branch.denoiser, branch.cond
    return branch, cond


def _call_all(calls: Sequence[tuple[Denoiser, Cond]], x: Tensor, level: Level, nxt: Level | None) -> list[Prediction]:
    """The prediction of every (denoiser, cond), in one call for all of the same denoiser that are alike in shape."""
    groups: dict[object, list[int]] = {}
    for i, (denoiser, cond) in enumerate(calls):
        groups.setdefault((id(denoiser), _shapes(cond)), []).append(i)
    made: dict[int, Prediction] = {}
    for group in groups.values():
        conds = [calls[i][1] for i in group]
        made.update(zip(group, _together(calls[group[0]][0], conds, x, level, nxt), strict=True))
    return [made[i] for i in range(len(calls))]


def _together(
    denoiser: Denoiser, conds: Sequence[Cond], x: Tensor, level: Level, nxt: Level | None
) -> Sequence[Prediction]:
    """The predictions of one denoiser under several conditions, in one call."""
    n = len(conds)
    if n == 1:
        return [denoiser(x, level, conds[0], nxt)]
    joined = {name: torch.cat([cond[name] for cond in conds]) for name in conds[0]}
    whole = denoiser(torch.cat([x] * n), _repeated(level, x, n), joined, None if nxt is None else _repeated(nxt, x, n))
    fractions = [None] * n if whole.var_frac is None else whole.var_frac.chunk(n)
    return [Prediction(x0, fraction) for x0, fraction in zip(whole.x0.chunk(n), fractions, strict=True)]


def _shapes(cond: Cond) -> frozenset[tuple[str, torch.Size, torch.dtype]]:
    return frozenset((name, value.shape, value.dtype) for name, value in cond.items())


def _repeated(level: Level, x: Tensor, n: int) -> Level:
    """The level of x repeated n times: one per item is repeated as the items are."""
    if level.alpha.ndim == 0 or level.alpha.shape[0] != x.shape[0]:
        return level
    return Level(torch.cat([level.alpha] * n), torch.cat([level.sigma] * n))
