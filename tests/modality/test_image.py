"""Grids and sheets: every pixel where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from nirvana.modality import grid, mosaic, sheet
from nirvana.modality.image import PADDING


def pictures(count: int, height: int = 5, width: int = 7, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 200, (count, height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_places_every_pixel_exactly(channels: int) -> None:
    images = pictures(5, channels=channels)
    page = grid(images, columns=3, scale=2)
    assert page.mode == ("L" if channels == 1 else "RGB")
    expected = np.full((PADDING + 2 * (10 + PADDING), PADDING + 3 * (14 + PADDING), channels), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = PADDING + i // 3 * (10 + PADDING), PADDING + i % 3 * (14 + PADDING)
        expected[y : y + 10, x : x + 14] = image.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(np.asarray(page).reshape(expected.shape), expected)


def test_tiny_pictures_are_enlarged_and_large_ones_are_not() -> None:
    assert grid(pictures(1, 28, 28)).size == (84 + 2 * PADDING,) * 2
    assert grid(pictures(1, 8, 32)).size == (256 + 2 * PADDING, 64 + 2 * PADDING)
    assert grid(pictures(1, 64, 64)).size == (64 + 2 * PADDING,) * 2


def test_default_columns_make_a_square() -> None:
    side = 64 + PADDING
    assert grid(pictures(9, 64, 64)).size == (3 * side + PADDING, 3 * side + PADDING)
    assert grid(pictures(5, 64, 64)).size == (3 * side + PADDING, 2 * side + PADDING)


def test_labels_leave_the_pictures_exact_and_unhidden() -> None:
    images = pictures(4, 64, 64)
    plain = np.asarray(grid(images, 2))
    page = np.asarray(grid(images, 2, ["above", "below with words enough for two lines"], ["left", "right"]))
    inner = page[-plain.shape[0] + PADDING :, -plain.shape[1] + PADDING :]
    assert np.array_equal(inner, plain[PADDING:, PADDING:])
    top, left = page[: -plain.shape[0] + PADDING], page[:, : -plain.shape[1] + PADDING]
    for margin in (top[:, :-70], top[:, -70:], left[:80], left[-60:]):
        assert (margin < 128).sum() > 20  # there is ink


def test_labels_stand_beside_their_own_row_and_column() -> None:
    images = pictures(4, 64, 64)
    page = np.asarray(grid(images, 2, ["", "x"], ["", "x"]))
    top, left = page.shape[0] - 2 * (64 + PADDING), page.shape[1] - 2 * (64 + PADDING)
    rows, _ = np.nonzero(page[top:, :left] < 128)
    assert rows.min() >= 64 + PADDING
    _, columns = np.nonzero(page[:top, left:] < 128)
    assert columns.min() >= 64 + PADDING


def test_a_long_word_widens_its_column_and_hides_no_ink() -> None:
    page = np.asarray(grid(pictures(2, 64, 64), 2, column_labels=["W" * 30, "b"]))
    assert page.shape[1] > 600
    ink = np.nonzero((page[: -64 - PADDING] < 128).any(axis=0))[0]
    assert ink.min() >= PADDING and ink.max() < page.shape[1] - PADDING


def test_unicode_labels_are_drawn() -> None:
    assert np.asarray(grid(pictures(1), row_labels=["éß ñ 猫"], column_labels=["σ=0.5"])).min() < 128


def test_sheet_names_its_axes() -> None:
    images = pictures(6, 64, 64)
    page = sheet(images.reshape(2, 3, 64, 64, 1), ("steps", [4, 8, 16]), ("guidance", [1.0, 2.5]))
    same = grid(images, 3, ["guidance=1.0", "guidance=2.5"], ["steps=4", "steps=8", "steps=16"])
    assert page.tobytes() == same.tobytes()
    assert sheet(images[None], ("seed", range(6))).size == grid(images, 6, None, [f"seed={i}" for i in range(6)]).size


def test_mosaic() -> None:
    images = pictures(3, 2, 2)
    whole = mosaic(images, 2)
    assert np.array_equal(whole[:2], np.concatenate([images[0], images[1]], axis=1))
    assert np.array_equal(whole[2:, :2], images[2])
    assert (whole[2:, 2:] == 255).all()


def test_bad_arguments_are_named() -> None:
    images = pictures(4)
    with pytest.raises(ValueError, match="at least one picture"):
        grid(images[:0])
    with pytest.raises((ValueError, TypeCheckError), match="images"):
        grid(images[0])
    with pytest.raises(ValueError, match="3 row labels for 2 rows"):
        grid(images, 2, row_labels=["a", "b", "c"])
    with pytest.raises(ValueError, match="1 column labels for 2 columns"):
        grid(images, 2, column_labels=["a"])
    with pytest.raises(ValueError, match="at least 1"):
        grid(images, 0)
    with pytest.raises(ValueError, match="at least 1"):
        grid(images, 2, scale=0)
    with pytest.raises((ValueError, TypeCheckError), match="images"):
        sheet(images, ("steps", [1]))
