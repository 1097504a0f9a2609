"""Do samples show what was asked for in words? By an exact checker where there is one, and by features of texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Float, UInt8

from nirvana.data import Dataset
from nirvana.data.shapes import Scenes, score
from nirvana.evaluate.alignment import RidgeMap, fit_ridge
from nirvana.evaluate.scores import Findings, Score
from nirvana.evaluate.statistics import normal_interval, wilson
from nirvana.evaluate.subject import Subject
from nirvana.evaluate.words import Words
from nirvana.files import Json

MOST_CHECKED = 1_000
MOST_FLOOR = 200
"""So many samples are read by the checker, and so many real pictures for its floor."""

MOST_PAIRS = 4_000
LEAST_PAIRS = 50
_APART = 5
"""Every so many-th pair of a real picture and its text is kept apart from the fit, for the floor."""

ATTRIBUTES = ("count", "shapes", "colours", "sizes", "relations", "place")

Checker = Callable[[UInt8[np.ndarray, "n h w c"], Sequence[str]], Bool[np.ndarray, "n"]]
"""Pictures and what was asked of each -> whether the picture shows it."""

Embed = Callable[[Sequence[str]], Float[np.ndarray, "n e"]]
"""Texts to features."""


def shapes_shown(subject: Subject) -> Findings:
    """The share of samples that show all that their caption of `shapes` says, and the share of each attribute.

    Nothing where the samples were not asked for by texts, or the real pictures are no shapes.
    """
    scenes = subject.real.attributes
    if subject.texts is None or not isinstance(scenes, Scenes):
        return Findings()
    places = _places(subject.real)
    asked = [(i, places[said]) for i, said in enumerate(subject.texts[:MOST_CHECKED]) if said in places]
    unknown = min(len(subject.texts), MOST_CHECKED) - len(asked)
    notes = [f"{unknown} samples were asked for what no scene of {subject.real.manifest.source} is: not checked"]
    if not asked:
        return Findings(notes=notes)
    shown = [score(scenes.scene(place), subject.pictures[i]) for i, place in asked]
    chosen = subject.reference.places[:MOST_FLOOR].tolist()
    floor = float(np.mean([score(scenes.scene(i), subject.real.images[i]).right for i in chosen]))
    right, n = sum(one.right for one in shown), len(shown)
    rows: list[Json] = []
    for name in ATTRIBUTES:
        flags = [flag for one in shown for flag in np.atleast_1d(getattr(one, name)) if flag is not None]
        if flags:
            rows.append({"attribute": name, "right": sum(map(bool, flags)) / len(flags), "of": len(flags)})
    found = Score("as asked (shapes checker)", right / n, "higher", wilson(right, n), n, len(chosen), floor)
    return Findings([found], {"attributes": rows}, notes=notes if unknown else [])


def _places(data: Dataset) -> Mapping[str, int]:
    """Caption -> a picture that has it. A caption of a scene says all of it, so any one does."""
    return {said: i for i, several in enumerate(data.captions or ()) for said in several}


def text_alignment(subject: Subject) -> Findings:
    """How well samples fit their texts, by a map learned from the real pictures and their captions.

    A ridge map takes features of pictures to features of texts; the score is the mean cosine. The floor is that of real
    pictures which the map was not fitted on; beside it stands that of samples with each other's texts. Nothing where
    the samples were not asked for by texts, or too few real pictures have captions.
    """
    captions = subject.real.captions
    if subject.texts is None or captions is None:
        return Findings()
    rows = [(row, captions[place][0]) for row, place in enumerate(subject.reference.places) if captions[place]]
    rows = rows[:MOST_PAIRS]
    if len(rows) < LEAST_PAIRS:
        return Findings(notes=[f"no alignment: {len(rows)} real pictures with captions, {LEAST_PAIRS} are needed"])
    features, texts = subject.reference.features[[row for row, _ in rows]], [said for _, said in rows]
    words = Words.of(texts)
    apart = np.arange(len(rows)) % _APART == _APART - 1
    ridge = fit_ridge(features[~apart], words([said for said, out in zip(texts, apart, strict=True) if not out]))
    held = ridge.scores(features[apart], words([said for said, out in zip(texts, apart, strict=True) if out]))
    return alignment(ridge, words, f"{subject.space.name}, words", floor=float(held.mean()))(subject)


def prompt_following(check: Checker, name: str) -> Callable[[Subject], Findings]:
    """A measure: the share of samples that show what was asked, by `check`, with Wilson's interval."""

    def measure(subject: Subject) -> Findings:
        asked = subject.said
        right, n = int(check(subject.pictures, asked).sum()), len(asked)
        return Findings([Score(f"as asked ({name})", right / n, "higher", wilson(right, n), n)])

    return measure


def alignment(ridge: RidgeMap, embed: Embed, name: str, floor: float | None = None) -> Callable[[Subject], Findings]:
    """A measure: the mean cosine of a sample's features, mapped to the space of texts, and its text's."""

    def measure(subject: Subject) -> Findings:
        texts = embed(subject.said)
        scores = ridge.scores(subject.features, texts)
        mean, error = float(scores.mean()), float(scores.std(ddof=1)) / len(scores) ** 0.5
        others = float(ridge.scores(subject.features, np.roll(texts, 1, axis=0)).mean())
        found = Score(f"alignment ({name})", mean, "higher", normal_interval(mean, error), len(scores), 0, floor)
        return Findings([found], {"alignment": {"with_other_texts": others}})

    return measure


def attribute_rows(details: Mapping[str, Json]) -> Sequence[Mapping[str, Json]]:
    """The rows of `shapes_shown` in the details of an evaluation."""
    return cast("Sequence[Mapping[str, Json]]", details.get("attributes", []))
