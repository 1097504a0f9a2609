"""Pictures that a source holds twice, or that a test set holds as well: who stands for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nirvana.data.doctor.duplicates import near_duplicates
from nirvana.data.doctor.findings import Finding, Mention
from nirvana.data.doctor.picture import Picture
from nirvana.data.doctor.subject import Subject


@dataclass(frozen=True)
class Twin:
    """Picture `number` of the source is the same as `other`, of the source or else of the test set."""

    number: int
    other: int
    exact: bool
    in_test: bool


def twins(
    subject: Subject, test: Subject | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Twin]:
    """For each picture of the source that there is no need of, the one that stands for it.

    Those of the test set come first; then those that training takes, with captions, the largest, those without the
    losses of JPEG; then in order.
    """
    ours, theirs = subject.readable, test.readable if test is not None else []
    ours = sorted(ours, key=lambda i: _preference(subject, subject.pictures[i]))
    pictures = [*(test.pictures[i] for i in theirs if test is not None), *(subject.pictures[i] for i in ours)]
    numbers, fixed = [*theirs, *ours], len(theirs)
    exact = _same_bytes(pictures, fixed)
    left = [at for at in range(len(pictures)) if at not in exact]
    copies = [test.copies[theirs]] if test is not None else []
    everything = np.concatenate([*copies, subject.copies[ours]])
    sides = np.array([picture.side for picture in pictures], np.int64)
    kept = sum(at < fixed for at in left)
    pairs = [(left[i], left[j]) for i, j in near_duplicates(everything[left], sides[left], kept, progress)]
    near = {at: other for other, at in pairs}
    exact = {at: near.get(other, other) for at, other in exact.items()}  # what is dropped stands for nothing
    same = [(at, other, at in exact) for at, other in (near | exact).items() if at >= fixed]
    found = [Twin(numbers[at], numbers[other], is_exact, other < fixed) for at, other, is_exact in same]
    return sorted(found, key=lambda twin: twin.number)


def _preference(subject: Subject, picture: Picture) -> tuple[bool, bool, int, bool]:
    lossy = picture.format in ("JPEG", "MPO")
    return picture.name in subject.passed_over, not picture.captions, -picture.width * picture.height, lossy


def _same_bytes(pictures: list[Picture], fixed: int) -> dict[int, int]:
    """The first picture of the same hash, of those that have one before them. Test pictures are never dropped."""
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    for at, picture in enumerate(pictures):
        earlier = first.setdefault(picture.sha256, at)
        if earlier != at and at >= fixed:
            found[at] = earlier
    return found


def findings(subject: Subject, test: Subject | None, found: list[Twin]) -> list[Finding]:
    """What that means: leaks, one picture under two labels, duplicates and near duplicates."""
    by_kind: dict[str, dict[tuple[bool, int], list[Twin]]] = {}
    for twin in found:
        kind = kind_of(subject, twin)
        by_kind.setdefault(kind, {}).setdefault((twin.in_test, twin.other), []).append(twin)
    return [
        Finding(kind, sum(map(len, groups.values())), tuple(_group(subject, test, twins) for twins in groups.values()))
        for kind, groups in by_kind.items()
    ]


def kind_of(subject: Subject, twin: Twin) -> str:
    """The kind of finding that a twin is."""
    if twin.in_test:
        return "leak"
    one, other = subject.pictures[twin.number].label, subject.pictures[twin.other].label
    if one is not None and other is not None and one != other:
        return "two-labels"
    return "duplicate" if twin.exact else "near-duplicate"


def because(subject: Subject, test: Subject | None, twin: Twin) -> str:
    """Why a picture is left out, in words."""
    home = test if twin.in_test and test is not None else subject
    other = home.pictures[twin.other].name
    how = "the same as" if twin.exact else "nearly the same as"
    where = f" of the test set {home.source}" if twin.in_test else ""
    label = subject.pictures[twin.other].label if kind_of(subject, twin) == "two-labels" else None
    return f"{how} {other}{where}{f', labelled {label}' if label is not None else ''}"


def _group(subject: Subject, test: Subject | None, found: list[Twin]) -> tuple[Mention, ...]:
    """The picture that is kept, and those it stands for."""
    twin = found[0]
    if twin.in_test and test is not None:
        first = Mention(twin.other, test.pictures[twin.other].name, f"in {test.source}", reference=True, in_test=True)
    else:
        kept = subject.pictures[twin.other]
        first = Mention(
            twin.other, kept.name, f"kept{f', {kept.label}' if kept.label is not None else ''}", reference=True
        )
    return (first, *(_mention(subject, twin) for twin in found))


def _mention(subject: Subject, twin: Twin) -> Mention:
    picture = subject.pictures[twin.number]
    how = "the same" if twin.exact else f"{picture.width} x {picture.height}" if picture.width else ""
    return Mention(twin.number, picture.name, f"{how}{f', {picture.label}' if picture.label is not None else ''}")
