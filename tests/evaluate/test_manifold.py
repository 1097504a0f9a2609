"""Precision, recall, density and coverage: brute force, planted defects, and intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from nirvana.evaluate import manifold as module
from nirvana.evaluate.manifold import manifold_scores, nearest


def rows(n: int, seed: int, d: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def radius(x: np.ndarray, k: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    real, fake = rows(40, 0), rows(30, 1) * 1.3 + 0.5
    d = np.linalg.norm(fake[:, None] - real[None], axis=2)
    found = manifold_scores(real, fake)
    assert found.precision.value == np.mean((d <= radius(real, 3)).any(axis=1))
    assert found.recall.value == np.mean((d <= radius(fake, 3)[:, None]).any(axis=0))
    assert found.coverage.value == np.mean((d <= radius(real, 5)).any(axis=0))
    assert found.density.value == pytest.approx((d <= radius(real, 5)).sum() / (5 * 30))


def test_planted_defects_lower_what_they_should() -> None:
    rng = np.random.default_rng(2)

    def modes(count: int, seed: int) -> np.ndarray:
        return rows(600, seed) + 10.0 * np.eye(4, dtype=np.float32)[rng.integers(0, count, 600)]

    real = modes(4, 3)
    good, missing, noisy = (
        manifold_scores(real, x) for x in (modes(4, 4), modes(2, 5), modes(4, 6) + 4 * rows(600, 7))
    )
    assert good.precision.interval.high > 0.95 and good.coverage.interval.high > 0.9
    assert missing.recall.interval.high < 0.7 < good.recall.interval.low
    assert missing.coverage.interval.high < 0.7 < good.coverage.interval.low
    assert missing.precision.value > 0.9
    assert noisy.precision.interval.high < 0.5 and noisy.density.interval.high < 0.5


def test_the_intervals_cover_given_the_other_set() -> None:
    real, wide = rows(100, 8), rows(100, 9) * 1.5
    many = manifold_scores(real, rows(3000, 10) * 1.2)
    covered = {"precision": 0, "density": 0}
    for seed in range(100):
        found = manifold_scores(real, rows(80, 100 + seed) * 1.2)
        for name in covered:
            low, high = getattr(found, name).interval
            covered[name] += low <= getattr(many, name).value <= high
    assert all(0.9 <= hits / 100 <= 1 for hits in covered.values())
    recalled, truth = 0, manifold_scores(rows(3000, 11), wide).recall.value
    for seed in range(100):
        low, high = manifold_scores(rows(80, 300 + seed), wide).recall.interval
        recalled += low <= truth <= high
    assert 0.9 <= recalled / 100 <= 1


def test_nearest_is_exact_and_ordered() -> None:
    references = rows(200, 12, 16).astype(np.float64) + 1000  # far from 0: float32 alone would round
    queries = np.concatenate([references[:3], references[5:7] + 1e-3])
    distances, places = nearest(queries, references, 4)
    assert (distances[:3, 0] == 0).all() and (np.diff(distances, axis=1) >= 0).all()
    assert list(places[:3, 0]) == [0, 1, 2]
    for row, query in enumerate(queries):
        np.testing.assert_allclose(distances[row], np.linalg.norm(query - references[places[row]], axis=1))


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="more than 5 each"):
        manifold_scores(rows(9, 0), rows(5, 1))
    with pytest.raises(ValueError, match="one feature space"):
        manifold_scores(rows(9, 0), rows(9, 1, 3))
    with pytest.raises(ValueError, match="at least 4 are needed"):
        nearest(rows(2, 0), rows(3, 1), 4)
