"""Exact trajectories to measure against, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion import Level
from nirvana.verify.problems import PROBLEMS, Problem
from nirvana.verify.reference import Reference

BATCH = 8


@dataclass(frozen=True, eq=False)
class Case:
    """Trajectories of `problem` from exact draws `x` at the level `first` to `end` at the level `last`."""

    problem: Problem
    first: Level
    x: Float[Tensor, "b *s"]
    end: Float[Tensor, "b *s"]

    def along(self, levels: Sequence[Level]) -> list[Tensor]:
        """The exact x at each of `levels`, which fall from `first`."""
        return Reference(self.problem.denoiser, self.x, self.first).along(levels)

    def error(self, x: Float[Tensor, "b *s"]) -> float:
        """|x - end|/|end|."""
        return float((x - self.end).norm() / self.end.norm())


def case(problem: str, levels: Sequence[Level]) -> Case:
    """The case between the first and the last of `levels`."""
    first, last = levels[0], levels[-1]
    return _case(problem, float(first.alpha), float(first.sigma), float(last.alpha), float(last.sigma))


@cache
def _case(problem: str, alpha: float, sigma: float, alpha_end: float, sigma_end: float) -> Case:
    first, whole = Level.of(alpha, sigma), PROBLEMS[problem]()
    x = whole.at(first, BATCH, seed=1)
    return Case(whole, first, x, Reference(whole.denoiser, x, first).at(Level.of(alpha_end, sigma_end)))
