"""The built-in sources `digits` and `fashion-mnist`."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Mapping
from importlib import resources
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from nirvana.data.dataset import Dataset, FileEntry, Manifest, label_counts, pixel_digest
from nirvana.data.decode import fit
from nirvana.errors import Refused, unknown

FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGIT_NAMES = tuple("0123456789")

BUILTINS: Mapping[str, tuple[str, ...]] = {"digits": ("test",), "fashion-mnist": ("subset", "subset-test", "test")}
"""Name of each built-in and the parts that can be asked for by `name:part`; the bare name is the training part."""

_SYSTEM_DATA = Path("/usr/share/datasets")
_DAMAGED = (OSError, EOFError, zlib.error, struct.error, ValueError)

Part = tuple[UInt8[np.ndarray, "n h w"], Int64[np.ndarray, "n"], str, tuple[FileEntry, ...]]


def open_builtin(name: str, part: str, size: int | None) -> Dataset:
    """The `part` of the built-in `name` ("" is the training part), resampled where `size` is not its own."""
    if part not in ("", *BUILTINS[name]):
        raise unknown(f"part of '{name}'", part, BUILTINS[name])
    pixels, labels, kind, files = _digits(part) if name == "digits" else _fashion(part)
    if size is not None and size != pixels.shape[1]:
        pixels = np.stack([np.asarray(fit(Image.fromarray(picture), size)) for picture in pixels])
    images = np.ascontiguousarray(pixels)[..., None]
    images.setflags(write=False)
    names = DIGIT_NAMES if name == "digits" else FASHION_NAMES
    manifest = Manifest(
        source=f"{name}:{part}" if part else name,
        kind=kind,
        size=images.shape[1],
        channels=1,
        pictures=len(images),
        names=names,
        counts=label_counts(labels, len(names)),
        files=files,
        pixels=pixel_digest(images),
    )
    return Dataset(images, labels, names, manifest)


def _sheet(name: str, tile: int) -> tuple[UInt8[np.ndarray, "n h w"], str, tuple[FileEntry, ...]]:
    """The tiles of an embedded sheet row by row, its text chunk "labels", and the entry for the manifest."""
    data = resources.files("nirvana.data").joinpath("embedded", name).read_bytes()
    with Image.open(BytesIO(data), formats=["PNG"]) as picture:
        sheet, text = np.asarray(picture), str(picture.info.get("labels", ""))
    rows, columns = sheet.shape[0] // tile, sheet.shape[1] // tile
    tiles = sheet.reshape(rows, tile, columns, tile).swapaxes(1, 2).reshape(rows * columns, tile, tile)
    return tiles, text, ({"path": name, "sha256": hashlib.sha256(data).hexdigest(), "label": None},)


def _digits(part: str) -> Part:
    """Every fifth of the 1797 digits is a test picture: 1438 to train and 359 to test."""
    tiles, text, files = _sheet("digits.png", 8)
    labels = np.array([int(character) for character in text], np.int64)
    held_out = np.arange(len(labels)) % 5 == 4
    chosen = held_out if part == "test" else ~held_out
    return tiles[: len(labels)][chosen], labels[chosen], "embedded", files


def _fashion(part: str) -> Part:
    """The full set where its four files are found and no subset is asked for, else the embedded one."""
    folder = None if part.startswith("subset") else _fashion_folder()
    test = part.endswith("test")
    if folder is not None:
        prefix = "t10k" if test else "train"
        images, image_file = _idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels, label_file = _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(FASHION_NAMES):
            raise Refused(f"{folder}: pictures and labels do not match; install the data set again")
        return images, labels.astype(np.int64), "full", (image_file, label_file)
    tiles, _, files = _sheet("fashion-mnist.png", 28)
    chosen = tiles[4000:] if test else tiles[:4000]
    labels = np.repeat(np.arange(10, dtype=np.int64), len(chosen) // 10)
    return chosen, labels, "embedded", files


def _fashion_folder() -> Path | None:
    """Where the four files of the full set lie: $NIRVANA_DATA/fashion-mnist, else the system package's place."""
    own = os.environ.get("NIRVANA_DATA")
    places = [Path(own).expanduser()] if own else []
    for place in (*places, _SYSTEM_DATA):
        folder = place / "fashion-mnist"
        parts = [(p, kind) for p in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        if all((folder / f"{p}-{kind}-ubyte.gz").is_file() for p, kind in parts):
            return folder
    return None


def _idx(path: Path, dimensions: int) -> tuple[UInt8[np.ndarray, "..."], FileEntry]:
    """The unsigned bytes of a gzipped IDX file (http://yann.lecun.com/exdb/mnist) and its entry for the manifest."""
    try:
        packed = path.read_bytes()
        data = gzip.decompress(packed)
        magic, *shape = struct.unpack_from(f">{1 + dimensions}I", data)
        if magic != 0x0800 + dimensions:
            raise ValueError("wrong magic number")
        values = np.frombuffer(data, np.uint8, offset=4 * (1 + dimensions)).reshape(shape)
    except _DAMAGED as error:
        raise Refused(f"{path}: no IDX file that can be read ({error}); install the data set again") from error
    return values, {"path": path.name, "sha256": hashlib.sha256(packed).hexdigest(), "label": None}
