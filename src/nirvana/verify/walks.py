"""Solvers at work, watched: what they call, what they draw, what they raise."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from torch import Tensor

from nirvana.diffusion import Cond, Denoiser, Level, Noise, Prediction, Solver, Step, trajectory

AnySolver = Solver[Any]


class Broken(Exception):
    """The solver did what no solver may: one line that says what."""


class Counted:
    """`denoiser`, with the levels it was called at in order."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.levels: list[Level] = []

    @property
    def calls(self) -> int:
        """So often it was called."""
        return len(self.levels)

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction of `denoiser`."""
        self.levels.append(level)
        return self.denoiser(x, level, cond, nxt)


class Silence:
    """The noise of deterministic solvers: there is none."""

    def initial(self) -> Tensor:
        """Raises Broken."""
        raise Broken("it is declared deterministic and draws noise")

    def path(self, now: Level, nxt: Level) -> Tensor:
        """Raises Broken."""
        del now, nxt
        return self.initial()

    def fresh(self, key: str | int | tuple[str | int, ...]) -> Tensor:
        """Raises Broken."""
        del key
        return self.initial()


@contextmanager
def watched(what: str) -> Generator[None]:
    """Whatever is raised inside is the solver's doing: Broken, with the last line of its traceback."""
    try:
        yield
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{what} raises {type(error).__name__}: {' '.join(str(error).split())}") from error


def ended(solver: AnySolver, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> Tensor:
    """x at the last level, by the one sampling loop; nothing else is kept. Raises Broken where the solver raises."""
    last = x
    with watched(f"a walk of {len(levels) - 1} steps"):
        for step in trajectory(denoiser, x, levels, solver, cond={}, noise=noise):
            last = step.x
    return last


def walked(solver: AnySolver, denoiser: Denoiser, x: Tensor, levels: Sequence[Level], noise: Noise) -> list[Step]:
    """The steps of the one sampling loop. Raises Broken where the solver raises."""
    with watched(f"a walk of {len(levels) - 1} steps"):
        return list(trajectory(denoiser, x, levels, solver, cond={}, noise=noise))


def primed(
    solver: AnySolver, denoiser: Denoiser, exact: Sequence[Tensor], levels: Sequence[Level], noise: Noise
) -> Tensor:
    """x at the last level, where the first len(exact) steps start from `exact`, so that all history is exact."""

    def denoise(x: Tensor, level: Level, nxt: Level | None = None) -> Prediction:
        return denoiser(x, level, {}, nxt)

    x = exact[0]
    with watched(f"a primed walk of {len(levels) - 1} steps"):
        state = solver.init(x)
        for index, (now, nxt) in enumerate(pairwise(levels)):
            x = exact[index] if index < len(exact) else x
            step, state = solver.step(denoise, x, now, nxt, state, noise)
            x = step.x
    return x
