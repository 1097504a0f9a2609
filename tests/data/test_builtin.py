"""The built-in sources."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nirvana.data import builtin, open_data
from nirvana.errors import Refused


@pytest.fixture(autouse=True)
def _no_system_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_SYSTEM_DATA", tmp_path / "none")
    monkeypatch.delenv("NIRVANA_DATA", raising=False)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


def full_set(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = np.arange(30) % 10
    for part, count in (("train", 30), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[:count])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels[:count])
    return images, labels


def test_digits_are_those_of_scikit_learn() -> None:
    # sha256 of load_digits().images * 255 / 16, rounded, and .target: every fifth from the fifth on is a test picture
    expected = {
        "digits": "9467ecafe0a0e1c05021187152230724e04a650e64304cd9920b19aafb2ff0f6",
        "digits:test": "69dc3e294e790286712c7a030e234b0f1f27110defb6faf7b465b6374e37550b",
    }
    for source, digest in expected.items():
        data = open_data(source)
        assert data.labels is not None
        assert hashlib.sha256(data.images.tobytes() + data.labels.astype("<i8").tobytes()).hexdigest() == digest
        assert data.names == tuple("0123456789")


def test_embedded_fashion_subset() -> None:
    train, test = open_data("fashion-mnist"), open_data("fashion-mnist:test")
    assert (train.images.shape, test.images.shape) == ((4000, 28, 28, 1), (1000, 28, 28, 1))
    assert train.manifest.kind == test.manifest.kind == "embedded"
    assert (train.manifest.counts, test.manifest.counts) == ((400,) * 10, (100,) * 10)
    assert train.names[0] == "t-shirt" and train.names[9] == "ankle boot"
    # digests of the pictures as the original files have them
    assert hashlib.sha256(train.images.tobytes()).hexdigest() == (
        "b69184138f80f1c95f89c980b62699491b298e341bf7c2310b22a0387185fbec"
    )
    assert hashlib.sha256(test.images.tobytes()).hexdigest() == (
        "87a8c47fe141ad7de61e1517e5478a1e5dfefafa9a8b3a34b8f39e1d92c4ad0d"
    )
    rows = {picture.tobytes() for picture in train.images}
    assert not any(picture.tobytes() in rows for picture in test.images)


def test_full_set_where_it_is_found_and_subset_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = full_set(tmp_path / "fashion-mnist")
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path))
    data = open_data("fashion-mnist")
    assert data.manifest.kind == "full"
    assert np.array_equal(data.images[..., 0], images)
    assert np.array_equal(data.labels, labels)
    assert data.labels is not None and data.labels.dtype == np.int64
    assert len(open_data("fashion-mnist:test")) == 10
    assert open_data("fashion-mnist:subset").manifest.kind == "embedded"
    assert len(open_data("fashion-mnist:subset-test")) == 1000
    assert data.files([3, 0]) == ["fashion-mnist#3", "fashion-mnist#0"]
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert open_data("fashion-mnist").manifest.kind == "embedded"


@pytest.mark.parametrize("damage", ["truncated", "no gzip", "wrong magic", "short", "labels"])
def test_damaged_full_set_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    images, _ = full_set(tmp_path / "fashion-mnist")
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path))
    path = tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no gzip":
        path.write_bytes(b"<html>")
    elif damage == "wrong magic":
        path.write_bytes(gzip.compress(struct.pack(">4I", 0x0903, *images.shape) + images.tobytes()))  # signed bytes
    elif damage == "short":
        write_idx(path, images[:29])
    else:
        write_idx(path.with_name("train-labels-idx1-ubyte.gz"), np.full(30, 10))
    with pytest.raises(Refused, match=r"fashion-mnist.*install the data set again"):
        open_data("fashion-mnist")


def test_size_resamples_and_pictures_are_read_only() -> None:
    small = open_data("digits", size=4)
    assert small.images.shape[1:] == (4, 4, 1)
    assert small.manifest.size == 4
    quarters = open_data("digits").images.reshape(-1, 4, 2, 4, 2).mean((2, 4))
    assert np.corrcoef(quarters.ravel(), small.images.ravel())[0, 1] > 0.98
    with pytest.raises(ValueError, match="read-only"):
        small.images[0] = 0


def test_digest_tells_parts_and_sizes_apart() -> None:
    sources = [("digits", None), ("digits:test", None), ("digits", 4), ("fashion-mnist", None)]
    digests = {open_data(source, size=size).manifest.digest for source, size in sources}
    assert len(digests) == 4
    assert open_data("digits").manifest.digest == open_data("digits", size=8).manifest.digest


def test_unknown_parts_name_the_nearest() -> None:
    with pytest.raises(Refused, match="did you mean 'test'"):
        open_data("digits:tset")


def test_no_torch() -> None:
    code = "import sys, nirvana.data, nirvana.modality; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
