"""The whole check of a source: what was found, and which pictures are to be used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from nirvana.data.builtin import BUILTINS
from nirvana.data.decisions import Decision, Decisions
from nirvana.data.doctor import checks
from nirvana.data.doctor.findings import KINDS, UNREADABLE, Finding, Gravity
from nirvana.data.doctor.subject import Subject, lay_open
from nirvana.data.doctor.twins import because, findings, kind_of, twins
from nirvana.data.open import uncaptioned
from nirvana.errors import Refused, unknown

Say = Callable[[str, int, int], None]
"""What is going on, how much of it is done, of how much."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found about a source, gravest first, and the decisions; `test` is what it was held against for leaks."""

    subject: Subject
    findings: tuple[Finding, ...]
    decisions: Decisions
    test: Subject | None

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that have to be looked at."""
        return tuple(item for item in self.findings if item.about.gravity is Gravity.SERIOUS)

    @property
    def used(self) -> int:
        """How many pictures are used."""
        return sum(decision.use for decision in self.decisions.pictures)


def diagnose(
    source: str,
    *,
    test: str | None = None,
    captions: bool = False,
    keep: Collection[str] = (),
    say: Say = lambda _what, _done, _total: None,
) -> Diagnosis:
    """Check a source, for leaks against the source `test` too (where it is a built-in, its test part).

    `captions`: refuse it where it has none. `keep`: kinds of findings that leave no picture out. Refused: unknown
    kinds, nothing to check, and what the reading for training refuses.
    """
    optional = [kind for kind, about in KINDS.items() if about.drops and kind not in UNREADABLE]
    for kind in keep:
        if kind not in optional:
            raise unknown("kind to keep", kind, optional)
    subject = lay_open(source, lambda done, total: say("reading", done, total))
    if captions and not any(picture.captions for picture in subject.pictures):
        first = subject.pictures[subject.readable[0]].name
        raise uncaptioned(source, len(subject.readable), first, subject.notes)
    place = _test_part(source) if test is None else test
    other = None if place is None else lay_open(place, lambda done, total: say(f"reading {place}", done, total))
    same = twins(subject, other, lambda done, total: say("comparing", done, total))
    found = checks.in_order(
        [
            *checks.alone(subject),
            *checks.shapes(subject),
            *checks.classes(subject),
            *checks.captions(subject, captions),
            *findings(subject, other, same),
        ]
    )
    reasons = _reasons(subject, found)
    for twin in same:
        reasons.setdefault(twin.number, []).append((kind_of(subject, twin), because(subject, other, twin)))
    decisions = _decisions(subject, found, reasons, keep)
    if sum(decision.use for decision in decisions.pictures) < 2:
        raise Refused(
            f"{source}: the check would leave fewer than 2 pictures; give more pictures, or --keep what was found"
        )
    return Diagnosis(subject, found, decisions, other)


def _test_part(source: str) -> str | None:
    """The part of a built-in that is for testing; None for other sources, and for that part itself."""
    name, _, part = source.partition(":")
    tests = {"": "test", "train": "heldout", "subset": "subset-test"}
    wanted = "heldout" if name == "shapes" and part == "" else tests.get(part, "")
    return f"{name}:{wanted}" if wanted in BUILTINS.get(name, ()) else None


def _reasons(subject: Subject, found: tuple[Finding, ...]) -> dict[int, list[tuple[str, str]]]:
    """Of each picture by its number the kinds that leave it out, twins aside, and why."""
    reasons: dict[int, list[tuple[str, str]]] = {}
    for item in found:
        if item.about.drops and item.kind not in ("leak", "two-labels", "duplicate", "near-duplicate"):
            for mention in (mention for group in item.groups for mention in group):
                text = subject.pictures[mention.number].problem or f"{item.kind}, {mention.detail}"
                reasons.setdefault(mention.number, []).append((item.kind, text))
    return reasons


def _decisions(
    subject: Subject,
    found: tuple[Finding, ...],
    reasons: dict[int, list[tuple[str, str]]],
    keep: Collection[str],
) -> Decisions:
    kinds: dict[int, dict[str, None]] = {}
    for item in found:
        for mention in (mention for group in item.groups for mention in group):
            if not mention.reference:
                kinds.setdefault(mention.number, {})[item.kind] = None
    decided: list[Decision] = []
    for i, picture in enumerate(subject.pictures):
        against = [text for kind, text in reasons.get(i, []) if kind not in keep]
        decided.append(Decision(picture.name, picture.sha256, not against, "; ".join(against), tuple(kinds.get(i, {}))))
    return Decisions(subject.source, tuple(decided))
