"""The measures that every evaluation takes: distances, neighbours, classes, copies."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
from jaxtyping import Float, Int64
from PIL import Image

from nirvana.data.builtin import FASHION_NAMES
from nirvana.evaluate.classes import fit_classifier
from nirvana.evaluate.copies import memorization
from nirvana.evaluate.frechet import Moments, blocks_of, extrapolated
from nirvana.evaluate.judge import SIDE as JUDGE_SIDE
from nirvana.evaluate.judge import FashionJudge
from nirvana.evaluate.kernel import kernel_distance
from nirvana.evaluate.manifold import Fraction, manifold_scores
from nirvana.evaluate.pairs import partner_distance
from nirvana.evaluate.prompts import shapes_shown, text_alignment
from nirvana.evaluate.scores import Findings, Score
from nirvana.evaluate.statistics import Interval, wilson
from nirvana.evaluate.subject import Subject, like
from nirvana.files import Json
from nirvana.modality import grid

MOST_NEIGHBOURS = 5_000
MOST_COPIES = 1_000
LEAST_OF_A_CLASS = 20
_AMPLE = 3
"""A Fréchet distance is trusted from so many samples a feature on."""
_SHOWN = 10


def frechet_score(subject: Subject) -> Findings:
    """FD-SPACE, for infinitely many samples; left out, and said, where there are fewer pictures than features."""
    width, real = subject.space.width, subject.reference.moments
    name, n = f"FD-{subject.space.name}", len(subject.drawn)
    if min(n, real.count) <= width:
        few = "samples" if n <= width else "real pictures"
        note = f"{name} is left out: {min(n, real.count)} {few} give no covariance of {width} features; see KID instead"
        return Findings(notes=[note])
    found = extrapolated(subject.blocks, real)
    some, others = subject.reference.halves(n)
    floor = None
    if len(some) > width:
        floor = extrapolated(blocks_of([some], len(some), width), Moments.of(others)).value
    warning = "" if n >= _AMPLE * width else f"{n} samples are few for {width} features: rely on KID"
    score = Score(name, found.value, "lower", found.interval, n, real.count, floor, warning)
    raw = Score(f"{name}, not extrapolated", found.plain, "lower", None, n, real.count)
    return Findings([score, raw])


def kernel(subject: Subject) -> Findings:
    """KID-SPACE in thousandths, and the same for every class."""
    name, real = f"KID-{subject.space.name} x 1000", subject.reference.features
    total = _kernel_score(name, subject.features, real)
    some, others = subject.reference.halves(len(subject.features))
    floor = kernel_distance(some, others).value * 1000 if len(some) >= 4 else None
    score = replace(total, floor=floor)
    labels = subject.real_labels
    if subject.asked is None or labels is None:
        return Findings([score])
    classes: list[Json] = []
    for number, label in enumerate(subject.real.names):
        made, shown = subject.features[subject.asked == number], real[labels == number]
        if min(len(made), len(shown)) >= LEAST_OF_A_CLASS:
            classes.append({"class": label, **_kernel_score(name, made, shown).to_json()})
    return Findings([score], {"classes": classes} if classes else {})


def _kernel_score(name: str, made: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"]) -> Score:
    found = kernel_distance(made, real)
    low, high = found.interval
    return Score(name, 1000 * found.value, "lower", Interval(1000 * low, 1000 * high), len(made), len(real))


def neighbours(subject: Subject) -> Findings:
    """Precision, recall, density and coverage, from equally many samples and real pictures."""
    count = min(len(subject.features), len(subject.reference.features), MOST_NEIGHBOURS)
    found = manifold_scores(subject.reference.features[:count], subject.features[:count])
    some, others = subject.reference.halves(count)
    floor = manifold_scores(others[: len(some)], some) if len(some) > 5 else None
    scores = [
        Score(
            f"{name}-{subject.space.name}",
            cast("Fraction", getattr(found, name)).value,
            "higher",
            cast("Fraction", getattr(found, name)).interval,
            count,
            count,
            None if floor is None else cast("Fraction", getattr(floor, name)).value,
        )
        for name in ("precision", "recall", "density", "coverage")
    ]
    return Findings(scores)


def classes(subject: Subject) -> Findings:
    """Which classes samples show, by a classifier of the same data, and by the Fashion judge where it knows them."""
    labels, names = subject.real_labels, subject.real.names
    if labels is None or len(names) < 2 or len(labels) < 10:
        return Findings()
    linear = fit_classifier(subject.reference.features, labels, len(names))
    findings = _shares(f"linear on {subject.space.name}", linear(subject.features), linear.accuracy, subject, labels)
    if names != FASHION_NAMES or subject.pictures.shape[1:] != (JUDGE_SIDE, JUDGE_SIDE, 1):
        return findings
    judge = FashionJudge.load()
    floor = None
    if subject.unseen is not None and subject.unseen.labels is not None and subject.unseen.names == names:
        named, _ = judge.classify(subject.unseen.images[:MOST_NEIGHBOURS])
        floor = float((named == subject.unseen.labels[:MOST_NEIGHBOURS]).mean())
    seen, _ = judge.classify(subject.pictures)
    second = _shares("Fashion judge", seen, floor, subject, labels)
    return Findings([*second.scores, *findings.scores], second.details)


def _shares(
    by: str, seen: Int64[np.ndarray, "n"], accuracy: float | None, subject: Subject, labels: Int64[np.ndarray, "m"]
) -> Findings:
    rows: list[Json] = []
    n, names = len(seen), subject.real.names
    for number, name in enumerate(names):
        made = int((seen == number).sum())
        asked = None if subject.asked is None else float((subject.asked == number).mean())
        real = float((labels == number).mean())
        rows.append({"class": name, "share": made / n, "interval": list(wilson(made, n)), "real": real, "asked": asked})
    details: dict[str, Json] = {"shares": {"by": by, "accuracy": accuracy, "classes": rows}}
    if subject.asked is None or bool((subject.asked < 0).any()):
        return Findings(details=details)
    right = int((seen == subject.asked).sum())
    return Findings(
        [Score(f"as asked ({by})", right / n, "higher", wilson(right, n), n, len(labels), accuracy)], details
    )


def copies(subject: Subject) -> Findings:
    """The nearest training picture of every sample, and where unseen pictures are known, the test for copies."""
    train = subject.train
    if train is None or train.images.shape[1:] != subject.pictures.shape[1:]:
        return Findings(notes=["no look for copies: the training pictures are not there in the size of the samples"])
    made = subject.pictures[:MOST_COPIES]
    unseen = subject.unseen
    if unseen is None:
        note = "no test for copies: it needs real pictures that were not trained on; name them with --against"
        found = memorization(made, train.images, train.images[:1])
        return Findings(
            details={"copies": {"p": None}}, pictures=_suspects(subject, found.closest, found.place), notes=[note]
        )
    held = like(unseen.images[:MOST_COPIES], train)
    found = memorization(made, train.images, held)
    few = min(len(made), len(held)) < 200
    warning = "few pictures: only many copies would show" if few else ""
    score = Score("p of no copies", found.p, "", None, len(made), len(held), None, warning)
    verdict = "samples lie closer to single training pictures than unseen pictures do" if found.p < 0.01 else ""
    return Findings(
        [score],
        {"copies": {"p": found.p, "samples": _histogram(found.ratio), "unseen": _histogram(found.held_out)}},
        _suspects(subject, found.closest, found.place),
        [verdict] if verdict else [],
    )


def _suspects(
    subject: Subject, closest: Int64[np.ndarray, "n"], place: Int64[np.ndarray, "n"]
) -> dict[str, Image.Image]:
    """Over each of the most suspicious samples stands the training picture that is nearest to it."""
    if subject.train is None:
        return {}
    chosen = closest[:_SHOWN]
    pairs = np.concatenate([subject.train.images[place[chosen]], subject.pictures[chosen]])
    return {"Nearest training pictures": grid(pairs, len(chosen), ["training", "sample"])}


def _histogram(ratios: Float[np.ndarray, "n"]) -> list[float]:
    """Shares in twenty bins over [0, 1]."""
    counts, _ = np.histogram(ratios, bins=20, range=(0.0, 1.0))
    return [float(count) / len(ratios) for count in counts]


MEASURES = (frechet_score, kernel, neighbours, classes, shapes_shown, text_alignment, partner_distance, copies)
