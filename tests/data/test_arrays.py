"""Arrays of pictures: .npy, .npz and IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from nirvana.data import Dataset, open_data
from nirvana.errors import Refused

N = 300
GREY = np.random.default_rng(0).integers(0, 256, (N, 8, 8), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)


def opened(path: Path, **options: object) -> Dataset:
    return open_data(str(path), cache_dir=path.parent / "cache", **options)


def save(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (GREY, GREY[..., None]),
        (GREY[..., None], GREY[..., None]),
        (COLOUR, COLOUR),
        (np.repeat(GREY[..., None], 3, 3), GREY[..., None]),
        (COLOUR / 255, COLOUR),
        ((GREY / 255).astype(np.float32), GREY[..., None]),
        (np.asfortranarray(COLOUR), COLOUR),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_bytes_and_floats(tmp_path: Path, stored: np.ndarray, expected: np.ndarray, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "npy":
        np.save(path, stored)
    else:
        save(path, images=stored)
    steps: list[tuple[int, int]] = []
    data = opened(path, progress=lambda done, total: steps.append((done, total)))
    assert np.array_equal(data.images, expected)
    assert data.labels is None and data.captions is None
    assert (data.manifest.kind, data.manifest.native_side) == ("arrays", 8)
    assert steps[-1] == (N, N)
    again = opened(path, progress=lambda *_: pytest.fail("decoded again"))
    assert again.manifest == data.manifest
    assert isinstance(again.images, np.memmap)
    assert data.files([7]) == [f"{path}#7"]


def test_floats_are_rounded_and_pictures_are_cut_square_and_resampled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 4, 4), 0.5019))
    assert opened(tmp_path / "a.npy").images.max() == 128
    wide = np.zeros((2, 4, 8), np.uint8)
    wide[:, :, 2:6] = 200
    np.save(tmp_path / "b.npy", wide)
    data = opened(tmp_path / "b.npy")
    assert data.images.shape == (2, 4, 4, 1) and data.images.min() == 200
    assert opened(tmp_path / "b.npy", size=9).images.shape == (2, 9, 9, 1)
    np.save(tmp_path / "c.npy", np.zeros((2, 80, 70), np.uint8))
    large = opened(tmp_path / "c.npy")
    assert (large.manifest.size, large.manifest.native_side) == (64, 70)


def test_labels_names_and_captions(tmp_path: Path) -> None:
    kind = np.arange(N) % 3
    names = np.array(["x", "cat", "dog", "ant"])
    texts = np.array([f"number {i}" for i in range(N)])
    data = opened(save(tmp_path / "a.npz", X=COLOUR, Y=(kind + 1)[:, None], names=names, captions=texts))
    assert data.labels is not None
    assert [data.names[label] for label in data.labels] == names[kind + 1].tolist()
    assert data.names == ("cat", "dog", "ant") and data.manifest.counts == (100, 100, 100)
    assert data.captions == tuple((text,) for text in texts.tolist())
    again = opened(tmp_path / "a.npz")
    assert again.labels is not None
    assert (again.captions, again.labels.tolist()) == (data.captions, data.labels.tolist())
    pairs = np.stack([texts, np.where(kind == 0, "", "two")], 1)
    named = opened(save(tmp_path / "b.npz", images=COLOUR, labels=names[kind], captions=pairs))
    assert named.names == ("cat", "dog", "x")
    assert named.captions is not None
    assert named.captions[:2] == (("number 0",), ("number 1", "two"))
    numbered = opened(save(tmp_path / "c.npz", images=COLOUR, labels=kind * 5 - 1))
    assert numbered.names == ("-1", "4", "9")


def test_labels_and_captions_change_the_digest(tmp_path: Path) -> None:
    digests = [
        opened(save(tmp_path / f"{i}.npz", images=GREY, **more)).manifest.digest
        for i, more in enumerate([{}, {"labels": np.arange(N) % 2}, {"captions": np.full(N, "a")}])
    ]
    assert len(set(digests)) == 3


BAD = np.zeros((300, 4, 4))
BAD[280, 1, 2] = np.nan
HIGH = np.zeros((300, 4, 4, 1))
HIGH[299] = 254.5
LOW = np.zeros((4, 4, 4), np.float32)
LOW[2] = -1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": BAD}, r"picture 280 holds NaN or infinity"),
        ({"images": HIGH}, r"picture 299 has values from 0 to 254\.5, and floats are 0 to 1; give x/255"),
        ({"images": LOW}, r"picture 2 has values from -1 to 0, .*; give \(x \+ 1\)/2"),
        ({"images": 9 * LOW}, r"rescale it"),
        ({"images": COLOUR.transpose(0, 3, 1, 2)}, r"shape \(300, 3, 8, 8\).*channels last"),
        ({"images": COLOUR[..., :2]}, r"shape \(300, 8, 8, 2\)"),
        ({"images": GREY[0]}, r"shape \(8, 8\)"),
        ({"images": GREY[:0]}, r"shape \(0, 8, 8\)"),
        ({"images": GREY[:1]}, r"only one picture"),
        ({"images": GREY.astype(np.int32)}, r"type int32; give unsigned bytes"),
        ({"images": GREY > 3}, r"type bool"),
        ({"images": GREY.astype(object)}, r"holds objects, which only a pickle can read"),
        ({"images": GREY, "labels": np.arange(5)}, r"labels of shape \(5,\) .* for 300 pictures"),
        ({"images": GREY, "labels": np.zeros(N)}, r"type float64 .* give 300 integers or texts"),
        ({"images": GREY, "labels": np.arange(N), "names": np.array(["a"])}, r"labels from 0 to 299 for 1 names"),
        ({"images": GREY, "captions": np.array(["a"])}, r"captions of shape \(1,\)"),
        ({"images": GREY, "captions": np.arange(N)}, r"captions of shape \(300,\) and type int64"),
        ({"pixels": GREY, "other": GREY}, r"holds pixels, other, and no 'images'"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        opened(save(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_damaged_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    np.save(path, COLOUR) if ending == "npy" else save(path, images=COLOUR)
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], data[:20]):
        path.write_bytes(damaged)
        with pytest.raises(Refused, match=r"no array that can be read \(.*; save plain arrays") as refused:
            opened(path)
        assert "\n" not in str(refused.value)


def test_several_arrays_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", GREY)
    with pytest.raises(Refused, match="2 files of arrays; give one of them"):
        opened(tmp_path / "*.npy")
    save(tmp_path / "c.npz", images=GREY)
    with pytest.raises(Refused, match=r"c\.npz: of another kind than .*a\.npy"):
        opened(tmp_path / "*.np?")


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_with_and_without_labels(tmp_path: Path, ending: str) -> None:
    pack = gzip.compress if ending else bytes
    images, labels = tmp_path / f"my-images-idx3-ubyte{ending}", tmp_path / f"my-labels-idx1-ubyte{ending}"
    images.write_bytes(pack(idx(GREY)))
    data = opened(images)
    assert np.array_equal(data.images[..., 0], GREY) and data.labels is None
    labels.write_bytes(pack(idx((np.arange(N) % 4).astype(np.uint8))))
    data = opened(images)
    assert data.labels is not None and data.labels.tolist() == [i % 4 for i in range(N)]
    assert [entry["path"] for entry in data.manifest.files] == [images.name, labels.name]
    images.write_bytes(pack(idx(COLOUR)))
    assert np.array_equal(opened(images).images, COLOUR)
    labels.write_bytes(pack(idx(np.zeros(3, np.uint8))))
    with pytest.raises(Refused, match=r"labels of shape \(3,\)"):
        opened(images)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(GREY)[:-1], "less than the 19200 bytes it states"),
        (idx(GREY) + b"x", "more than the 19200 bytes"),
        (gzip.compress(idx(GREY), mtime=0)[:-200], "no IDX file that can be read"),
        (gzip.compress(idx(GREY)[:-1], mtime=0), "less than"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x", "less than|no IDX file"),
        (gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 1) + b"x", mtime=0), "no IDX file"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(Refused, match=message):
        opened(path)
