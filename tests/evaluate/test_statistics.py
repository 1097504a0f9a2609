"""The Wilson interval agrees with scipy's and covers at the stated rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, sem, t

from nirvana.evaluate.statistics import (
    jackknife,
    normal_interval,
    student_quantile,
    wilson,
)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.999))
def test_agrees_with_scipy(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    expected = binomtest(k, n).proportion_ci(confidence_level=confidence, method="wilson")
    found = wilson(k, n, confidence)
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_contains_the_proportion_stays_in_range_and_is_symmetric(counts: tuple[int, int]) -> None:
    k, n = counts
    found, mirrored = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= k / n <= found.high <= 1
    assert found.low < found.high
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-12)


def test_covers_the_true_rate_about_as_often_as_stated() -> None:
    n, rate = 100, 0.87
    covered = sum(binom.pmf(k, n, rate) for k in range(n + 1) if wilson(k, n).low <= rate <= wilson(k, n).high)
    assert covered == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("counts", [(-1, 10), (11, 10), (0, 0)])
def test_what_is_no_proportion(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        wilson(*counts)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, float("nan")])
def test_what_is_no_confidence(confidence: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        wilson(1, 2, confidence)


@pytest.mark.parametrize("freedom", [1, 2, 9, 40])
@pytest.mark.parametrize("probability", [0.02, 0.5, 0.8, 0.975, 0.999])
def test_student_quantile_is_that_of_scipy(probability: float, freedom: int) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-7, abs=1e-9)


def test_the_jackknife_of_a_mean_is_the_textbook_interval() -> None:
    blocks = [3.0, 1.0, 4.0, 1.5, 9.0]
    mean = sum(blocks) / 5
    found = jackknife(mean, [(sum(blocks) - b) / 4 for b in blocks])
    assert found == pytest.approx(t.interval(0.95, 4, mean, sem(blocks)), rel=1e-7)
    with pytest.raises(ValueError, match="at least 2"):
        jackknife(mean, [1.0])


def test_normal_interval() -> None:
    assert normal_interval(2.0, 0.5) == pytest.approx((2 - 0.98, 2 + 0.98), abs=1e-4)
    with pytest.raises(ValueError, match="not between"):
        normal_interval(0.0, 1.0, 1.0)
