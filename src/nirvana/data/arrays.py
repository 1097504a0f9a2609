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
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from nirvana.data import cache
from nirvana.data.captions import texts
from nirvana.data.collection import fingerprint, stamp
from nirvana.data.dataset import (
    Captions,
    Dataset,
    FileEntry,
    Manifest,
    caption_digest,
    captioned,
    label_counts,
    pixel_digest,
)
from nirvana.data.decode import fit
from nirvana.data.idx import read_idx
from nirvana.data.pictures import Progress, default_size
from nirvana.errors import Refused

IMAGES, LABELS, NAMES, CAPTIONS = ("images", "x"), ("labels", "y"), ("names",), ("captions",)

_DAMAGED = (OSError, EOFError, ValueError, KeyError, MemoryError, zlib.error, zipfile.BadZipFile)
_ROWS = 256

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Arrays:
    """What a file of arrays holds: pictures as stored, their labels, class names and captions, and its files."""

    images: Array
    files: tuple[FileEntry, ...]
    labels: Array | None = None
    names: Array | None = None
    captions: Array | None = None


def open_arrays(
    path: Path,
    read: Callable[[Path], Arrays],
    source: str,
    size: int | None,
    cache_dir: Path | None,
    progress: Progress | None,
) -> Dataset:
    """The pictures that `read` finds, as squares in the cache. Refused: other shapes, types or values than above."""

    @contextlib.contextmanager
    def decoder() -> Generator[_Decoder]:
        yield _Decoder.make(read(path), source, size, progress)

    beside = [other for other in (path, labels_beside(path)) if other is not None]
    state = fingerprint([(other.name, stamp(other.stat())) for other in beside])
    return cache.obtain(("arrays", os.path.realpath(path)), size, state, source, decoder, cache_dir)


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
    """Arrays on the way into the cache."""

    source: str
    size: int
    native: int
    held: Arrays
    labels: Int64[np.ndarray, " n"] | None
    names: tuple[str, ...]
    captions: Captions | None
    progress: Progress | None

    @staticmethod
    def make(held: Arrays, source: str, size: int | None, progress: Progress | None) -> _Decoder:
        """Check shapes and types; decide the size."""
        images = held.images
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape:
            raise Refused(
                f"{source}: pictures of shape {images.shape}; give (n, h, w), (n, h, w, 1) or (n, h, w, 3), "
                "channels last (numpy.moveaxis(x, 1, -1))"
            )
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise Refused(
                f"{source}: pictures of type {images.dtype}; give unsigned bytes (uint8), or floats from 0 to 1"
            )
        if len(images) == 1:
            raise Refused(f"{source}: only one picture, which a model could only copy; at least 2 are needed")
        native = min(images.shape[1:3])
        labels, names = _classes(held, len(images), source)
        captions = _captions(held, len(images), source)
        return _Decoder(
            source, default_size(native) if size is None else size, native, held, labels, names, captions, progress
        )

    def fill(self, out: BinaryIO) -> int:
        """Write squares of RGB bytes. Refused: a value that is no number, or out of range."""
        images = self.held.images
        for start in range(0, len(images), _ROWS):
            for picture in _bytes(np.asarray(images[start : start + _ROWS]), start, self.source):
                out.write(np.asarray(fit(Image.fromarray(picture), self.size).convert("RGB")).tobytes())
            if self.progress is not None:
                self.progress(min(start + _ROWS, len(images)), len(images))
        return len(images)

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> cache.Described:
        """The manifest of what `fill` wrote."""
        manifest = Manifest(
            source=self.source,
            kind="arrays",
            size=self.size,
            channels=images.shape[3],
            pictures=len(images),
            names=self.names,
            counts=label_counts(self.labels, len(self.names)),
            files=self.held.files,
            pixels=pixel_digest(images),
            native_side=self.native,
            captioned=captioned(self.captions),
            captions=caption_digest(self.captions),
        )
        return cache.Described(manifest, self.labels, self.captions)


def _bytes(values: Array, start: int, source: str) -> UInt8[np.ndarray, "n h w *c"]:
    """Pictures `start` and following as bytes."""
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    flat = values.reshape(len(values), -1)
    finite = np.isfinite(flat).all(1)
    if not finite.all():
        raise Refused(
            f"{source}: picture {start + int(np.argmin(finite))} holds NaN or infinity; take it away or mend it"
        )
    inside = (flat.min(1) >= 0) & (flat.max(1) <= 1)
    if not inside.all():
        low, high = flat.min(), flat.max()
        way_out = "give (x + 1)/2" if low >= -1 and high <= 1 else "give x/255" if low >= 0 else "rescale it"
        worst = start + int(np.argmin(inside))
        raise Refused(
            f"{source}: picture {worst} has values from {low:g} to {high:g}, and floats are 0 to 1; {way_out}"
        )
    return np.round(values.astype(np.float64) * 255).astype(np.uint8)


def _classes(held: Arrays, n: int, source: str) -> tuple[Int64[np.ndarray, " n"] | None, tuple[str, ...]]:
    """The class of each picture and the names of the classes that occur."""
    if held.labels is None:
        return None, ()
    given = held.labels.reshape(-1) if held.labels.shape[1:] in ((), (1,)) else held.labels
    if given.shape != (n,) or given.dtype.kind not in "iuU":
        raise Refused(
            f"{source}: labels of shape {held.labels.shape} and type {given.dtype} for {n} pictures; "
            f"give {n} integers or texts"
        )
    values, labels = np.unique(given, return_inverse=True)
    names = tuple(str(value) for value in values)
    if held.names is not None and given.dtype.kind != "U":
        listed = [str(name) for name in held.names.reshape(-1)]
        if values[0] < 0 or values[-1] >= len(listed):
            raise Refused(f"{source}: labels from {values[0]} to {values[-1]} for {len(listed)} names; give all names")
        names = tuple(listed[int(value)] for value in values)
    return labels.astype(np.int64), names


def _captions(held: Arrays, n: int, source: str) -> Captions | None:
    """The captions of each picture."""
    given = held.captions
    if given is None:
        return None
    if given.ndim not in (1, 2) or len(given) != n or given.dtype.kind != "U":
        raise Refused(
            f"{source}: captions of shape {given.shape} and type {given.dtype}; give {n} texts, or rows of texts"
        )
    captions = tuple(texts(row.tolist()) for row in given)
    return captions if any(captions) else None
