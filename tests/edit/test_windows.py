"""Windows cover what is open, know what they may, and come in the order of what is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nirvana.edit import Window, windows


@settings(max_examples=40)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 7), st.integers(0, 2**32 - 1), st.floats(0.0, 0.9))
def test_every_open_pixel_is_covered_once_it_counts(h: int, w: int, context: int, seed: int, closed: float) -> None:
    rng = np.random.default_rng(seed)
    open_ = rng.random((h, w)) >= closed
    order = windows(open_, (8, 8), context)
    left = open_.copy()
    for window in order:
        assert 0 <= window.top <= h - 8 and 0 <= window.left <= w - 8 and window[2:] == (8, 8)
        assert left[window.slices].any()
        left[window.slices] = False
    assert not left.any()


def test_one_window_where_one_will_do_with_the_hole_in_its_middle() -> None:
    open_ = np.zeros((50, 60), bool)
    open_[20:24, 30:34] = True
    assert windows(open_, (16, 16), 6) == [Window(14, 24, 16, 16)]
    open_[20:24, 30:34], open_[0:4, 0:4] = False, True
    assert windows(open_, (16, 16), 12) == [Window(0, 0, 16, 16)]
    assert windows(np.zeros((20, 20), bool), (8, 8), 2) == []


def test_going_outwards_each_window_sees_the_context() -> None:
    open_ = np.zeros((8, 40), bool)
    open_[:, 10:] = True
    order = windows(open_, (8, 8), 3)
    assert [window.left for window in order] == [7, 12, 17, 22, 27, 32]
    known = ~open_
    for window in order[:-1]:
        assert known[window.slices][:, :3].all()
        known[window.slices] = True


def test_what_is_known_best_comes_first() -> None:
    open_ = np.ones((8, 24), bool)
    open_[:, 16:] = False
    open_[0, 23] = True
    assert windows(open_, (8, 8), 0)[0].left == 16


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="7x9 is smaller than the canvas, 8x8"):
        windows(np.ones((9, 7), bool), (8, 8), 2)
    with pytest.raises(ValueError, match="context of 8 pixels"):
        windows(np.ones((9, 9), bool), (8, 8), 8)


@settings(max_examples=40)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 7), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_each_time_the_one_that_knows_most_comes_next(h: int, w: int, context: int, seed: int, closed: float) -> None:
    left = np.random.default_rng(seed).random((h, w)) >= closed
    order = windows(left, (8, 8), context)
    for i, window in enumerate(order):
        missing = [int(left[other.slices].sum()) for other in order[i:]]
        assert missing[0] == min(count for count in missing if count)
        assert all(window <= other for other, count in zip(order[i:], missing, strict=True) if count == missing[0])
        left[window.slices] = False
