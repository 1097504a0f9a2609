"""The Fréchet distance: closed forms, streaming, and an interval that covers what infinitely many samples have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from nirvana.evaluate import frechet as module
from nirvana.evaluate.frechet import Moments, blocks_of, extrapolated, frechet_distance

ENDLESS = 10**9


def exact(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """The moments of infinitely many samples."""
    return Moments(ENDLESS, mean, covariance * (ENDLESS - 1))


def covariance(rng: np.random.Generator, d: int, rank: int | None = None) -> np.ndarray:
    a = rng.normal(size=(d, rank or d)) / np.sqrt(d)
    return a @ a.T


def test_two_gaussians_with_one_basis_have_a_closed_form() -> None:
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    shift = np.array([0.5, -1.0, 2.0])
    found = frechet_distance(exact(shift, np.diag(a**2)), exact(np.zeros(3), np.diag(b**2)))
    assert found == pytest.approx(shift @ shift + ((a - b) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("ranks", [(6, 6), (6, 3), (2, 3)])
def test_any_two_gaussians_against_the_matrix_root_of_scipy(ranks: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    s, t = (covariance(rng, 6, rank) for rank in ranks)
    mean = rng.normal(size=6)
    jitter = 1e-12 * np.eye(6)  # sqrtm wants full rank
    root = np.trace(np.real(sqrtm((s + jitter) @ (t + jitter))))
    expected = mean @ mean + np.trace(s) + np.trace(t) - 2 * root
    assert frechet_distance(exact(mean, s), exact(np.zeros(6), t)) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(exact(np.zeros(6), t), exact(mean, s)) == pytest.approx(expected, rel=1e-5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.floats(-1e4, 1e4))
def test_streaming_gives_what_a_batch_gives(sizes: list[int], offset: float) -> None:
    rng = np.random.default_rng(1)
    parts = [rng.normal(size=(size, 3)).astype(np.float32) + np.float32(offset) for size in [*sizes, 4]]
    total = Moments.none(3)
    for part in parts:
        total = total + Moments.of(part)
    rows = np.concatenate(parts).astype(np.float64)
    assert total.count == len(rows)
    np.testing.assert_allclose(total.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(total.covariance, np.cov(rows.T), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 40, 100])
def test_blocks_are_consecutive_and_do_not_depend_on_the_chunks(chunk: int) -> None:
    rows = np.random.default_rng(2).normal(size=(43, 2))
    found = blocks_of((rows[i : i + chunk] for i in range(0, 43, chunk)), 43, 2, 4)
    assert [block.count for block in found] == [10, 11, 11, 11]
    for block, part in zip(found, np.split(rows, [10, 21, 32]), strict=True):
        np.testing.assert_allclose(block.mean, part.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(block.covariance, np.cov(part.T), rtol=1e-9)


@pytest.mark.parametrize("left_out", [(), (2,), (0, 3)])
def test_distances_without_blocks_are_those_of_the_other_blocks(left_out: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    parts = [rng.normal(size=(size, 6)) @ covariance(rng, 6) + 50 + size for size in (9, 8, 9, 8)]
    reference = Moments.of(rng.normal(size=(20, 6)) + 40)
    kept = Moments.of(np.concatenate([part for i, part in enumerate(parts) if i not in left_out]))
    found = module._Parts([Moments.of(part) for part in parts], reference).distance(left_out)
    assert found == pytest.approx(frechet_distance(kept, reference), rel=1e-10)


@pytest.mark.parametrize("shift", [0.5, 0.0])
def test_the_interval_covers_the_distance_of_infinitely_many_samples(shift: float) -> None:
    rng = np.random.default_rng(3)
    d, n, rounds = 4, 200, 80
    root = covariance(rng, d) + np.eye(d)
    true_mean, reference = np.full(d, shift), exact(np.zeros(d), root @ root)
    true = frechet_distance(exact(true_mean, root @ root), reference)
    found = [
        extrapolated(blocks_of([rng.normal(size=(n, d)) @ root + true_mean], n, d, 6), reference) for _ in range(rounds)
    ]
    covered = np.mean([f.interval.low <= true <= f.interval.high for f in found])
    assert 0.88 <= covered <= 1
    values, plain = np.array([f.value for f in found]), np.array([f.plain for f in found])
    error = values.std() / np.sqrt(rounds)
    assert abs(values.mean() - true) < 3 * error + 0.01
    assert plain.mean() - true > 5 * error  # what the extrapolation takes away
    widths = np.array([f.interval.high - f.interval.low for f in found])
    assert widths.mean() < 9 * values.std()  # the interval is no wider than it has to be


def test_the_extrapolation_is_exact_where_the_excess_is_c_over_n(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Parts, "distance", lambda _, left_out: 3 + 7 / (5 * (6 - len(left_out))))
    blocks = [Moments(5, np.zeros(1), np.zeros((1, 1))) for _ in range(6)]
    found = extrapolated(blocks, blocks[0])
    assert (found.plain, found.value) == pytest.approx((3 + 7 / 30, 3))
    assert found.interval == pytest.approx((3, 3))


def test_what_cannot_be_measured_is_said() -> None:
    rng = np.random.default_rng(4)
    a, b = Moments.of(rng.normal(size=(9, 3))), Moments.of(rng.normal(size=(9, 4)))
    one = Moments.of(rng.normal(size=(1, 3)))
    with pytest.raises(ValueError, match="one feature space"):
        frechet_distance(a, b)
    with pytest.raises(ValueError, match="width 4 beside those of width 3"):
        a + b
    with pytest.raises(ValueError, match="no covariance of 1 pictures"):
        frechet_distance(one, a)
    spoilt = rng.normal(size=(5, 3))
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match="features of picture 3 are not finite"):
        Moments.of(spoilt)
    with pytest.raises(ValueError, match="equal size"):
        extrapolated([a, a, one], a)
    with pytest.raises(ValueError, match="at least 3"):
        extrapolated([a, a], a)
    with pytest.raises(ValueError, match="give at least 20"):
        blocks_of([rng.normal(size=(9, 3))], 9, 3)
    with pytest.raises(ValueError, match="more than the 20"):
        blocks_of([rng.normal(size=(21, 3))], 20, 3)
    with pytest.raises(ValueError, match="19 samples, not the 20"):
        blocks_of([rng.normal(size=(19, 3))], 20, 3)
