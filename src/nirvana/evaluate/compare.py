"""Evaluations side by side, and which of their differences exceed the error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nirvana.errors import Refused
from nirvana.evaluate.scores import Evaluation, Score
from nirvana.files import Json


@dataclass(frozen=True)
class Row:
    """One score of every run (None where a run has none). best: places of those that no other one beats for certain.

    verdict: in words: "b is better", "within the error", or "" where neither direction is better.
    """

    name: str
    better: str
    scores: tuple[Score | None, ...]
    best: tuple[int, ...]
    verdict: str

    def to_json(self) -> dict[str, Json]:
        """All of it."""
        scores: list[Json] = [None if score is None else score.to_json() for score in self.scores]
        return {"name": self.name, "better": self.better, "scores": scores, "best": list(self.best)}


def difference(a: Score, b: Score) -> tuple[float, float]:
    """b - a and the half-width of its interval, sqrt(h_a^2 + h_b^2), with h the wider side of each interval.

    The samples of two runs are independent; that they share the real pictures makes the true error smaller.
    ValueError where a score has no interval.
    """
    if a.interval is None or b.interval is None:
        raise ValueError(f"'{a.name}' has no interval, so no difference of it can be judged")
    halves = [max(s.value - s.interval.low, s.interval.high - s.value) for s in (a, b) if s.interval]
    return b.value - a.value, math.hypot(*halves)


def beats(a: Score, b: Score) -> bool:
    """Whether `a` is better than `b` by more than the error."""
    apart, half = difference(b, a)
    return abs(apart) > half and (apart < 0) == (a.better == "lower")


def compare(evaluations: Mapping[str, Evaluation]) -> list[Row]:
    """A row for every score that at least two have. Refused for fewer than two, or other real pictures or space."""
    if len(evaluations) < 2:
        raise Refused("one run alone cannot be compared; name at least two")
    names, found = list(evaluations), list(evaluations.values())
    for about, what in (("data", "real pictures"), ("space", "feature space")):
        values = [evaluation.about.get(about) for evaluation in found]
        if any(value != values[0] for value in values):
            other = next(i for i, value in enumerate(values) if value != values[0])
            raise Refused(
                f"{names[0]} and {names[other]} were evaluated with different {what}, so their scores cannot be"
                " compared; evaluate them anew with the same --against and --space"
            )
    listed = dict.fromkeys(score.name for evaluation in found for score in evaluation.scores)
    rows = [_row(name, names, [_score(evaluation, name) for evaluation in found]) for name in listed]
    return [row for row in rows if sum(score is not None for score in row.scores) >= 2]


def _score(evaluation: Evaluation, name: str) -> Score | None:
    return next((score for score in evaluation.scores if score.name == name), None)


def _row(name: str, names: Sequence[str], scores: Sequence[Score | None]) -> Row:
    better = next(score.better for score in scores if score is not None)
    judged = [i for i, score in enumerate(scores) if score is not None and score.interval is not None]
    if not better or len(judged) < 2:
        return Row(name, better, tuple(scores), (), "")
    best = tuple(i for i in judged if not any(beats(_known(scores[j]), _known(scores[i])) for j in judged if j != i))
    if len(best) == len(judged):
        return Row(name, better, tuple(scores), (), "within the error")
    winners = ", ".join(names[i] for i in best)
    return Row(name, better, tuple(scores), best, f"{winners} {'is' if len(best) == 1 else 'are'} better")


def _known(score: Score | None) -> Score:
    if score is None:
        raise ValueError("no score to judge")
    return score
