"""Intervals for what is counted."""

from __future__ import annotations

import math
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
