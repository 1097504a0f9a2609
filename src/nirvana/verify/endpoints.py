"""Every grid and every solver, from exact noise to exact data: counts, levels, shapes, batches, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from nirvana.diffusion import Level, SeededNoise, Step, start, strictly_monotone, trajectory, uniform
from nirvana.diffusion.grid import Grid
from nirvana.verify.finding import Finding
from nirvana.verify.problems import F64, PROBLEMS, D, WithVariance
from nirvana.verify.settings import SCHEDULES, interior
from nirvana.verify.walks import AnySolver, Counted, ended, walked

COUNTS = (1, 2, 3, 5, 7, 9, 27, 999, 1000)
"""Numbers of steps at which samplers of this field broke before."""

SHOWN = 9
"""The number of steps whose network calls are reported."""

LARGEST = 10.0
"""The data lie within 2.5 of 0; a sample beyond this is a solver that blew up."""


def grid(name: str, make: Grid, schedule: str, counts: Sequence[int] = COUNTS) -> Finding:
    """Exactly n steps, no repeated level, the last one exactly clean; less than 1 step is refused."""
    faults = list(_grid_faults(make, schedule, counts))
    return Finding("grid", name, schedule, not faults, faults[0] if faults else f"n = {_listed(counts)}")


def _grid_faults(make: Grid, schedule: str, counts: Sequence[int]) -> Iterator[str]:
    along = SCHEDULES[schedule]()
    for n in counts:
        levels = make(along, n)
        if len(levels) != n + 1:
            yield f"{n} steps were asked for, {len(levels) - 1} came"
        elif not levels[-1].is_clean:
            yield f"n = {n}: the last level has sigma = {float(levels[-1].sigma)}, not 0"
        else:
            try:
                falls = strictly_monotone(levels) == "falling"
            except ValueError as error:
                yield f"n = {n}: {error}"
            else:
                if not falls:
                    yield f"n = {n}: the noise rises"
    for n in (0, -1):
        try:
            make(along, n)
        except ValueError:
            continue
        yield f"n = {n} is not refused"


def endpoints(
    solver: AnySolver, name: str, schedule: str, counts: Sequence[int] = COUNTS, make: Grid = uniform
) -> Finding:
    """From the schedule's noise to sigma = 0 on nearly singular data, for each number of steps.

    The steps are those of the levels, no x is NaN or runs away, the network is called exactly `calls(levels)` times and
    never at a clean level; an item is the same alone and in a batch, dtype and any shape stay, the start is kept.
    """
    faults, shown = list[str](), None
    for n in counts:
        levels = make(SCHEDULES[schedule](), n)
        denoiser = Counted(WithVariance(PROBLEMS["near-singular"]().denoiser))
        noise = SeededNoise([5], (D,), dtype=F64)
        steps = walked(solver, denoiser, start(noise, levels[0]), levels, noise)
        faults += [f"n = {n}: {fault}" for fault in _walk_faults(solver, levels, steps, denoiser)]
        shown = denoiser.calls if n == SHOWN else shown
    faults += _batch_faults(solver, make(SCHEDULES[schedule](), 7))
    detail = faults[0] if faults else f"n = {_listed(counts)}"
    return Finding("endpoints", name, schedule, not faults, detail, calls=shown)


def _walk_faults(solver: AnySolver, levels: Sequence[Level], steps: Sequence[Step], denoiser: Counted) -> Iterator[str]:
    if [(id(step.now), id(step.nxt)) for step in steps] != [(id(now), id(nxt)) for now, nxt in pairwise(levels)]:
        yield "the steps it reports do not go from each level to the next"
    if not all(bool(step.x.isfinite().all()) for step in steps):
        yield "x is not finite"
    elif float(steps[-1].x.abs().max()) > LARGEST * float(levels[-1].norm):
        yield f"x ends at {float(steps[-1].x.abs().max()):.1e}, the data within 2.5"
    expected = solver.calls(levels)
    if expected is None and denoiser.calls < len(steps):
        yield f"{denoiser.calls} network calls in {len(steps)} steps"
    if expected is not None and denoiser.calls != expected:
        yield f"{denoiser.calls} network calls, declared {expected}"
    if any(level.is_clean for level in denoiser.levels):
        yield "the network is called at sigma = 0"


def _batch_faults(solver: AnySolver, levels: Sequence[Level]) -> Iterator[str]:
    """An odd shape, alone and in a batch, in float64 and in float32."""
    denoiser = WithVariance(PROBLEMS["odd-shape"]().denoiser)
    shape = (3, 5, 7)

    def end(seeds: list[int], dtype: torch.dtype) -> Tensor:
        noise = SeededNoise(seeds, shape, dtype=dtype)
        x = start(noise, levels[0])
        kept = x.clone()
        last = ended(solver, denoiser, x, levels, noise)
        return last if torch.equal(x, kept) else torch.full_like(last, torch.nan)

    together, alone, single = end([3, 4, 5], F64), end([4], F64), end([4], torch.float32)
    unlike = float((together[1:2] - alone).abs().max())
    if together.shape != (3, *shape) or alone.shape != (1, *shape):
        yield f"x of shape {(1, *shape)} becomes {tuple(alone.shape)}"
    elif bool(together.isnan().any()):
        yield "it changes the x it is given in place, or makes NaN of it"
    elif unlike > 1e-9:
        yield f"an item alone is {unlike:.1e} from the same in a batch"
    elif single.dtype != torch.float32 or not bool(single.isfinite().all()):
        yield f"float32 becomes {single.dtype}, or is not finite"


def refusals(solver: AnySolver, name: str, schedule: str) -> Finding:
    """What cannot be walked is refused before the first network call; a deterministic solver encodes."""
    levels = interior(SCHEDULES[schedule](), "uniform", 6)
    nan = Level.of(math.nan, 0.5)
    bad = {
        "a repeated level": [*levels[:3], levels[2], *levels[3:]],
        "a level that rises again": [levels[0], levels[2], levels[1], levels[3]],
        "a level that is NaN": [levels[0], nan, levels[1]],
        "a single level": levels[:1],
    }
    if not solver.deterministic:
        bad["rising levels with a stochastic solver"] = levels[::-1]
    faults = [what for what, walk in bad.items() if not _refused(solver, walk)]
    detail = f"not refused before the first call: {', '.join(faults)}" if faults else ", ".join(bad)
    return Finding("refusals", name, schedule, not faults, detail)


def _refused(solver: AnySolver, levels: Sequence[Level]) -> bool:
    denoiser = Counted(PROBLEMS["mixture"]().denoiser)
    noise = SeededNoise([1], (D,), dtype=F64)
    try:
        for _ in trajectory(denoiser, noise.initial(), levels, solver, cond={}, noise=noise):
            return False
    except ValueError:
        return denoiser.calls == 0
    return False


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
