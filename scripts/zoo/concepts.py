"""Whether a model of `emoji` draws the concept and the style it is told, for seen and for held-out concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from nirvana.condition.frozen import MINILM, FrozenEncoder
from nirvana.data import Dataset, open_data
from nirvana.evaluate import RidgeMap, fit_ridge, open_space, wilson
from nirvana.evaluate.alignment import median_rank, recall_at
from nirvana.evaluate.classes import LinearClassifier, fit_classifier
from nirvana.evaluate.space import FeatureSpace
from nirvana.generate.model import Model
from zoo.card import Section, table

AMONG = 100
"""The right prompt is looked for among so many."""
STYLES = ("noto", "flat", "3d")
PARTS = {"seen": "emoji", "held out": "emoji:test"}


@dataclass(frozen=True, eq=False)
class Judges:
    """What tells concepts and styles apart, fitted on the real training pictures."""

    space: FeatureSpace
    encoder: FrozenEncoder
    ridge: RidgeMap
    style: LinearClassifier


def concepts(packed: Model, trained: Model) -> list[Section]:
    """Rank of the right prompt among 100, and the style, beside the same of the real pictures."""
    del trained
    judges = _judges(open_data("emoji", size=packed.parts.shape[1]), packed)
    rows: list[list[str]] = []
    for part, source in PARTS.items():
        data = open_data(source, size=packed.parts.shape[1])
        chosen = _chosen(data)
        texts = [_label(data, i) for i in chosen]
        styles = np.array([STYLES.index(str(_attribute(data, i, "style"))) for i in chosen])
        prompts = [f"{text}, {STYLES[style]} emoji" for text, style in zip(texts, styles, strict=True)]
        drawn = packed.generate(prompts, n=len(prompts)).array
        for what, pictures in (("drawn", drawn), ("real", data.images[chosen])):
            rows.append([part, what, *_judged(judges, np.asarray(pictures), texts, styles)])
    text = (
        f"One picture of each of {AMONG} concepts, the styles in turn. A ridge map of the features of real training"
        f" pictures ({judges.space.name}) to those of their labels (all-MiniLM) ranks the {AMONG} labels by cosine: by"
        f" chance the right one is at place {(AMONG + 1) // 2} in the middle, first in 1%. The style is named by a"
        f" linear classifier of the same features (right for {judges.style.accuracy:.1%} of real pictures kept apart)."
        " What the map makes of real pictures of held-out concepts is the most it can say.\n\n"
        + table(["concepts", "pictures", "median place", "first", "in the first 5", "in the first 10", "style"], rows)
    )
    return [Section("What is asked for", text, figures={"concepts": cast(Any, rows)})]


def _judges(train: Dataset, model: Model) -> Judges:
    space, encoder = open_space("efflite0", model.device), FrozenEncoder.open(MINILM)
    features = space(train.images)
    labels = [_label(train, i) for i in range(len(train))]
    styles = np.array([STYLES.index(str(_attribute(train, i, "style"))) for i in range(len(train))])
    return Judges(
        space, encoder, fit_ridge(features, _texts(encoder, labels)), fit_classifier(features, styles, len(STYLES))
    )


def _chosen(data: Dataset) -> list[int]:
    """A picture of each of `AMONG` concepts, spread over the set, the styles in turn."""
    concepts = len(data) // len(STYLES)
    places = np.linspace(0, concepts - 1, min(AMONG, concepts)).round().astype(int)
    return [int(place) * len(STYLES) + turn % len(STYLES) for turn, place in enumerate(places)]


def _judged(judges: Judges, pictures: np.ndarray, texts: Sequence[str], styles: np.ndarray) -> list[str]:
    features = judges.space(pictures)
    ranks, own = judges.ridge.ranks(features, _texts(judges.encoder, texts)), np.arange(len(texts))
    right = int((judges.style(features) == styles).sum())
    low, high = wilson(right, len(styles))
    recalls = [f"{recall_at(ranks, own, k):.0%}" for k in (1, 5, 10)]
    return [f"{median_rank(ranks, own):g}", *recalls, f"{right / len(styles):.0%} ({low:.0%} to {high:.0%})"]


def _texts(encoder: FrozenEncoder, texts: Sequence[str]) -> Float[np.ndarray, "n e"]:
    """The mean state of the tokens of each text."""
    states, mask = encoder(texts)
    weights = mask[..., None].to(states)
    return ((states * weights).sum(1) / weights.sum(1)).numpy()


def _attribute(data: Dataset, i: int, name: str) -> object:
    attributes = data.attributes
    if attributes is None:
        raise ValueError(f"{data.manifest.source} has no attributes")
    return attributes[i][name]


def _label(data: Dataset, i: int) -> str:
    return str(_attribute(data, i, "label"))
