"""Masks: white changes, and feathering stays inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.edit import feathered, read_mask, read_photo
from nirvana.errors import Refused


def saved(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def test_white_changes_grey_is_in_between_and_invert_turns_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.array([[0, 51, 255]], np.uint8))
    assert read_mask(read_photo(path), (1, 3)).tolist() == [[0, 0.2, 1]]
    assert read_mask(read_photo(path), (1, 3), invert=True).tolist() == [[1, 0.8, 0]]


def test_alpha_is_the_mask_where_it_is_all_there_is(tmp_path: Path) -> None:
    layers = np.zeros((1, 2, 4), np.uint8)
    layers[0, 1, 3] = 255
    assert read_mask(read_photo(saved(tmp_path / "a.png", layers)), (1, 2)).tolist() == [[0, 1]]
    layers[0, 0, :3] = 255
    assert read_mask(read_photo(saved(tmp_path / "b.png", layers)), (1, 2)).tolist() == [[1, 0]]


def test_another_size_is_refused_or_stretched_without_new_values(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.array([[0, 255]], np.uint8))
    with pytest.raises(Refused, match=r"is 2x1 pixels and the picture 6x2; add --fit"):
        read_mask(read_photo(path), (2, 6))
    assert read_mask(read_photo(path), (2, 6), fit=True).tolist() == [[0, 0, 0, 1, 1, 1]] * 2


def test_feathering_stays_inside_and_never_reaches_zero_there() -> None:
    rng = np.random.default_rng(1)
    for edge in (0, 1, 3, 9):
        mask = (rng.random((12, 15)) < 0.8) * rng.random((12, 15))
        soft = feathered(mask, edge)
        assert np.array_equal(soft > 0, mask > 0) and (soft <= mask).all()
    assert np.array_equal(feathered(mask, 0), mask)


def test_a_pixel_alone_keeps_a_share() -> None:
    mask = np.zeros((5, 5))
    mask[2, 2] = 1
    assert feathered(mask, 3)[2, 2] == 0.25 and feathered(mask, 3).sum() == 0.25


def test_the_edge_falls_off_by_the_distance_and_the_border_is_none() -> None:
    mask = np.zeros((9, 9))
    mask[:, 3:] = 1
    assert feathered(mask, 3)[0].tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert feathered(np.ones((4, 4)), 5).min() == 1
    with pytest.raises(ValueError, match="edge of -1 pixels"):
        feathered(mask, -1)


def test_a_soft_edge_wider_than_the_mask_takes_the_depth_of_the_mask() -> None:
    mask = np.zeros((9, 9))
    mask[2:7, 2:7] = 1
    assert feathered(mask, 99)[4].tolist() == [0, 0, 0.01, 0.02, 0.03, 0.02, 0.01, 0, 0]


def test_what_jpeg_leaves_of_black_and_white_is_black_and_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", np.array([[0, 7, 8, 247, 248, 255]], np.uint8))
    assert read_mask(read_photo(path), (1, 6)).tolist() == [[0, 0, 8 / 255, 247 / 255, 1, 1]]
