"""Two pictures in one form: nothing of either is lost but what the other has not the place for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nirvana.edit import Photo, alike, faded
from nirvana.errors import Refused

RNG = np.random.default_rng(5)


def values(*shape: int, deep: bool = False) -> np.ndarray:
    return RNG.integers(0, 65536 if deep else 256, shape).astype(np.uint16 if deep else np.uint8)


def test_what_one_has_both_get() -> None:
    grey, deep = Photo(values(4, 5, 1), profile=b"own"), Photo(values(4, 5, 3, deep=True), values(4, 5, deep=True))
    a, b = alike(grey, deep)
    assert np.array_equal(a.pixels, np.repeat(grey.pixels.astype(np.uint16) * 257, 3, axis=2))
    assert a.alpha is not None and a.alpha.dtype == np.uint16 and (a.alpha == 65535).all()
    assert np.array_equal(b.pixels, deep.pixels) and b.alpha is not None and deep.alpha is not None
    assert np.array_equal(b.alpha, deep.alpha) and a.profile is None and b.profile is None
    plain = alike(grey, grey)
    assert all(one.profile == b"own" and one.alpha is None and one.pixels.dtype == np.uint8 for one in plain)


def test_another_size_is_refused_or_covers_and_is_cropped_to_its_middle() -> None:
    first, wide = Photo(values(8, 8, 1)), values(8, 20, 3, deep=True)
    with pytest.raises(Refused, match="the second picture is 20x8 pixels and the first 8x8; add --fit"):
        alike(first, Photo(wide))
    assert np.array_equal(alike(first, Photo(wide), fit=True)[1].pixels, wide[:, 6:14])
    # As Pillow does it, in 8 bits.
    tall = values(40, 16, 3)
    found = alike(first, Photo(tall), fit=True)[1].pixels
    expected = np.asarray(Image.fromarray(tall).resize((8, 8), Image.Resampling.BICUBIC, (0, 12, 16, 28)))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_alpha_fades_from_the_one_to_the_other() -> None:
    a, b = (Photo(values(3, 3, 1), np.full((3, 3), level, np.uint8)) for level in (10, 110))
    for part, level in ((0.0, 10), (0.25, 35), (1.0, 110)):
        found = faded(a, b, part)
        assert found.alpha is not None and (found.alpha == level).all() and found.pixels is a.pixels
    assert faded(Photo(a.pixels), Photo(b.pixels), 0.5).alpha is None


def test_a_picture_is_seen_on_white() -> None:
    pixels, alpha = np.full((1, 3, 1), 40, np.uint8), np.array([[255, 0, 51]], np.uint8)
    assert Photo(pixels, alpha).seen[0, :, 0].tolist() == [40, 255, 212]
    assert np.array_equal(Photo(pixels.astype(np.uint16) * 257).seen, pixels)
