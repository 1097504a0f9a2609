"""The kernel distance (KID): unbiased at every number of samples, and with an unbiased variance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from nirvana.evaluate.statistics import Interval, normal_interval

_BLOCK = 1024


@dataclass(frozen=True)
class KernelDistance:
    """value: unbiased, so it may be below 0 where the sets hardly differ; error: its standard error."""

    value: float
    error: float

    @property
    def interval(self) -> Interval:
        """At 95%, by the normal limit."""
        return normal_interval(self.value, self.error)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of a kernel matrix: row sums, column sums, and the sum of squares; without the diagonal within one set."""

    rows: Float64[np.ndarray, "n"]
    columns: Float64[np.ndarray, "m"]
    squares: float


def kernel_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m e"]) -> KernelDistance:
    """Squared MMD with k(x, y) = (x.y/d + 1)^3, as U-statistic, and the exact variance of that statistic, estimated.

    U = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean k(a_i, b_j). Its variance is the sum over the
    parts of its Hoeffding decomposition, each estimated from sums over distinct indices, so without bias also where the
    sets are alike and the first-order part vanishes; an estimate of that part below 0 counts as 0. Memory is flat:
    blocks of 1,024 rows.
    ValueError for widths that differ or fewer than 4 rows. Source: Bińkowski et al. 2018, section 4; Sutherland & Deka
    2019, "Unbiased estimators for the variance of MMD estimators".
    """
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of width {a.shape[1]} and {b.shape[1]}; take both from one feature space")
    n, m = len(a), len(b)
    if min(n, m) < 4:
        raise ValueError(f"sets of {n} and {m} pictures; at least 4 each are needed")
    aa, bb, ab = _sums(a), _sums(b), _sums(a, b)
    value = _pairs_mean(aa, n) + _pairs_mean(bb, m) - 2 * float(ab.rows.sum()) / (n * m)
    linear, rest = _variance(aa, bb, ab)
    return KernelDistance(value, math.sqrt(max(linear, 0.0) + max(rest, 0.0)))


def _variance(aa: _Sums, bb: _Sums, ab: _Sums) -> tuple[float, float]:
    """Of the statistic: its part of first order in single samples, and its part in pairs. Their sum has no bias."""
    n, m = len(aa.rows), len(bb.rows)
    linear = 4 / n * _first_order(aa, ab.rows, ab, m) + 4 / m * _first_order(bb, ab.columns, ab, n)
    within = 2 * _second_order(aa, n) / (n * (n - 1)) + 2 * _second_order(bb, m) / (m * (m - 1))
    return linear, within + 4 * _crossed_order(ab, n, m) / (n * m)


def _kernel(x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "n m"]:
    k = x @ y.T / x.shape[1] + 1
    return k * k * k


def _sums(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"] | None = None) -> _Sums:
    other = np.asarray(a if b is None else b, np.float64)
    rows, columns, squares = np.empty(len(a)), np.zeros(len(other)), 0.0
    for part in _blocks(len(a)):
        k = _kernel(np.asarray(a[part], np.float64), other)
        if b is None:
            k[np.arange(len(k)), np.arange(part.start, part.start + len(k))] = 0
        rows[part] = k.sum(axis=1)
        columns += k.sum(axis=0)
        squares += float(np.einsum("ij,ij->", k, k))
    return _Sums(rows, columns, squares)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


def _pairs_mean(s: _Sums, n: int) -> float:
    return float(s.rows.sum()) / (n * (n - 1))


def _square_within(s: _Sums, n: int) -> float:
    """(E k)^2 within a set, over four distinct indices."""
    total, squared = float(s.rows.sum()), float(s.rows @ s.rows)
    return (total**2 - 4 * squared + 2 * s.squares) / (n * (n - 1) * (n - 2) * (n - 3))


def _chained_within(s: _Sums, n: int) -> float:
    """E k(x, x') k(x, x''), over three distinct indices."""
    return (float(s.rows @ s.rows) - s.squares) / (n * (n - 1) * (n - 2))


def _square_across(s: _Sums, n: int, m: int) -> float:
    """(E k)^2 across the sets, both pairs of indices distinct."""
    total = float(s.rows.sum())
    rest = total**2 - float(s.rows @ s.rows) - float(s.columns @ s.columns) + s.squares
    return rest / (n * (n - 1) * m * (m - 1))


def _first_order(within: _Sums, across: Float64[np.ndarray, "n"], ab: _Sums, m: int) -> float:
    """Var_x(E k(x, x') - E k(x, y)): what one more sample of this set tells. `across`: its sums over the other's m."""
    n = len(across)
    total_w, total_a = float(within.rows.sum()), float(across.sum())
    var_within = _chained_within(within, n) - _square_within(within, n)
    chained_across = (float(across @ across) - ab.squares) / (n * m * (m - 1))
    var_across = chained_across - _square_across(ab, n, m)
    both = float(within.rows @ across)
    shared = both / (n * (n - 1) * m) - (total_w * total_a - 2 * both) / (n * (n - 1) * (n - 2) * m)
    return var_within + var_across - 2 * shared


def _second_order(s: _Sums, n: int) -> float:
    """Var of k(x, x') with both means taken out: E k^2 - 2 E k(x, x') k(x, x'') + (E k)^2."""
    return s.squares / (n * (n - 1)) - 2 * _chained_within(s, n) + _square_within(s, n)


def _crossed_order(s: _Sums, n: int, m: int) -> float:
    by_row = (float(s.rows @ s.rows) - s.squares) / (n * m * (m - 1))
    by_column = (float(s.columns @ s.columns) - s.squares) / (n * (n - 1) * m)
    return s.squares / (n * m) - by_row - by_column + _square_across(s, n, m)
