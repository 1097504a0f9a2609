"""Distances to the nearest picture are exact, and copies are found."""

from __future__ import annotations

import numpy as np
import pytest

from nirvana.data import open_data
from nirvana.evaluate import copies, copy_ratio, nearest_distances


def random_pictures(count: int, seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("block", [1, 3, 7, 512])
def test_nearest_distances_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(copies, "_BLOCK", block)
    queries, references = random_pictures(10, 0, 5, 4, 3), random_pictures(17, 1, 5, 4, 3)
    expected = [min(np.linalg.norm(q / 255.0 - r / 255.0) for r in references) for q in queries]
    np.testing.assert_allclose(nearest_distances(queries, references), expected, rtol=1e-12)


def test_the_unit_is_one_full_pixel() -> None:
    black, one_white = np.zeros((1, 8, 8, 1), np.uint8), np.zeros((1, 8, 8, 1), np.uint8)
    one_white[0, 3, 3, 0] = 255
    assert nearest_distances(one_white, black) == pytest.approx([1.0], abs=1e-15)
    assert nearest_distances(255 - black, black) == pytest.approx([8.0], abs=1e-14)


def test_a_copy_is_at_distance_zero_and_the_smallest_change_is_seen() -> None:
    references = random_pictures(600, 2, 28, 28, 1)  # more than one block
    queries = references[[599, 3]].copy()
    queries[1, 0, 0, 0] ^= 1
    found = nearest_distances(queries, references)
    assert found[0] == 0
    assert found[1] == pytest.approx(1 / 255, rel=1e-12)


def test_nothing_to_measure() -> None:
    pictures = random_pictures(2, 0, 4, 4, 1)
    assert nearest_distances(pictures[:0], pictures).shape == (0,)
    with pytest.raises(ValueError, match="no reference pictures"):
        nearest_distances(pictures, pictures[:0])
    with pytest.raises(ValueError, match="no samples or no test pictures"):
        copy_ratio(pictures[:0], pictures, pictures)
    with pytest.raises(ValueError, match="no samples or no test pictures"):
        copy_ratio(pictures, pictures, pictures[:0])
    with pytest.raises(ValueError, match="test pictures are training pictures"):
        copy_ratio(pictures, pictures, pictures)


def test_copies_are_told_from_new_pictures() -> None:
    train = open_data("fashion-mnist:subset").images[::4]
    test = open_data("fashion-mnist:subset-test").images
    scale, new = test[::2], test[1::2]
    assert copy_ratio(train[::3], train, scale) == 0
    noisy = np.clip(train[::3].astype(int) + np.random.default_rng(0).integers(-2, 3, train[::3].shape), 0, 255)
    assert copy_ratio(noisy.astype(np.uint8), train, scale) < 0.05
    assert copy_ratio(new, train, scale) == pytest.approx(1, abs=0.1)
    mostly_copied = np.concatenate([train[:60], new[:40]])
    assert copy_ratio(mostly_copied, train, scale) == 0  # a median: more than half are copies
    assert copy_ratio(random_pictures(50, 3, 28, 28, 1), train, scale) > 1.5


def test_the_ratio_divides_by_the_distance_of_the_test_pictures() -> None:
    train = np.zeros((1, 2, 2, 1), np.uint8)
    test, samples = np.full((3, 2, 2, 1), 100, np.uint8), np.full((3, 2, 2, 1), 25, np.uint8)
    assert copy_ratio(samples, train, test) == pytest.approx(0.25, rel=1e-12)
