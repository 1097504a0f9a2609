"""The built-in sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana.data.dataset import Dataset, FileEntry
from nirvana.data.emoji import emoji
from nirvana.data.held import Held, embedded, held_dataset
from nirvana.data.idx import read_idx
from nirvana.data.shapes.source import open_shapes
from nirvana.errors import Refused, unknown

FASHION_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGIT_NAMES = tuple("0123456789")

BUILTINS: Mapping[str, tuple[str, ...]] = {
    "digits": ("test",),
    "fashion-mnist": ("subset", "subset-test", "test"),
    "emoji": ("test",),
    "shapes": ("train", "heldout"),
}
"""Name of each built-in and the parts that can be asked for by `name:part`; the bare name is the training part."""

_SYSTEM_DATA = Path("/usr/share/datasets")
_WAY_OUT = "install the data set again"


def open_builtin(
    name: str, part: str, size: int | None, cache_dir: Path | None, progress: Callable[[int, int], None] | None
) -> Dataset:
    """The `part` of the built-in `name` ("" is the training part), resampled where `size` is not its own."""
    if part not in ("", *BUILTINS[name]):
        raise unknown(f"part of '{name}'", part, BUILTINS[name])
    source = f"{name}:{part}" if part else name
    if name == "shapes":
        return open_shapes(part == "heldout", source, size, cache_dir, progress)
    return held_dataset(_HELD[name](part), source, size)


def _sheet(name: str, tile: int) -> tuple[UInt8[np.ndarray, "n h w"], str, tuple[FileEntry, ...]]:
    """The tiles of an embedded sheet row by row, its text chunk "labels", and the entry for the manifest."""
    data, entry = embedded(name)
    with Image.open(BytesIO(data), formats=["PNG"]) as picture:
        sheet, text = np.asarray(picture), str(picture.info.get("labels", ""))
    rows, columns = sheet.shape[0] // tile, sheet.shape[1] // tile
    return sheet.reshape(rows, tile, columns, tile).swapaxes(1, 2).reshape(rows * columns, tile, tile), text, (entry,)


def _digits(part: str) -> Held:
    """Every fifth of the 1797 digits is a test picture: 1438 to train and 359 to test."""
    tiles, text, files = _sheet("digits.png", 8)
    labels = np.array([int(character) for character in text], np.int64)
    held_out = np.arange(len(labels)) % 5 == 4
    chosen = held_out if part == "test" else ~held_out
    return Held(tiles[: len(labels)][chosen], labels[chosen], DIGIT_NAMES, "embedded", files)


def _fashion(part: str) -> Held:
    """The full set where its four files are found and no subset is asked for, else the embedded one."""
    folder = None if part.startswith("subset") else _fashion_folder()
    test = part.endswith("test")
    if folder is not None:
        prefix = "t10k" if test else "train"
        images, image_file = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", _WAY_OUT)
        labels, label_file = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", _WAY_OUT)
        fits = images.ndim == 3 and labels.shape == images.shape[:1] and labels.max(initial=0) < len(FASHION_NAMES)
        if not fits:
            raise Refused(f"{folder}: pictures and labels do not match; {_WAY_OUT}")
        return Held(images, labels.astype(np.int64), FASHION_NAMES, "full", (image_file, label_file))
    tiles, _, files = _sheet("fashion-mnist.png", 28)
    chosen = tiles[4000:] if test else tiles[:4000]
    labels = np.repeat(np.arange(10, dtype=np.int64), len(chosen) // 10)
    return Held(chosen, labels, FASHION_NAMES, "embedded", files)


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


_HELD: Mapping[str, Callable[[str], Held]] = {"digits": _digits, "fashion-mnist": _fashion, "emoji": emoji}
