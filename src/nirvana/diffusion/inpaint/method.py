"""What a method of inpainting is, and the two simplest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.inpaint.observed import Observed
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.sample import Edit
from nirvana.diffusion.solver.protocol import Denoise


@runtime_checkable
class Method(Protocol):
    """How the free part of x comes to agree with the known one: edits of x, around `Known` and any solver."""

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        """The edits of one trajectory along `levels`."""
        ...

    def calls(self, levels: Sequence[Level]) -> int:
        """How often the edits call the network along `levels`, besides the solver."""
        ...


def index_of(level: Level, levels: Sequence[Level]) -> int:
    """Where `level` stands among `levels`. Raises ValueError where it does not."""
    for index, one in enumerate(levels):
        if one is level:
            return index
    raise ValueError("these edits were made for other levels than those that are walked")


@dataclass(frozen=True)
class DDNM:
    """`Known` alone: one call a step, and solvers keep their history. The fastest, and biased (see `Known`)."""

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        """None."""
        del observed, levels
        return ()

    def calls(self, levels: Sequence[Level]) -> int:
        """None."""
        del levels
        return 0


@dataclass(frozen=True, eq=False)
class _Replaced:
    observed: Observed
    levels: tuple[Level, ...]

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, denoise: Denoise, noise: Noise) -> Tensor:
        del denoise
        index = index_of(level, self.levels)
        return self.observed.put(x, level, noise.fresh(("replacement", index))) if index else x


@dataclass(frozen=True)
class Replacement:
    """At every level x = alpha*y + sigma*noise where y is known, the noise new each time (Song et al. 2021, app. I.2).

    Biased: the free part is drawn beside a known part that was never told of it, and no step looks back.
    """

    def edits(self, observed: Observed, levels: Sequence[Level]) -> tuple[Edit, ...]:
        """One, which acts at all levels but the first."""
        return (_Replaced(observed, tuple(levels)),)

    def calls(self, levels: Sequence[Level]) -> int:
        """None."""
        del levels
        return 0
