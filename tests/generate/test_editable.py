"""The edits of a model: pictures of any form give the same, and a request says where they came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Unchecked
from nirvana.errors import Refused
from nirvana.generate.changes import check_extent
from nirvana.generate.edits import Edited, as_photo
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from tiny_families import make_run as make_latent_run
from tiny_run import make_run

Call = Callable[[Model, Any, Any], Edited]

CALLS: dict[str, Call] = {
    "inpaint": lambda model, a, b: model.inpaint(a, b, "cat", n=2, method="ddnm", invert=True),
    "outpaint": lambda model, a, b: model.outpaint(a, "cat", left=2, bottom=1),
    "vary": lambda model, a, b: model.vary(a, "cat", strength=0.5, seed=3),
    "blend": lambda model, a, b: model.blend(a, b, source=("cat", "dog"), n=2, steps=2),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("runs") / "run"), device="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng, paths = np.random.default_rng(2), [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 9), dtype=np.uint8)).save(path)
    return paths


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


@pytest.mark.parametrize("call", CALLS)
def test_a_path_a_picture_and_an_array_give_the_same(call: str, model: Model, pictures: list[Path]) -> None:
    files = CALLS[call](model, *pictures)
    images = CALLS[call](model, *map(opened, pictures))
    arrays = CALLS[call](model, np.asarray(opened(pictures[0])), np.asarray(opened(pictures[1]))[..., None])
    for other in (images, arrays):
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(files, other, strict=True))
    for result, path in ((files, str(pictures[0])), (arrays, None)):
        change = result.request.edit
        assert change is not None and change.picture.path == path
    assert files.pil[0].size == files[0].size[::-1] and len(files.array) == len(files)


def test_sixteen_bits_stay_sixteen_bits(model: Model) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (8, 9, 3)).astype(np.uint16)
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 3:7] = 255
    found = model.inpaint(deep, mask, "dog", method="ddnm")[0].pixels
    assert found.dtype == np.uint16 and np.array_equal(found[mask == 0], deep[mask == 0])
    assert (found[mask > 0] != deep[mask > 0]).any()


def test_what_came_from_memory_is_not_reproduced_and_says_why(
    model: Model, pictures: list[Path], tmp_path: Path
) -> None:
    for second, gone in ((np.asarray(opened(pictures[1])), "came from memory"), (pictures[1], None)):
        file = model.blend(pictures[0], second, n=2, steps=2).save(tmp_path / f"{gone}")[1]
        if gone is None:
            assert reproduce(file).same_bytes
            continue
        with pytest.raises(Refused, match=gone):
            reproduce(file)


def test_what_is_of_another_type_is_refused(unchecked: Unchecked) -> None:
    for to in ("50x50", (50,), (50, "x")):
        with pytest.raises(Refused, match=r"a size is|the size to extend to must be"):
            unchecked(check_extent, (0, 0, 0, 0), to)
    for picture in (b"x", 7):
        with pytest.raises(Refused, match="is no picture; give a path"):
            unchecked(as_photo, picture)


def test_what_cannot_be_is_refused(model: Model, pictures: list[Path], tmp_path: Path) -> None:
    a, b = pictures
    with pytest.raises(Refused, match="say how far the picture grows"):
        model.outpaint(a)
    with pytest.raises(Refused, match="say how far the picture grows"):
        model.outpaint(a, left=3, to=(20, 20))
    with pytest.raises(Refused, match="the size to extend to must be at least 1, got 0"):
        model.outpaint(a, to=(0, 20))
    with pytest.raises(Refused, match="would be 60000x60000, more than 134217728 pixels; extend it by less"):
        model.outpaint(a, to=(60000, 60000))
    with pytest.raises(Refused, match="is no picture"):
        model.blend(a, np.zeros((8, 9), np.float32))
    with pytest.raises(Refused, match="at most 1"):
        model.vary(a, strength=1.5)
    latent = load(make_latent_run(tmp_path / "vae", "vae"), device="cpu")
    with pytest.raises(Refused, match="is a VAE, which has no pictures to edit"):
        latent.blend(a, b)
