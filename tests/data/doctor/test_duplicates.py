"""Near duplicates on real pictures: changed copies are found, distinct pictures are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import measure_duplicates as measure
from nirvana.data.doctor import alignment, duplicates
from nirvana.data.doctor.duplicates import near_duplicates

from .planted import picture

CASES = ("JPEG quality 60", "crop of 2%", "half the size", "0.7 of the size", "twice the size")


@pytest.fixture(scope="module", params=["emoji", "fashion-mnist:subset-test"])
def real(request: pytest.FixtureRequest) -> measure.Pictures:
    return measure.built_in(request.param, 1500)


def test_changed_copies_are_found(real: measure.Pictures) -> None:
    found = measure.recalls(real.images, 100)
    assert {name: found[name] for name in CASES if found[name] < 0.95} == {}


def test_distinct_pictures_are_no_pairs(real: measure.Pictures) -> None:
    pairs = near_duplicates(*measure.copies_of(real.images))
    false = [(i, j) for i, j in pairs if real.families[i] != real.families[j]]
    assert len(false) <= len(real.images) / 1000


def test_who_stands_for_whom() -> None:
    one, other = measure.built_in("emoji", 60).images[:2]
    copies, sides = measure.copies_of([one, other, one, measure.jpeg(other, 60), one])
    assert near_duplicates(copies, sides).tolist() == [[0, 2], [0, 4], [1, 3]]
    # The first of a set that is held against always stands for itself.
    assert near_duplicates(copies, sides, fixed=3).tolist() == [[0, 2], [0, 4], [1, 3]]


def test_brightness_mirror_and_flat_pictures_make_no_pair() -> None:
    upright = np.asarray(picture(0)).astype(np.int64)
    darker, flat = np.clip(upright - 40, 0, 255), np.full_like(upright, 99)
    images = [Image.fromarray(a.astype(np.uint8)) for a in (upright, upright[:, ::-1], darker, flat, flat)]
    assert near_duplicates(*measure.copies_of(images)).tolist() == []
    assert near_duplicates(*measure.copies_of([images[0]])).tolist() == []


def test_many_copies_of_one_picture_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def counted(copies: np.ndarray, sides: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        looked.append(len(first))
        return alignment.same(copies, sides, first, second)

    monkeypatch.setattr(duplicates, "same", counted)
    copies, sides = measure.copies_of([picture(0)] * 200)
    assert near_duplicates(copies, sides).tolist() == [[0, j] for j in range(1, 200)]
    assert sum(looked) < 32 * 200
