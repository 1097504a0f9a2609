"""Evaluating a model of pairs: it draws from inputs, and each sample has a picture that it should have become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from nirvana.condition import PAIRED
from nirvana.data import Dataset, open_pairs
from nirvana.errors import Refused
from nirvana.evaluate.scores import Findings, Score
from nirvana.evaluate.statistics import Interval, normal_interval
from nirvana.evaluate.subject import Subject
from nirvana.files import Json
from nirvana.generate.model import Model
from nirvana.generate.request import SampleRequest
from nirvana.modality import grid

MOST_ASKED = 1000
"""Where inputs come with labels or captions, so many of them at most are drawn from."""
_SHOWN = 10


def is_paired(model: Model) -> bool:
    """Whether a model makes pictures of others."""
    concat = cast("Mapping[str, Json]", model.run.model_spec.get("concat") or {})
    return concat.get("kind") == PAIRED


def training_pairs(model: Model) -> Dataset:
    """The pairs that `model` was trained on. Refused where they cannot be read."""
    source, target = (str(model.run.config.get(name)) for name in ("source", "target"))
    return open_pairs(source, target, size=model.parts.shape[1])


def check_inputs(model: Model, pairs: Dataset, source: str) -> Dataset:
    """`pairs` if the model can draw from their inputs. Refused where those have other channels."""
    concat = cast("Mapping[str, Json]", model.run.model_spec["concat"])
    if pairs.inputs is None or pairs.inputs.images.shape[3] != concat["channels"]:
        found = 0 if pairs.inputs is None else pairs.inputs.images.shape[3]
        raise Refused(
            f"{source}: pictures of {found} channels, and {model.run.path} makes pictures of those with"
            f" {concat['channels']}; convert them"
        )
    return pairs


@dataclass(frozen=True, eq=False)
class Asked:
    """What is drawn: sample i from inputs[i mod m], whose partner is row rows[i mod m] of the real pictures."""

    request: SampleRequest
    rows: Int64[np.ndarray, " m"]
    inputs: UInt8[Tensor, "m d h w"]

    @staticmethod
    def of(request: SampleRequest, real: Dataset) -> Asked:
        """`request` for all inputs of `real`, each with its own label and caption. ValueError: no pairs."""
        if real.inputs is None:
            raise ValueError("these pictures have no inputs")
        count = min(len(real), MOST_ASKED) if request.labels or request.prompts else len(real)
        rows = np.arange(count, dtype=np.int64) * len(real) // count
        if request.labels and real.labels is not None:
            request = replace(request, labels=tuple(real.names[real.labels[row]] for row in rows))
        if request.prompts and real.captions is not None:
            request = replace(request, prompts=tuple(next(iter(real.captions[row]), "") for row in rows))
        return Asked(request, rows, torch.from_numpy(np.array(real.inputs.images[rows])).permute(0, 3, 1, 2))

    def partners(self, count: int) -> Int64[np.ndarray, " n"]:
        """The row of the partner of each of so many samples."""
        return self.rows[np.arange(count) % len(self.rows)]


def partner_distance(subject: Subject) -> Findings:
    """How far samples are from the pictures that their inputs belong to, and from those of other inputs.

    The root of the mean squared difference of pixels, of which white is 1. What an input leaves open makes it large
    also for a perfect model: sqrt(2) times the spread of what could be, for samples that have all of that spread.
    """
    if subject.partners is None:
        return Findings()
    real, rows = subject.real, subject.partners
    wanted = real.images[rows]
    own = _rmse(subject.pictures, wanted)
    other = _rmse(subject.pictures, real.images[np.roll(rows, 1)])
    scores = [
        Score(name, float(values.mean()), better, _interval(values), len(values), len(np.unique(rows)))
        for name, values, better in (("RMSE to the partner", own, "lower"), ("RMSE to another's partner", other, ""))
    ]
    return Findings(scores, pictures={"Inputs, samples and partners": _beside(subject, wanted)})


def _rmse(a: UInt8[np.ndarray, "n h w c"], b: UInt8[np.ndarray, "n h w c"]) -> Float[np.ndarray, " n"]:
    squares = np.square(a.astype(np.float32) - b.astype(np.float32)).mean((1, 2, 3))
    return np.sqrt(squares.astype(np.float64)) / 255


def _interval(values: Float[np.ndarray, " n"]) -> Interval:
    return normal_interval(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5)


def _beside(subject: Subject, wanted: UInt8[np.ndarray, "n h w c"]) -> Image.Image:
    inputs, rows = subject.real.inputs, subject.partners
    if inputs is None or rows is None:
        raise ValueError("these pictures have no inputs")
    count = min(_SHOWN, len(rows))
    shown = [inputs.images[rows[:count]], subject.pictures[:count], wanted[:count]]
    channels = max(part.shape[3] for part in shown)
    coloured = [np.repeat(part, channels // part.shape[3], axis=3) for part in shown]
    return grid(np.concatenate(coloured), count, ["input", "sample", "partner"])
