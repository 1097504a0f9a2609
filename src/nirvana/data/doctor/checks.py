"""The checks that look at many pictures at once: sizes, classes, captions. Each turns a subject into findings."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator

from nirvana.data.doctor.findings import KINDS, Finding, Mention
from nirvana.data.doctor.picture import Picture
from nirvana.data.doctor.subject import Subject
from nirvana.data.pictures import default_size

EXTREME = 3.0
"""Longer to shorter side above which the centre square shows less than a third of a picture."""
LONG_WORDS, LONG_LETTERS = 60, 400
"""Words or letters of a caption above which text encoders of 77 tokens cut it off."""
UNEQUAL, RARE = 10, 10
"""Classes are unequal where the largest is more than so many times the smallest, or one has fewer pictures than so."""
SHARED = 2


def alone(subject: Subject) -> Iterator[Finding]:
    """What the files themselves showed, and pictures that are not used."""
    by_kind: dict[str, list[Mention]] = {}
    for i, picture in enumerate(subject.pictures):
        for kind in picture.found:
            by_kind.setdefault(kind, []).append(Mention(i, picture.name, picture.problem or _detail(kind, picture)))
        why = subject.passed_over.get(picture.name)
        if why is not None and not picture.problem:
            by_kind.setdefault("unlabelled", []).append(Mention(i, picture.name, why))
    for kind, mentions in by_kind.items():
        yield finding(kind, mentions)


def _detail(kind: str, picture: Picture) -> str:
    return f"{picture.format}" if kind == "wrong-extension" else ""


def finding(kind: str, mentions: Iterable[Mention], text: str = "") -> Finding:
    """A finding about pictures one by one."""
    groups = tuple((mention,) for mention in mentions)
    return Finding(kind, len(groups), groups, text)


def shapes(subject: Subject) -> Iterator[Finding]:
    """Pictures that are tiny beside the others, and those whose centre square shows little of them."""
    good = [subject.pictures[i] for i in subject.readable]
    wanted = default_size(statistics.median_low(picture.side for picture in good))
    tiny: list[Mention] = []
    extreme: list[Mention] = []
    for i in subject.readable:
        picture = subject.pictures[i]
        size = f"{picture.width} x {picture.height}"
        if 2 * picture.side < wanted:
            tiny.append(Mention(i, picture.name, size))
        if max(picture.width, picture.height) > EXTREME * picture.side:
            extreme.append(Mention(i, picture.name, size))
    if tiny:
        yield finding("tiny", tiny, f"shorter side below {wanted // 2 if wanted % 2 == 0 else wanted / 2:g} pixels")
    if extreme:
        yield finding("extreme-aspect", extreme, f"more than {EXTREME:g} times as long as wide")


def classes(subject: Subject) -> Iterator[Finding]:
    """Classes with far fewer pictures than others."""
    counts = Counter(p.label for p in subject.pictures if p.label is not None and not p.problem)
    if len(counts) < 2:
        return
    ordered = counts.most_common()
    (most, high), (least, low) = ordered[0], ordered[-1]
    if high > UNEQUAL * low or low < RARE < high:
        small = ", ".join(f"{name} {count}" for name, count in reversed(ordered[-5:]) if high > 2 * count)
        yield Finding("imbalance", high // low, text=f"{most} has {high} pictures, {least} {low}; smallest: {small}")


def captions(subject: Subject, wanted: bool) -> Iterator[Finding]:
    """Captions that are missing, empty, over-long or said of several pictures; `wanted`: even where there are none."""
    spoken: dict[str, list[int]] = {}
    silent: list[int] = []
    long: list[Mention] = []
    for i in subject.readable:
        picture = subject.pictures[i]
        for text in picture.captions:
            spoken.setdefault(text, []).append(i)
            if len(text) > LONG_LETTERS or len(text.split()) > LONG_WORDS:
                long.append(Mention(i, picture.name, f"{len(text.split())} words: {text[:60]}…"))
        if not picture.captions:
            silent.append(i)
    if not spoken and not wanted:
        return
    empty = [i for i in silent if subject.pictures[i].name in subject.empty]
    missing = [i for i in silent if subject.pictures[i].name not in subject.empty]
    shared = {text: at for text, at in spoken.items() if len(at) >= SHARED}
    for kind, numbers in (("no-caption", missing), ("empty-caption", empty)):
        if numbers:
            yield finding(kind, [Mention(i, subject.pictures[i].name) for i in numbers])
    if long:
        yield finding("long-caption", long, f"more than {LONG_WORDS} words or {LONG_LETTERS} letters")
    if shared:
        yield _shared(subject, shared)


def _shared(subject: Subject, shared: dict[str, list[int]]) -> Finding:
    groups = tuple(
        tuple(Mention(i, subject.pictures[i].name, text) for i in at)
        for text, at in sorted(shared.items(), key=lambda item: -len(item[1]))
    )
    most, at = max(shared.items(), key=lambda item: len(item[1]))
    return Finding("shared-caption", len(groups), groups, f"most often: {most[:60]!r}, {len(at)} pictures")


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first, as `KINDS` has them."""
    return tuple(sorted(findings, key=lambda item: list(KINDS).index(item.kind)))
