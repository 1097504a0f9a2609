"""Rules: how the x0 of a strong and a weak branch make one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Coefficient, Level, between, left_align


@runtime_checkable
class Rule(Protocol):
    """How the x0 of several branches, the strong one first, make one. `nxt` is the level the solver goes to."""

    @property
    def first_order_only(self) -> bool:
        """True where it is defined for the steps of deterministic solvers of the first order alone."""
        ...

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, ...]:
        """For each branch whether it is called at `level`; at least one is."""
        ...

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """The guided x0; `x0s` has None for a branch that was not called."""
        ...

    def fresh(self) -> Rule:
        """The rule with an empty memory, for a new trajectory."""
        ...


def called(x0: Tensor | None) -> Tensor:
    """`x0` of a branch that was called. Raises ValueError where it was not."""
    if x0 is None:
        raise ValueError("a branch that the rule needs was not called")
    return x0


def acts(c: Coefficient) -> bool:
    """Whether a coefficient is anything but 0 for any item."""
    return bool((c != 0).any()) if isinstance(c, Tensor) else c != 0


def dot(a: Float[Tensor, "b *s"], b: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
    """The inner product of each item."""
    return (a * b).flatten(1).sum(1)


def _check_w(w: float) -> None:
    if not 0 <= w < math.inf:
        raise ValueError(f"guidance is {w}: give a number from 0 (ignore the condition), 1 (follow it) upwards")


def _between_branches(x0s: Sequence[Tensor | None], w: Coefficient) -> Tensor:
    """weak + w*(strong - weak), or the only branch that was called."""
    strong, weak = x0s
    if strong is None or weak is None:
        return called(strong if weak is None else weak)
    return weak + left_align(w, strong) * (strong - weak)


@dataclass(frozen=True)
class CFG:
    """x0 = weak + w*(strong - weak), branches (strong, weak) (Ho & Salimans 2022, eq. 6, whose w is this one less 1).

    w = 1 is the strong branch, bit for bit, and does not call the weak one; w = 0 is the weak branch and does not call
    the strong one. Where weak is another condition it is a negative one; where it is a worse network, autoguidance
    (Karras et al. 2024, "Guiding a diffusion model with a bad version of itself", eq. 3).
    Raises ValueError unless w is finite and >= 0.
    """

    w: float

    def __post_init__(self) -> None:
        _check_w(self.w)

    @property
    def first_order_only(self) -> bool:
        """No: it is for every solver."""
        return False

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, bool]:
        """(strong unless w = 0, weak unless w = 1)."""
        del level, nxt
        return self.w != 0, self.w != 1

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """weak + w*(strong - weak)."""
        del x, level, nxt
        return _between_branches(x0s, self.w)

    def fresh(self) -> CFG:
        """It has no memory."""
        return self


@dataclass(frozen=True)
class _Weight:
    """The w of plain guidance whose first-order step is that of CFG++ with `w`."""

    w: float

    def __call__(self, now: Level, nxt: Level) -> tuple[Tensor]:
        return (-self.w / torch.expm1(now.lam - nxt.lam),)


@dataclass(frozen=True)
class CFGpp:
    """CFG++: x0 is guided by w, and the step adds the eps of the weak branch again (Chung et al. 2024, algorithm 2).

    x_nxt = alpha_nxt*(weak + w*d) + sigma_nxt*(x - alpha*weak)/sigma, d = strong - weak. Plain guidance of weight u
    steps to sigma_nxt/sigma * x + (alpha_nxt - alpha*sigma_nxt/sigma)*(weak + u*d), so the two are one step where
    u(now, nxt) = w*alpha_nxt/(alpha_nxt - alpha*sigma_nxt/sigma) = w/(1 - exp(lam_now - lam_nxt)).
    Hence u = w from pure noise and to a clean level, and it grows as 1/(lam_nxt - lam_now) in between: the same w
    is as strong in few steps as in many. That step is DDIM's, so it is for deterministic first-order solvers only.
    Raises ValueError unless 0 <= w <= 1, and when called without `nxt`.
    """

    w: float

    def __post_init__(self) -> None:
        if not 0 <= self.w <= 1:
            raise ValueError(f"guidance is {self.w}: CFG++ takes a number from 0 (the weak branch) to 1")

    def weight(self, level: Level, nxt: Level | None) -> Coefficient:
        """u(now, nxt), of the shape of the levels."""
        if nxt is None:
            raise ValueError("CFG++ depends on the level a first-order step goes to: use a first-order solver")
        (weight,) = between(_Weight(self.w), level, nxt)
        return weight

    @property
    def first_order_only(self) -> bool:
        """Yes: its u is that of their steps."""
        return True

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, bool]:
        """(strong unless u = 0, weak unless u = 1)."""
        u = self.weight(level, nxt)
        return acts(u), acts(u - 1)

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """weak + u(now, nxt)*(strong - weak)."""
        del x
        return _between_branches(x0s, self.weight(level, nxt))

    def fresh(self) -> CFGpp:
        """It has no memory."""
        return self


@dataclass(frozen=True)
class APG:
    """Adaptive projected guidance: strong + (w - 1)*(d_orthogonal + eta*d_parallel) (Sadat et al. 2024, section 5).

    d = (strong - weak) + momentum * the d of the call before; then d is shortened to the length `norm` where it is
    longer; its part parallel to strong, which oversaturates, is multiplied by eta. Lengths and projections are of a
    whole item. eta = 1, norm = inf, momentum = 0 is CFG; w = 1 is the strong branch alone, as there.
    Keeps the last d: `fresh` forgets it. Raises ValueError unless w is finite and >= 0, 0 <= eta <= 1, norm > 0 and
    -1 < momentum < 1, and at a batch of another shape than the remembered one.
    """

    w: float
    eta: float = 0.0
    norm: float = 15.0
    momentum: float = -0.5
    _last: list[Tensor] = field(default_factory=list[Tensor], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_w(self.w)
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: give a number from 0 (drop what oversaturates) to 1 (keep it)")
        if not self.norm > 0:
            raise ValueError(f"norm is {self.norm}: give a length above 0, or inf for no limit")
        if not -1 < self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: give a number between -1 and 1 (0 for none)")

    @property
    def first_order_only(self) -> bool:
        """No: it is for every solver."""
        return False

    def needs(self, level: Level, nxt: Level | None = None) -> tuple[bool, bool]:
        """(always, weak unless w = 1)."""
        del level, nxt
        return True, self.w != 1

    def __call__(
        self, x0s: Sequence[Tensor | None], x: Float[Tensor, "b *s"], level: Level, nxt: Level | None = None
    ) -> Float[Tensor, "b *s"]:
        """strong + (w - 1)*(d - (1 - eta)*d_parallel)."""
        del level, nxt
        strong, weak = called(x0s[0]), x0s[1]
        if weak is None:
            return strong
        d = self._remembered(strong - weak)
        d = d * left_align((self.norm / dot(d, d).sqrt()).clamp(max=1), x)
        length = dot(strong, strong)
        share = torch.where(length > 0, dot(d, strong) / torch.where(length > 0, length, 1.0), 0.0)
        return strong + (self.w - 1) * (d - (1 - self.eta) * left_align(share, x) * strong)

    def fresh(self) -> APG:
        """The same without a last d."""
        return replace(self)

    def _remembered(self, d: Tensor) -> Tensor:
        if self.momentum == 0:
            return d
        if self._last:
            if self._last[0].shape != d.shape:
                raise ValueError(
                    f"this rule remembers a batch of {tuple(self._last[0].shape)}, got {tuple(d.shape)}: start every"
                    " trajectory with rule.fresh()"
                )
            d = d + self.momentum * self._last[0]
        self._last[:] = [d.detach()]
        return d
