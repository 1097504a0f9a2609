"""The kernel distance: brute force, no bias, and an error that is the true one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from nirvana.evaluate import kernel as module
from nirvana.evaluate.kernel import kernel_distance


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_is_the_u_statistic_of_brute_force(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(13, 5)), rng.normal(size=(9, 5)) + 0.5
    aa, bb, ab = (polynomial_kernel(x, y, degree=3, gamma=1 / 5, coef0=1) for x, y in ((a, a), (b, b), (a, b)))
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (aa, bb)]
    assert kernel_distance(a, b).value == pytest.approx(sum(within) - 2 * ab.mean(), rel=1e-12)


@pytest.mark.parametrize(("n", "m", "shift"), [(12, 20, 0.0), (20, 12, 0.4), (40, 40, 1.0)])
def test_value_and_squared_error_have_no_bias(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(40, 2)) * 0.4  # small sets to draw from with replacement, so that the truth is a sum
    other = pool + shift
    k = polynomial_kernel
    aa, bb, ab = (k(x, y, degree=3, gamma=1 / 2, coef0=1).mean() for x, y in ((other,) * 2, (pool,) * 2, (other, pool)))
    true = aa + bb - 2 * ab
    values, squares = np.empty(1500), np.empty(1500)
    for i in range(1500):
        a, b = other[rng.integers(0, 40, n)], pool[rng.integers(0, 40, m)]
        values[i] = kernel_distance(a, b).value
        squares[i] = sum(module._variance(module._sums(a), module._sums(b), module._sums(a, b)))
    assert values.mean() == pytest.approx(true, abs=4 * values.std() / 1500**0.5)
    assert squares.mean() == pytest.approx(values.var(), rel=0.15)


@pytest.mark.parametrize("shift", [0.1, 0.6])
def test_the_interval_covers(shift: float) -> None:
    rng = np.random.default_rng(2)
    d = 3
    # E (x.y/d + 1)^3 for Gaussians of unit covariance, from the moments of x.y
    true = _expected(shift, shift, d) + _expected(0, 0, d) - 2 * _expected(shift, 0, d)
    found = [kernel_distance(rng.normal(size=(120, d)) + shift, rng.normal(size=(150, d))).interval for _ in range(200)]
    assert 0.9 <= np.mean([low <= true <= high for low, high in found]) <= 0.995


def _expected(a: float, b: float, d: int) -> float:
    """E (x.y/d + 1)^3 with x ~ N(a 1, I), y ~ N(b 1, I): given y, x.y is N(a s, q) with s = 1.y and q = |y|^2."""
    m1 = d * a * b
    s2 = d + (d * b) ** 2
    q = d + d * b**2
    m2 = a**2 * s2 + q
    s3 = (d * b) ** 3 + 3 * d * (d * b)
    sq = d * b * q + 2 * d * b
    m3 = a**3 * s3 + 3 * a * sq
    return m3 / d**3 + 3 * m2 / d**2 + 3 * m1 / d + 1


def test_what_cannot_be_measured_is_said() -> None:
    rows = np.random.default_rng(3).normal(size=(9, 3))
    with pytest.raises(ValueError, match="one feature space"):
        kernel_distance(rows, rows[:, :2])
    with pytest.raises(ValueError, match="at least 4 each"):
        kernel_distance(rows, rows[:3])
