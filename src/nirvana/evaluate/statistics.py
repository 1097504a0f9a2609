"""Intervals for what is counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion of which `k` of `n` trials were seen.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = k/n, z the normal quantile of (1 + confidence)/2.
    It stays inside [0, 1] and is sound at k = 0 and k = n, where the textbook interval has no width.
    ValueError unless 0 <= k <= n, n > 0 and 0 < confidence < 1. Source: Wilson 1927; Brown, Cai, DasGupta 2001, eq. 4.
    """
    if not (0 <= k <= n and n > 0):
        raise ValueError(f"{k} of {n} trials is no proportion")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, shrink = k / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return Interval(0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def normal_interval(value: float, error: float, confidence: float = 0.95) -> Interval:
    """value -+ z error, for a normal estimate with standard error `error`. ValueError as for `wilson`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Interval(value - half, value + half)


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t with `freedom` degrees of freedom, to about ten digits.

    P(T <= t) = 1/2 + C int_0^a cos^(freedom - 1), a = atan(t / sqrt(freedom)): bisected over the angle a, in which the
    integrand is smooth and bounded. ValueError unless 0 < probability < 1 and freedom >= 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile {probability} with {freedom} degrees of freedom")
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        below = 0.5 + scale * _simpson(lambda a: math.cos(a) ** (freedom - 1), middle)
        low, high = (middle, high) if below < probability else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _simpson(f: Callable[[float], float], end: float, parts: int = 200) -> float:
    """The integral of f from 0 to `end`."""
    step = end / parts
    inner = sum((4 if i % 2 else 2) * f(i * step) for i in range(1, parts))
    return (f(0.0) + inner + f(end)) * step / 3


def jackknife(value: float, without: Sequence[float], confidence: float = 0.95) -> Interval:
    """The delete-block jackknife: `value` of all B blocks, and the values `without` each of them in turn.

    se^2 = (B-1)/B sum_b (v_b - mean v)^2, and Student's t with B - 1 degrees of freedom.
    ValueError for fewer than two blocks. Source: Efron & Tibshirani 1993, section 11.5.
    """
    blocks = len(without)
    if blocks < 2:
        raise ValueError(f"a jackknife over {blocks} blocks; at least 2 are needed")
    mean = sum(without) / blocks
    error = math.sqrt((blocks - 1) / blocks * sum((v - mean) ** 2 for v in without))
    half = student_quantile((1 + confidence) / 2, blocks - 1) * error
    return Interval(value - half, value + half)
