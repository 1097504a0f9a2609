"""Arrays of pictures as a data set: `.npy`, `.npz` and IDX files.

Pictures are (n, h, w) or (n, h, w, channels) of 1 or 3 channels: unsigned bytes, or floats from 0 to 1, which become
round(255 x). A `.npz` holds them as `images` (or `x`, or as its only array), and may hold `labels` (or `y`: integers or
texts, one a picture), `names` (the class of each integer) and `captions` (texts, one or several a picture).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from nirvana.data import cache
from nirvana.data.collection import fingerprint, stamp
from nirvana.data.dataset import (
    Dataset,
    FileEntry,
    Manifest,
    Rejection,
    caption_digest,
    captioned,
    label_counts,
    pixel_digest,
    present,
)
from nirvana.data.decisions import Decisions
from nirvana.data.decode import fit
from nirvana.data.idx import read_idx
from nirvana.data.pictures import Progress, default_size
from nirvana.data.rows import Array, Arrays, Rows, checked, problems, row_name, row_sha256, to_bytes
from nirvana.errors import Refused

IMAGES, LABELS, NAMES, CAPTIONS = ("images", "x"), ("labels", "y"), ("names",), ("captions",)

_DAMAGED = (OSError, EOFError, ValueError, KeyError, MemoryError, zlib.error, zipfile.BadZipFile)
_ROWS = 256


def open_arrays(
    path: Path,
    read: Callable[[Path], Arrays],
    source: str,
    size: int | None,
    cache_dir: Path | None,
    progress: Progress | None,
    decisions: Decisions | None = None,
) -> Dataset:
    """The pictures that `read` finds, as squares in the cache. Refused: other shapes, types or values than above.

    With `decisions`, the pictures that they leave out are; refused where the others are not as they were.
    """

    @contextlib.contextmanager
    def decoder() -> Generator[_Decoder]:
        yield _Decoder.make(read(path), source, size, progress, decisions)

    beside = [other for other in (path, labels_beside(path)) if other is not None]
    state = fingerprint([(other.name, stamp(other.stat())) for other in beside])
    identity = ("arrays", os.path.realpath(path), *(() if decisions is None else ("decided", decisions.digest)))
    return cache.obtain(identity, size, state, source, decoder, cache_dir)


def read_npy(path: Path) -> Arrays:
    """The pictures of a `.npy` file, mapped."""
    with _explained(path):
        return Arrays(_plain(np.load(path, mmap_mode="r", allow_pickle=False), path, "images"), (_entry(path),))


def read_npz(path: Path) -> Arrays:
    """The arrays of a `.npz` file."""
    with _explained(path), path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        known = {name.casefold(): name for name in held.files}

        def take(wanted: tuple[str, ...]) -> Array | None:
            name = next((known[name] for name in wanted if name in known), None)
            return None if name is None else _plain(held[name], path, name)

        images = take(IMAGES)
        if images is None and len(known) == 1:
            images = take(tuple(known))
        if images is None:
            raise Refused(
                f"{path}: holds {', '.join(held.files) or 'nothing'}, and no '{IMAGES[0]}'; name the pictures so"
            )
        return Arrays(images, (_entry(path),), take(LABELS), take(NAMES), take(CAPTIONS))


def read_idx_pictures(path: Path) -> Arrays:
    """The pictures of an IDX file, and their labels where the file of the labels lies beside it."""
    way_out = "copy or download it again"
    images, entry = read_idx(path, way_out)
    beside = labels_beside(path)
    if beside is None:
        return Arrays(images, (entry,))
    labels, other = read_idx(beside, way_out)
    return Arrays(images, (entry, other), labels)


def labels_beside(path: Path) -> Path | None:
    """`train-labels-idx1-ubyte` for `train-images-idx3-ubyte`, gzipped or not, where it is there."""
    name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1").removesuffix(".gz")
    places = [path.with_name(name), path.with_name(f"{name}.gz")] if "idx" in name and name not in path.name else []
    return next((place for place in places if place.is_file()), None)


@contextlib.contextmanager
def _explained(path: Path) -> Generator[None]:
    try:
        yield
    except _DAMAGED as error:
        pickled = ": it holds objects, which only a pickle can read" if "allow_pickle" in str(error) else f" ({error})"
        raise Refused(f"{path}: no array that can be read{pickled}; save plain arrays with numpy.save") from error


def _plain(values: Array, path: Path, name: str) -> Array:
    if not isinstance(values, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Refused(f"{path}: '{name}' is no array; save plain arrays with numpy.save")
    return values


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return {"path": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest(), "label": None}


@dataclass
class _Decoder:
    """Arrays on the way into the cache: those of the rows that are `kept`."""

    source: str
    size: int
    files: tuple[FileEntry, ...]
    rows: Rows
    kept: Int64[np.ndarray, " m"]
    left_out: tuple[Rejection, ...]
    progress: Progress | None
    decisions: Decisions | None

    @staticmethod
    def make(
        held: Arrays, source: str, size: int | None, progress: Progress | None, decisions: Decisions | None
    ) -> _Decoder:
        """Check shapes and types; decide the size and what is kept."""
        rows = checked(held, source)
        named = [row_name(row) for row in range(len(rows.images))]
        left_out = () if decisions is None else decisions.left_out(named, source)
        absent = {item["path"] for item in left_out}
        kept = np.array([row for row, name in enumerate(named) if name not in absent], np.int64)
        if len(kept) < 2:
            raise Refused(f"{source}: the manifest leaves {len(kept)} pictures; at least 2 are needed")
        side = default_size(min(rows.images.shape[1:3])) if size is None else size
        return _Decoder(source, side, held.files, rows, kept, left_out, progress, decisions)

    def fill(self, out: BinaryIO) -> int:
        """Write squares of RGB bytes. Refused: a value that is no number or out of range, or another picture than the
        one decided about."""
        for start in range(0, len(self.kept), _ROWS):
            kept = self.kept[start : start + _ROWS]
            values = np.asarray(self.rows.images[kept])
            if self.decisions is not None:
                entries = zip(kept, values, strict=True)
                self.decisions.confirm((_row_entry(int(row), value) for row, value in entries), self.source)
            for picture in _bytes(values, kept, self.source):
                out.write(np.asarray(fit(Image.fromarray(picture), self.size).convert("RGB")).tobytes())
            if self.progress is not None:
                self.progress(min(start + _ROWS, len(self.kept)), len(self.kept))
        return len(self.kept)

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> cache.Described:
        """The manifest of what `fill` wrote."""
        labels, names = self.rows.labels, self.rows.names
        if labels is not None:
            labels, names = present(labels[self.kept], names)
        said = self.rows.captions
        captions = None if said is None else tuple(said[row] for row in self.kept)
        manifest = Manifest(
            source=self.source,
            kind="arrays",
            size=self.size,
            channels=images.shape[3],
            pictures=len(images),
            names=names,
            counts=label_counts(labels, len(names)),
            files=self.files,
            pixels=pixel_digest(images),
            native_side=min(self.rows.images.shape[1:3]),
            captioned=captioned(captions),
            captions=caption_digest(captions),
            left_out=self.left_out,
        )
        return cache.Described(manifest, labels, captions)


def _row_entry(row: int, values: Array) -> FileEntry:
    return {"path": row_name(row), "sha256": row_sha256(values), "label": None}


def _bytes(values: Array, rows: Int64[np.ndarray, " n"], source: str) -> UInt8[np.ndarray, "n h w *c"]:
    """The pictures of `rows` as bytes. Refused: the first that is none."""
    for row, problem in zip(rows, problems(values), strict=True):
        if problem:
            raise Refused(f"{source}: picture {row} {problem}")
    return to_bytes(values)
