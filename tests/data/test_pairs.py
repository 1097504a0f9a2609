"""Pairs of pictures: which belong together, what has no partner, and what cannot be paired."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.data import Dataset, open_pairs
from nirvana.errors import Refused

RNG = np.random.default_rng(0)


def put(folder: Path, name: str, value: int, size: tuple[int, int] = (8, 8), colour: bool = False) -> None:
    """A picture with a brightness of its own, so that partners can be told."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = RNG.integers(0, 8, size[::-1], dtype=np.uint8) + np.uint8(value)
    pixels = np.stack([noise, noise // 2, noise // 3], -1) if colour else noise
    Image.fromarray(pixels).save(path)


def opened(tmp_path: Path, **options: object) -> Dataset:
    cache = tmp_path / "cache"
    return open_pairs(str(tmp_path / "in"), str(tmp_path / "out"), cache_dir=cache, **options)  # type: ignore[arg-type]


def values(images: np.ndarray) -> list[int]:
    return [int(image[..., 0].min()) // 8 for image in images]


def test_pairs_have_one_name_whatever_the_suffix_and_the_order(tmp_path: Path) -> None:
    for i, name in enumerate(["b/10.png", "b/9.png", "a.x.png", "c.png"]):
        put(tmp_path / "in", name, 8 * i)
        put(tmp_path / "out", name.replace("c.png", "c.bmp").replace("a.x.png", "a.x.tif"), 8 * i + 64, colour=True)
    data = opened(tmp_path)
    assert data.inputs is not None
    assert (data.images.shape, data.inputs.images.shape) == ((4, 8, 8, 3), (4, 8, 8, 1))
    assert [value - 8 for value in values(data.images)] == values(data.inputs.images)
    assert data.files(range(4)) == ["a.x.tif", "b/9.png", "b/10.png", "c.bmp"]
    assert [file["path"] for file in data.inputs.manifest.files] == ["a.x.png", "b/9.png", "b/10.png", "c.png"]
    assert data.manifest.notes == ()


def test_partners_stay_together_where_suffixes_order_them_otherwise(tmp_path: Path) -> None:
    for i, (shown, wanted) in enumerate([("a.png", "a.tif"), ("a.q.png", "a.q.png")]):
        put(tmp_path / "in", shown, 8 * i)
        put(tmp_path / "out", wanted, 8 * i)
    data = opened(tmp_path)
    assert data.inputs is not None
    assert data.files(range(2)) == ["a.q.png", "a.tif"]
    assert values(data.images) == values(data.inputs.images) == [1, 0]
    assert [file["path"] for file in data.inputs.manifest.files] == ["a.q.png", "a.png"]


def test_what_has_no_partner_is_left_out_counted_and_listed_on_both_sides(tmp_path: Path) -> None:
    for i, name in enumerate("abcde"):
        put(tmp_path / "in", f"{name}.png", 8 * i)
        put(tmp_path / "out", f"{chr(ord(name) + 2)}.png", 8 * i + 16)
    data = opened(tmp_path)
    assert data.inputs is not None
    assert values(data.images) == values(data.inputs.images) == [2, 3, 4]
    assert data.files(range(3)) == ["c.png", "d.png", "e.png"]
    assert [item["path"] for item in data.manifest.left_out] == ["f.png", "g.png"]
    assert [item["path"] for item in data.inputs.manifest.left_out] == ["a.png", "b.png"]
    wanted, shown = data.manifest.notes
    assert wanted.startswith("2 of 5 pictures in") and "first: f.png" in wanted
    assert shown.startswith("2 of 5 pictures in") and "first: a.png" in shown


def test_an_input_that_changes_changes_the_manifest(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "in", f"{i}.png", 8 * i)
        put(tmp_path / "out", f"{i}.png", 8 * i)
    before = opened(tmp_path)
    put(tmp_path / "in", "1.png", 80)
    after = opened(tmp_path)
    assert before.inputs is not None and after.inputs is not None
    assert before.manifest.digest == after.manifest.digest
    assert before.inputs.manifest.digest != after.inputs.manifest.digest


def test_both_are_cut_and_scaled_alike_at_the_size_of_the_target(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "out", f"{i}.png", 90, (13, 10))
        whole = Image.open(tmp_path / "out" / f"{i}.png")
        (tmp_path / "in").mkdir(exist_ok=True)
        whole.resize((26, 20), Image.Resampling.NEAREST).save(tmp_path / "in" / f"{i}.png")
    data = opened(tmp_path)
    assert data.inputs is not None
    assert data.images.shape == data.inputs.images.shape == (2, 10, 10, 1)
    assert np.abs(data.images.astype(int) - data.inputs.images).max() <= 4
    assert opened(tmp_path, size=5).inputs.images.shape == (2, 5, 5, 1)  # type: ignore[union-attr]


def test_a_pair_of_two_shapes_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        put(tmp_path / "in", f"{i}.png", 0, (16, 16))
        put(tmp_path / "out", f"{i}.png", 0, (16, 16 - 4 * i))
    with pytest.raises(Refused, match=r"1\.png is 16x16 and its partner .*1\.png 16x12; .*crop one of them"):
        opened(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder, names in (("in", ("a.png", "a.bmp", "b.png")), ("out", ("a.png", "b.png"))):
        for name in names:
            put(tmp_path / folder, name, 0)
    with pytest.raises(Refused, match=r"in: a\.bmp and a\.png have one name"):
        opened(tmp_path)


def test_no_pairs_is_refused_with_the_first_name_of_each(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / "in", f"drawing-{i}.png", 0)
        put(tmp_path / "out", f"{i}.png", 0)
    with pytest.raises(Refused, match=r"0 of 3 pictures in .*first of each: drawing-0\.png, 0\.png.*same name"):
        opened(tmp_path)


def test_arrays_are_paired_by_row(tmp_path: Path) -> None:
    shown, wanted = (RNG.integers(0, 256, (5, 8, 8, c), dtype=np.uint8) for c in (1, 3))
    np.save(tmp_path / "in.npy", shown)
    np.savez(tmp_path / "out.npz", images=wanted, labels=np.array([0, 1, 0, 1, 0]))
    data = open_pairs(str(tmp_path / "in.npy"), str(tmp_path / "out.npz"), cache_dir=tmp_path / "cache")
    assert data.inputs is not None and data.labels is not None
    assert np.array_equal(data.inputs.images, shown) and np.array_equal(data.images, wanted)
    np.save(tmp_path / "in.npy", shown[:4])
    with pytest.raises(Refused, match=r"in\.npy has 4 pictures and .*out\.npz 5; arrays are paired by their rows"):
        open_pairs(str(tmp_path / "in.npy"), str(tmp_path / "out.npz"), cache_dir=tmp_path / "cache")
    put(tmp_path / "folder", "0.png", 0)
    put(tmp_path / "folder", "1.png", 0)
    with pytest.raises(Refused, match="paired by name and arrays by row"):
        open_pairs(str(tmp_path / "folder"), str(tmp_path / "out.npz"), cache_dir=tmp_path / "cache")
