"""Evaluating a run, from its folder to its scores. `nirvana evaluate` is this."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nirvana.data import Dataset
from nirvana.errors import Refused
from nirvana.evaluate.bits import bits, request_of
from nirvana.evaluate.curves import Curve, Progress, curves, series, silent
from nirvana.evaluate.data import Data, data_of
from nirvana.evaluate.measures import MEASURES
from nirvana.evaluate.pairs import Asked, is_paired
from nirvana.evaluate.reference import Reference, reference_of
from nirvana.evaluate.samples import LEAST, MOST, Goal, draw, prompts_of, turns
from nirvana.evaluate.scores import FOLDER, Evaluation, Findings
from nirvana.evaluate.space import DEFAULT_SPACE, FeatureSpace, open_space
from nirvana.evaluate.subject import Measure, subject_of
from nirvana.files import Json
from nirvana.generate.family import check_diffusion
from nirvana.generate.model import Model
from nirvana.generate.request import SampleRequest
from nirvana.modality import grid
from nirvana.train.run import now
from nirvana.zoo import beside

DEFAULT_MINUTES = 5.0
_ROOM = 1.5
"""So many samples a feature at least, that leaving out two blocks of ten leaves more samples than features."""


@dataclass(frozen=True)
class Plan:
    """An evaluation as it was asked for. What is None is chosen. Raises Refused for values out of range.

    against: a source of real pictures (the training data); inputs: what those are to be made of, for a model of pairs;
    n or minutes; solvers: those of the curves; the rest as for `nirvana generate`.
    """

    against: str | None = None
    n: int | None = None
    minutes: float | None = None
    curves: bool = False
    guidance: float | None = None
    steps: int | None = None
    solver: str | None = None
    seed: int = 0
    space: str = DEFAULT_SPACE
    bits: bool = False
    inputs: str | None = None
    solvers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.solvers and not self.curves:
            raise Refused("--solvers are those of the curves; add --curves")
        if self.n is not None and self.minutes is not None:
            raise Refused("both -n and --minutes were given; give one of them")
        if self.n is not None and self.n < 2:
            raise Refused(f"-n must be at least 2, got {self.n}; leave it out to draw what fits the time")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise Refused(f"--minutes must be more than 0, got {self.minutes:g}")

    def goal(self, space: FeatureSpace) -> Goal:
        """How many samples. Refused where they are no more than the features, which have no covariance then."""
        if self.n is not None and self.n <= space.width:
            raise Refused(
                f"-n {self.n} samples are fewer than needed: {space.name} has {space.width} features; give -n"
                f" {math.ceil(_ROOM * space.width)} or more, or leave it out"
            )
        minutes = DEFAULT_MINUTES if self.minutes is None else self.minutes
        least = max(LEAST, math.ceil(_ROOM * space.width))
        return Goal(self.n, 60 * minutes, least, max(MOST, least))


@dataclass(frozen=True, eq=False)
class Outcome:
    """An evaluation, the pictures that its report shows, and the curves where they were asked for."""

    evaluation: Evaluation
    pictures: Mapping[str, Image.Image]
    curves: Sequence[Curve]


def evaluate(
    model: Model,
    plan: Plan,
    *,
    measures: Sequence[Measure] = MEASURES,
    space: FeatureSpace | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Draw samples, take their features, and put every measure to them.

    space: any feature space; None opens the one that the plan names. Samples are kept in RUN/evaluation, statistics of
    the data in the user's cache. Refused for whatever the user can mend.
    """
    paired = is_paired(model)
    if plan.bits if paired else plan.inputs is not None:
        raise Refused(_UNFIT[paired])
    if plan.curves:
        check_diffusion(model.run.model_spec, model.called, "curves against network calls and guidance")
    if plan.bits:
        request_of(model, plan.seed)
    space = open_space(plan.space, model.device) if space is None else space
    goal = plan.goal(space)
    data = data_of(model, plan.against, plan.inputs)
    for note in (*data.notes, *data.real.notices):
        say(note)
    reference = reference_of(space, data.real, lambda a, b: progress("measuring the data", a, b), say=say)
    root = beside(model.run.path) / FOLDER / "samples"
    request = _request(model, plan, data.real)
    asked = Asked.of(request, data.real) if paired else None
    request, inputs = (request, None) if asked is None else (asked.request, asked.inputs)
    lines = series(model, request, plan.solvers) if plan.curves else []
    drawn = draw(model, request, goal, root, lambda a, b: progress("drawing", a, b), inputs)
    subject = subject_of(
        space, drawn, data.real, reference, data.train, data.unseen, lambda a, b: progress("measuring", a, b)
    )
    if asked is not None:
        subject = dataclasses.replace(subject, partners=asked.partners(len(subject.pictures)))
    found: list[Findings] = []
    for done, measure in enumerate(measures):
        progress("comparing", done, len(measures))
        found.append(measure(subject))
    if plan.bits:
        found.append(bits(model, data.real, data.unseen, plan.seed, lambda a, b: progress("bits", a, b)))
    found_curves = curves(model, lines, space, reference, root, progress, inputs)
    details = {name: value for findings in found for name, value in findings.details.items()}
    if found_curves:
        details["curves"] = [curve.to_json() for curve in found_curves]
    return Outcome(
        Evaluation(
            about=_about(model, space, data, reference, drawn.request),
            scores=[score for findings in found for score in findings.scores],
            details=details,
            notes=(*data.notes, *(note for findings in found for note in findings.notes)),
        ),
        {"Samples": _shown(subject.pictures, drawn.request), **{k: v for f in found for k, v in f.pictures.items()}},
        found_curves,
    )


_UNFIT = {
    False: "--inputs are for a model of pairs (nirvana train SOURCE --target DIR); leave it out",
    True: "--bits of a model of pairs would be those of pictures that are made of nothing; leave it out",
}


def _shown(pictures: np.ndarray, request: SampleRequest) -> Image.Image:
    columns = len(request.labels) if 1 < len(request.labels) <= 16 else 10
    labels = list(request.labels) if columns == len(request.labels) else None
    return grid(pictures[: 6 * columns], columns, column_labels=labels)


def _request(model: Model, plan: Plan, real: Dataset) -> SampleRequest:
    """What the run recommends, its classes as often as the data have them, or the captions of the data."""
    request = model.request(steps=plan.steps, solver=plan.solver, guidance=plan.guidance, seed=plan.seed)
    if request.prompts and real.captions is not None:
        return dataclasses.replace(request, prompts=prompts_of(real.captions))
    if request.labels and set(request.labels) == set(real.names):
        request = dataclasses.replace(request, labels=turns(real.names, real.manifest.counts))
    return request


def _about(
    model: Model, space: FeatureSpace, data: Data, reference: Reference, request: SampleRequest
) -> dict[str, Json]:
    made = model.origin(request)
    return {
        "run": str(model.run.path.resolve()),
        "at": now(),
        "sha256": made.sha256,
        "trained_images": made.images,
        "request": request.to_json(),
        "space": space.name,
        "against": data.real.manifest.source,
        "inputs": None if data.real.inputs is None else data.real.inputs.manifest.source,
        "data": data.real.manifest.pixels,
        "pictures": len(data.real),
        "measured": reference.moments.count,
        "unseen": None if data.unseen is None else data.unseen.manifest.source,
    }
