"""Grids as people write them: NAME or NAME:KEY=VALUE, LIST:NUMBER,NUMBER,..., or searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nirvana.diffusion.grid import GRIDS, LISTS, Grid, LamRange, at_ratios
from nirvana.diffusion.search import CANDIDATES
from nirvana.errors import Refused, unknown
from nirvana.generate.named import made
from nirvana.generate.request import SampleRequest
from nirvana.generate.steering import solver_of

SEARCHED = "searched"
"""Alone, a grid that is still to be found for the model; with its ratios behind it, one that was."""

_LISTS: Mapping[str, Callable[[Sequence[float]], Grid]] = {**LISTS, SEARCHED: at_ratios}

NAMES = (*GRIDS, *_LISTS)
"""Every name that a written grid begins with."""


def grid_of(written: str, lam: LamRange) -> Grid:
    """The grid that is `written`, over the trained range `lam`. Refused where it is none, or `searched` alone."""
    name, numbers = _parsed(written)
    if name in GRIDS:
        return made("grid", written, {known: grid.make for known, grid in GRIDS.items()}, lam)
    if numbers is None:
        raise Refused("the grid 'searched' is still to be found: model.settled(request) does it (edits take others)")
    try:
        return _LISTS[name](numbers)
    except ValueError as error:
        raise Refused(f"the grid '{name}' cannot be: {error}") from None


def steps_of(written: str, usual: int) -> int:
    """The number of steps that a written list has, or the `usual` one of a grid that leaves it open."""
    numbers = _parsed(written)[1]
    return usual if numbers is None else max(1, len(numbers) - 1)


def check_search(request: SampleRequest) -> None:
    """Refused where no grid can be searched for `request`: its solver draws noise, or it has too many steps."""
    if not solver_of(request).deterministic:
        raise Refused(f"a grid is searched for a solver without noise, such as ddim; '{request.solver}' draws noise")
    if request.steps > CANDIDATES:
        raise Refused(f"a searched grid has at most {CANDIDATES} steps, got {request.steps}; use uniform or karras")


def listed(name: str, numbers: Sequence[float]) -> str:
    """The list of that name, written so that every number is read as it is."""
    return f"{name}:{','.join(map(repr, map(float, numbers)))}"


def name_of(written: str) -> str:
    """The name without its numbers, for people."""
    return written.partition(":")[0]


def _parsed(written: str) -> tuple[str, list[float] | None]:
    name, colon, numbers = written.partition(":")
    if name not in NAMES:
        raise unknown("grid", name, NAMES)
    if name in GRIDS:
        return name, None
    if not colon:
        if name in LISTS:
            raise Refused(f"the grid '{name}' takes its levels, from noise to data: write {name}:NUMBER,NUMBER,...")
        return name, None
    try:
        return name, [float(number) for number in numbers.split(",")]
    except ValueError:
        raise Refused(f"the grid '{written}' is no list of numbers; write {name}:NUMBER,NUMBER,...") from None
