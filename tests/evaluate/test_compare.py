from __future__ import annotations

import pytest

from nirvana.errors import Refused
from nirvana.evaluate.compare import compare, difference
from nirvana.evaluate.scores import Evaluation, Score
from nirvana.evaluate.statistics import Interval


def score(name: str, value: float, half: float | None, better: str) -> Score:
    return Score(name, float(value), better, None if half is None else Interval(value - half, value + half), 100, 100)


def evaluation(kid: float, recall: float, data: str = "d", space: str = "s", extra: str = "") -> Evaluation:
    scores = [score("KID", kid, 3.0, "lower"), score("recall", recall, 0.04, "higher"), score("p", 0.3, None, "")]
    return Evaluation({"data": data, "space": space}, [*scores, *([score(extra, 1.0, 1.0, "")] if extra else [])], {})


def test_differences_beyond_the_error_are_named_in_the_right_direction() -> None:
    rows = {row.name: row for row in compare({"a": evaluation(10, 0.5), "b": evaluation(15, 0.6)})}
    assert (rows["KID"].verdict, rows["KID"].best) == ("a is better", (0,))  # 5 > sqrt(3^2 + 3^2) = 4.24
    assert (rows["recall"].verdict, rows["recall"].best) == ("b is better", (1,))
    assert (rows["p"].verdict, rows["p"].best) == ("", ())
    close = {row.name: row for row in compare({"a": evaluation(10, 0.5), "b": evaluation(14, 0.55)})}
    assert [close[name].verdict for name in ("KID", "recall")] == ["within the error"] * 2
    assert difference(score("x", 1, 3, "lower"), score("x", 2, 4, "lower")) == (1, 5)


def test_of_three_all_that_none_beats_are_best_and_rare_scores_are_left_out() -> None:
    runs = {"a": evaluation(10, 0.5), "b": evaluation(12, 0.5, extra="rare"), "c": evaluation(30, 0.5)}
    rows = {row.name: row for row in compare(runs)}
    assert (rows["KID"].verdict, rows["KID"].best) == ("a, b are better", (0, 1))
    assert "rare" not in rows


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(Refused, match="at least two"):
        compare({"a": evaluation(1, 0.5)})
    with pytest.raises(Refused, match=r"a and c .* different real pictures"):
        compare({"a": evaluation(1, 0.5), "b": evaluation(1, 0.5), "c": evaluation(1, 0.5, data="e")})
    with pytest.raises(Refused, match="different feature space"):
        compare({"a": evaluation(1, 0.5), "b": evaluation(1, 0.5, space="t")})
    with pytest.raises(ValueError, match="no interval"):
        difference(score("p", 1, None, ""), score("p", 1, 1, ""))
