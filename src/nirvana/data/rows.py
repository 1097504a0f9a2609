"""Rows of arrays as pictures: which shapes, types and values are pictures, labels and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from nirvana.data.captions import texts
from nirvana.data.dataset import Captions, FileEntry
from nirvana.data.decisions import sha256
from nirvana.errors import Refused

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Arrays:
    """What a file of arrays holds: pictures as stored, their labels, class names and captions, and its files."""

    images: Array
    files: tuple[FileEntry, ...]
    labels: Array | None = None
    names: Array | None = None
    captions: Array | None = None


def row_name(row: int) -> str:
    """The name of a picture that has no file."""
    return f"#{row}"


@dataclass(frozen=True)
class Rows:
    """Arrays whose shapes and types fit: pictures as stored, their labels and captions, the names of the labels."""

    images: Array
    labels: Int64[np.ndarray, " n"] | None
    names: tuple[str, ...]
    captions: Captions | None


def checked(held: Arrays, source: str) -> Rows:
    """The rows of arrays. Refused: shapes and types that pictures, labels or captions do not have."""
    images = held.images
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape:
        raise Refused(
            f"{source}: pictures of shape {images.shape}; give (n, h, w), (n, h, w, 1) or (n, h, w, 3), "
            "channels last (numpy.moveaxis(x, 1, -1))"
        )
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise Refused(f"{source}: pictures of type {images.dtype}; give unsigned bytes (uint8), or floats from 0 to 1")
    if len(images) == 1:
        raise Refused(f"{source}: only one picture, which a model could only copy; at least 2 are needed")
    labels, names = _classes(held, len(images), source)
    return Rows(images, labels, names, _captions(held, len(images), source))


def row_sha256(values: Array) -> str:
    """The hash of a picture as it is stored."""
    return sha256(np.ascontiguousarray(values).tobytes())


def to_bytes(values: Array) -> UInt8[np.ndarray, "n h w *c"]:
    """Pictures without problems as bytes."""
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    return np.round(values.astype(np.float64) * 255).astype(np.uint8)


def problems(values: Array) -> list[str]:
    """What keeps each picture from being one, with the way out; "" for most."""
    if values.dtype == np.uint8:
        return [""] * len(values)
    numbers = [bool(np.isfinite(picture).all()) for picture in values]
    edges = [(float(picture.min()), float(picture.max())) for picture in values]
    known = [edge for edge, is_number in zip(edges, numbers, strict=True) if is_number]
    low, high = min((low for low, _ in known), default=0.0), max((high for _, high in known), default=1.0)
    way_out = "give (x + 1)/2" if low >= -1 and high <= 1 else "give x/255" if low >= 0 else "rescale it"
    outside = f"has values from {low:g} to {high:g}, and floats are 0 to 1; {way_out}"
    nan = "holds NaN or infinity; take it away or mend it"
    fits = [least >= 0 and most <= 1 for least, most in edges]
    return ["" if fit else outside if number else nan for fit, number in zip(fits, numbers, strict=True)]


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
