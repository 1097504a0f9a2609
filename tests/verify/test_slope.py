"""Orders from errors: the asymptotic window, what is not one, and rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from nirvana.verify.slope import FLOOR, Slope, measured


def of(error: Callable[[float], float], first: int = 8, last: int = 1024, early: bool = False) -> Slope:
    return measured(lambda n: error(1 / n), first=first, last=last, early=early)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, 4.0])
def test_a_power_law_is_its_order(order: float):
    found = of(lambda h: 3 * h**order * (1 + h))
    assert found.value == pytest.approx(order, abs=0.05)
    assert found.at_least(order) and not found.at_least(order + 1)
    assert found.at_least(found.value + 0.14) and not found.at_least(found.value + 0.16)
    early = of(lambda h: 3 * h**order * (1 + h), early=True)
    assert len(early.errors) < len(found.errors) and early.value == pytest.approx(order, abs=0.05)


def test_an_order_that_shows_late_is_not_taken_for_what_it_is_at_first():
    found = of(lambda h: h**2 + 5e-3 * h, last=128)
    assert found.value is None and not found.at_least(1.0)
    assert "no two successive slopes agree" in str(found)
    assert of(lambda h: h**2 + 5e-3 * h, last=2**14).value == pytest.approx(1, abs=0.1)


def test_without_a_window_two_more_doublings_are_tried():
    found = of(lambda h: h**2 + 5e-3 * h, last=512)
    assert max(found.errors) == 2048 and found.value == pytest.approx(1, abs=0.13)
    assert max(of(lambda h: h**2, last=512).errors) == 512


def test_rounding_ends_the_measure():
    found = of(lambda h: h**6 + 1e-13)
    assert found.value is not None and found.value == pytest.approx(6, abs=0.2)
    exact = of(lambda h: 1e-15)
    assert exact.value == math.inf and exact.at_least(9.0) and str(exact) == "exact to rounding"
    assert list(exact.errors) == [8]


def test_slopes_that_fall_down_to_rounding_count_as_the_smallest():
    found = of(lambda h: 30 * (h**4 + 1e-3 * h**3), first=16, last=2048)
    assert found.errors[2048] > FLOOR
    assert found.value is not None and 3 <= found.value < 3.8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_number_is_no_order(bad: float):
    found = of(lambda h: bad if h < 0.01 else h)
    assert found.value is None and not found.at_least(0.0)
    assert found.late == -math.inf


def test_errors_that_do_not_fall_have_order_zero():
    found = of(lambda h: 0.3)
    assert found.value == pytest.approx(0) and found.at_least(0.0) and not found.at_least(1.0)


def test_late_is_the_mean_of_the_last_three_doublings():
    found = of(lambda h: 1.0 if h > 1 / 40 else h**2 * (1 + math.sin(1 / h)), last=64)
    errors = found.errors
    assert found.late == pytest.approx(math.log2(errors[32] / errors[256]) / 3)
