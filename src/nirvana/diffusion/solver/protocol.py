"""What a solver is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction

S = TypeVar("S")


@runtime_checkable
class Denoise(Protocol):
    """A denoiser with its condition bound: (x, level, the level the solver goes to) -> Prediction."""

    def __call__(self, x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        """The prediction at `level`."""
        ...


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a trajectory: x at the level `nxt`, and the prediction made at the level `now` on the way.

    index: 0 for the first step; a solver leaves it at 0 and `trajectory` sets it.
    """

    now: Level
    nxt: Level
    x: Float[Tensor, "b *s"]
    prediction: Prediction
    index: int = 0


@runtime_checkable
class Solver(Protocol[S]):
    """A method that calls the denoiser; all its state S is explicit, and None where it has none."""

    @property
    def order(self) -> int:
        """The order of its global error in the step size, with a primed history."""
        ...

    @property
    def started_order(self) -> int:
        """The order when it starts itself."""
        ...

    @property
    def deterministic(self) -> bool:
        """True where it draws no noise; only then may levels rise."""
        ...

    def calls(self, levels: Sequence[Level]) -> int | None:
        """The exact number of network calls along `levels`; None where it adapts."""
        ...

    def init(self, x: Tensor) -> S:
        """The state before the first step."""
        ...

    def step(self, denoise: Denoise, x: Tensor, now: Level, nxt: Level, state: S, noise: Noise) -> tuple[Step, S]:
        """x from `now` to `nxt`, and the new state. Always passes `nxt` to `denoise`; never changes x in place."""
        ...

    def revise(self, state: S) -> S:
        """The state after x was edited: evaluations made at the old x are dropped."""
        ...


class Memoryless(ABC):
    """A solver whose steps remember nothing, with one call each unless it says otherwise."""

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of its global error."""

    @property
    def started_order(self) -> int:
        """`order`: a step has no history."""
        return self.order

    def calls(self, levels: Sequence[Level]) -> int | None:
        """One call a step."""
        return len(levels) - 1

    def init(self, x: Tensor) -> None:
        """No state."""
        del x

    def revise(self, state: None) -> None:
        """Nothing to drop."""
        del state
