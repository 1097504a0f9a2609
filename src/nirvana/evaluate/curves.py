"""Quality against the number of network calls, for several solvers, and against guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from nirvana.errors import Refused
from nirvana.evaluate.kernel import kernel_distance
from nirvana.evaluate.reference import Reference
from nirvana.evaluate.samples import Goal, draw
from nirvana.evaluate.space import FeatureSpace
from nirvana.evaluate.statistics import Interval
from nirvana.files import Json
from nirvana.generate.model import Model
from nirvana.generate.request import SampleRequest
from nirvana.generate.steering import solver_of

SAMPLES, REFERENCES = 500, 2_000
STEPS = (4, 8, 16, 32)
GUIDANCE = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
CALLS = "network calls"
SHOWN = ("ddim", "unipc-2", "heun", "dpmpp-2m-sde")
"""Beside the run's own: the plainest solver, one with a history, one without, and one that draws noise."""


Progress = Callable[[str, int, int], None]
"""(what is going on, done, in all)."""


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""
    del what, done, total


@dataclass(frozen=True)
class Point:
    """KID x 1000 of `SAMPLES` pictures at `x`."""

    x: float
    value: float
    interval: Interval


@dataclass(frozen=True)
class Curve:
    """against: "network calls" or "guidance"; name: of the line; of: the score."""

    against: str
    name: str
    of: str
    points: Sequence[Point]

    def to_json(self) -> dict[str, Json]:
        """All of it."""
        points: list[Json] = [{"x": p.x, "value": p.value, "interval": list(p.interval)} for p in self.points]
        return {"against": self.against, "name": self.name, "of": self.of, "points": points}


Series = tuple[str, str, list[tuple[float, SampleRequest]]]
"""Against what, the name of the line, and what is drawn for each of its points."""


def series(model: Model, base: SampleRequest, solvers: Sequence[str] = ()) -> list[Series]:
    """A line for each of `solvers`, and one over guidance where there is any. Refused where one cannot be used.

    solvers: none are the run's own and the first of `SHOWN`, `len(SHOWN)` in all, as far as it can use them.
    """
    if solvers:
        by_solver = [_line(model, base, name) for name in dict.fromkeys(solvers)]
    else:
        by_solver = list(_usual(model, base))
    return [*by_solver, *_by_guidance(base)]


def curves(
    model: Model,
    lines: Sequence[Series],
    space: FeatureSpace,
    reference: Reference,
    root: Path,
    progress: Progress = silent,
    inputs: UInt8[Tensor, "m d h w"] | None = None,
) -> list[Curve]:
    """What is measured along `lines`.

    KID serves, because it has no bias at few samples. All points share their seeds. Samples are kept in `root`.
    """
    real = reference.features[:REFERENCES]
    total, done, result = sum(len(requests) for *_, requests in lines), 0, list[Curve]()
    for against, name, requests in lines:
        points: list[Point] = []
        for x, request in requests:
            drawn = draw(model, request, Goal(SAMPLES), root, inputs=inputs)
            found = kernel_distance(np.concatenate([space(part) for part in drawn.chunks()]), real)
            low, high = found.interval
            points.append(Point(x, 1000 * found.value, Interval(1000 * low, 1000 * high)))
            done += 1
            progress("curves", done, total)
        result.append(Curve(against, name, f"KID-{space.name} x 1000", points))
    return result


def _usual(model: Model, base: SampleRequest) -> Iterator[Series]:
    for name in list(dict.fromkeys([base.solver, *SHOWN]))[: len(SHOWN)]:
        try:
            line = _line(model, base, name)
        except Refused:  # a solver that this model cannot use has no line
            continue
        yield line


def _line(model: Model, base: SampleRequest, solver: str) -> Series:
    requests = [dataclasses.replace(base, solver=solver, steps=steps) for steps in STEPS]
    return CALLS, solver, [(_calls(model, request), request) for request in requests]


def _calls(model: Model, request: SampleRequest) -> float:
    model.check(request)
    calls = solver_of(request).calls(model.diffusion(request.weights, "curves").levels(request))
    return float(request.steps if calls is None else calls)


def _by_guidance(base: SampleRequest) -> Iterator[Series]:
    if base.labels or base.prompts:
        yield "guidance", base.solver, [(w, dataclasses.replace(base, guidance=w)) for w in GUIDANCE]
