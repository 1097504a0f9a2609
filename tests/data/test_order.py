"""The order of pictures and their flips, as functions of (seed, global sample index)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nirvana.data import flips, mirrored, order

SEEDS = st.integers(0, 2**63 - 1)
STARTS = st.integers(0, 10_000)


@given(SEEDS, st.integers(1, 50), st.integers(0, 10**6))
@settings(max_examples=50)
def test_every_epoch_shows_every_picture_once(seed: int, n: int, epoch: int) -> None:
    assert sorted(order(seed, n, range(epoch * n, (epoch + 1) * n))) == list(range(n))


@given(SEEDS, st.integers(1, 50), STARTS, st.integers(0, 99), st.integers(0, 99))
@settings(max_examples=50)
def test_any_split_of_a_range_gives_the_same(seed: int, n: int, start: int, first: int, second: int) -> None:
    middle, stop = start + first, start + first + second
    whole = order(seed, n, range(start, stop))
    assert np.array_equal(
        np.concatenate([order(seed, n, range(start, middle)), order(seed, n, range(middle, stop))]), whole
    )
    assert np.array_equal(order(seed, n, range(start, stop, 3)), whole[::3])
    coins = flips(seed, range(start, stop))
    assert np.array_equal(np.concatenate([flips(seed, range(start, middle)), flips(seed, range(middle, stop))]), coins)
    assert np.array_equal(flips(seed, range(start, stop, 3)), coins[::3])


def test_epochs_and_seeds_differ() -> None:
    rows = [order(seed, 100, range(epoch * 100, epoch * 100 + 100)) for seed in (0, 1, 2**40) for epoch in (0, 1, 2)]
    for i, row in enumerate(rows):
        for other in rows[:i]:
            assert (row == other).sum() < 20  # about one place in a hundred agrees by chance


def test_order_is_uniform() -> None:
    counts = np.zeros((4, 4))
    for epoch in range(2000):
        counts[np.arange(4), order(7, 4, range(4 * epoch, 4 * epoch + 4))] += 1
    assert np.abs(counts - 500).max() < 100  # five standard deviations


def test_flips_are_fair_and_not_the_order() -> None:
    coins = flips(3, range(40_000))
    assert abs(coins.mean() - 0.5) < 0.0125  # five standard deviations
    assert abs((coins[1:] == coins[:-1]).mean() - 0.5) < 0.0125
    assert not np.array_equal(coins, flips(4, range(40_000)))


def test_results_never_change_between_versions() -> None:
    found = np.concatenate([order(1234, 1000, range(1990, 2010)), flips(1234, range(100)).astype(np.int64)])
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == (
        "e39d561cabe5ddfeacb023876613efa3c5db7a9ed3cc11b25c9e5d91eed38d48"
    )


def test_results_are_the_callers_own() -> None:
    first = order(1, 10, range(10))
    first[:] = 0
    assert sorted(order(1, 10, range(10))) == list(range(10))


def test_mirrored_flips_left_to_right_in_a_copy() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 3, 2)
    result = mirrored(images, np.array([False, True]))
    assert np.array_equal(result[0], images[0])
    assert np.array_equal(result[1], images[1][:, ::-1])
    assert images[1, 0, 0, 0] == 12


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        order(seed, 3, range(3))
    with pytest.raises(ValueError, match="out of range"):
        flips(seed, range(3))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        order(0, 0, range(1))
    for function in (lambda r: order(0, 3, r), lambda r: flips(0, r)):
        with pytest.raises(ValueError, match="negative"):
            function(range(-1, 2))
        assert len(function(range(0))) == 0
