"""Distances to the nearest picture are exact, and copies are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.stats import kstest

from nirvana.data import open_data
from nirvana.evaluate import copies, copy_ratio, memorization, nearest_distances


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


def blurred(images: np.ndarray) -> np.ndarray:
    return uniform_filter(images, (0, 3, 3, 0))


def test_unseen_pictures_are_not_called_copies_and_p_is_uniform() -> None:
    rng = np.random.default_rng(4)
    train = open_data("fashion-mnist:subset").images[::8]
    test = open_data("fashion-mnist:subset-test").images
    found: list[float] = []
    for _ in range(50):
        shuffled = test[rng.permutation(len(test))[:400]]
        found.append(memorization(shuffled[:200], train, shuffled[200:]).p)
    assert kstest(found, "uniform").pvalue > 0.01
    assert 0.3 < np.mean(found) < 0.7


def test_a_fifth_of_copies_is_found_and_blur_is_no_copy() -> None:
    train = open_data("fashion-mnist:subset").images[::8]
    test = open_data("fashion-mnist:subset-test").images
    fresh, held_out = test[:400:2], test[1:400:2]
    planted = np.concatenate([train[7:47], fresh[40:]])
    found = memorization(planted, train, held_out)
    assert found.p < 0.01
    assert set(found.closest[:40]) == set(range(40))
    assert list(found.place[:40]) == list(range(7, 47))
    noisy = np.clip(planted + np.random.default_rng(5).normal(0, 8, planted.shape), 0, 255).astype(np.uint8)
    assert memorization(noisy, train, held_out).p < 0.01
    assert memorization(blurred(fresh), train, held_out).p > 0.05
    assert memorization(random_pictures(200, 6, 28, 28, 1), train, held_out).p > 0.05


def test_copies_are_found_where_the_training_pictures_have_twins_and_are_large_and_coloured() -> None:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (300, 6, 6, 3), dtype=np.uint8)
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)
    train = np.concatenate([pictures[:100]] * 3)
    found = memorization(np.concatenate([train[:20], pictures[100:180]]), train, pictures[200:])
    assert found.p < 0.01
    assert (found.ratio[:20] == 0).all()


def test_nothing_to_test() -> None:
    pictures = random_pictures(12, 0, 4, 4, 1)
    with pytest.raises(ValueError, match="no samples or no test pictures"):
        memorization(pictures, pictures, pictures[:0])
    alike = np.zeros((30, 4, 4, 1), np.uint8)
    assert memorization(alike[:5], alike, alike[:5]).p == pytest.approx(0.5, abs=0.5)
