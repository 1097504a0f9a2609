"""What every source of pictures becomes: an array of bytes, labels, and a manifest of all decisions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, cast

import numpy as np
from jaxtyping import Int64, UInt8

from nirvana.files import Json

BACKGROUND = (255, 255, 255)
"""The colour (red, green, blue) under transparent pictures: white."""

RULES = 2
"""Version of the rules by which files become pixels; a change gives every manifest another digest."""

Captions = tuple[tuple[str, ...], ...]
"""The captions of each picture; a picture may have several, or none."""

_BY_PICTURE = {"folder", "archive", "table"}
"""Kinds whose manifests have one file entry a picture."""


class FileEntry(TypedDict):
    """An accepted file: path inside the source, sha256 of its bytes, class name (None where there are no labels)."""

    path: str
    sha256: str
    label: str | None


class Rejection(TypedDict):
    """A file that is not used, and why."""

    path: str
    reason: str


class ManifestJson(TypedDict):
    """`Manifest` as JSON, the content of `data.json` in a run folder."""

    rules: int
    source: str
    kind: str
    size: int
    channels: int
    background: list[int]
    pictures: int
    names: list[str]
    counts: list[int]
    files: list[FileEntry]
    rejected: list[Rejection]
    left_out: list[Rejection]
    notes: list[str]
    native_side: int
    captioned: int
    captions: str
    pixels: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """Everything that was decided about a data set.

    `kind` is "folder", "archive" or "table" (parquet, hf:), whose `files` have one entry a picture; or "arrays",
    "full" (a built-in from its own files), "embedded" (a built-in from the pictures in the package) or "procedural",
    whose `files` have one entry a source file. `rejected` are unreadable files, `left_out` readable ones that were not
    used; each has its reason. `native_side` is the median of the shorter sides before resampling. `captioned` counts
    the pictures with a caption, `captions` is the `caption_digest` of all of them; `pixels` is the sha256 of the array
    of pictures.
    """

    source: str
    kind: str
    size: int
    channels: int
    pictures: int
    names: tuple[str, ...]
    counts: tuple[int, ...]
    files: tuple[FileEntry, ...]
    pixels: str
    native_side: int
    captioned: int = 0
    captions: str = ""
    rejected: tuple[Rejection, ...] = ()
    left_out: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 over all decisions and pixels; it does not depend on where the source lies."""
        decisions = self._json("")
        decisions["source"] = ""
        return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Json]:
        """The manifest as JSON (the fields of `ManifestJson`), with its digest."""
        return cast("dict[str, Json]", self._json(self.digest))

    def _json(self, digest: str) -> ManifestJson:
        return {
            "rules": RULES,
            "source": self.source,
            "kind": self.kind,
            "size": self.size,
            "channels": self.channels,
            "background": list(BACKGROUND),
            "pictures": self.pictures,
            "names": list(self.names),
            "counts": list(self.counts),
            "files": list(self.files),
            "rejected": list(self.rejected),
            "left_out": list(self.left_out),
            "notes": list(self.notes),
            "native_side": self.native_side,
            "captioned": self.captioned,
            "captions": self.captions,
            "pixels": self.pixels,
            "digest": digest,
        }


def named_by_picture(manifest: Manifest) -> bool:
    """Whether its `files` have one entry a picture."""
    return manifest.kind in _BY_PICTURE


def of_rows(manifest: Manifest, rows: Sequence[int]) -> tuple[FileEntry, ...]:
    """The `files` of a manifest where only these rows are left, in this order."""
    return tuple(manifest.files[row] for row in rows) if named_by_picture(manifest) else manifest.files


@dataclass(frozen=True, eq=False)
class Inputs:
    """Pictures that others are to be made of, in the order of those, and the manifest of where they come from."""

    images: UInt8[np.ndarray, "n h w c"]
    manifest: Manifest


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures in memory or mapped from the cache: `images` (read-only), `labels` (indices into `names`) or None.

    `captions` are those of each picture, None where no picture has one. `attributes` say of each picture of a built-in
    what is known of it beyond label and captions; None for other sources. `notices` are lines for the user about this
    opening (no cache could be written, …); they are no part of the manifest. `inputs` are what a model of pairs is
    shown of each picture (`nirvana.data.pairs`), None for a data set of single pictures.
    """

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    names: tuple[str, ...]
    manifest: Manifest
    captions: Captions | None = None
    attributes: Sequence[Mapping[str, Json]] | None = None
    notices: tuple[str, ...] = ()
    inputs: Inputs | None = None

    def __len__(self) -> int:
        return len(self.images)

    def files(self, indices: Iterable[int]) -> list[str]:
        """The file of each picture, for messages; without one, the source's name and the picture's number."""
        if named_by_picture(self.manifest):
            return [self.manifest.files[int(i)]["path"] for i in indices]
        return [f"{self.manifest.source}#{int(i)}" for i in indices]

    def without(self, rows: Iterable[int], left_out: tuple[Rejection, ...]) -> Dataset:
        """The data set less some rows, copied into memory. `left_out` says for the manifest why.

        ValueError: of pairs, which are made of what is left.
        """
        if self.inputs is not None:
            raise ValueError("rows are left out before pictures are paired")
        kept = np.setdiff1d(np.arange(len(self)), np.array([*rows], np.int64))
        labels, names = (None, ()) if self.labels is None else present(self.labels[kept], self.names)
        captions = None if self.captions is None else tuple(self.captions[i] for i in kept)
        attributes = None if self.attributes is None else [self.attributes[int(i)] for i in kept]
        images = self.images[kept]
        images.setflags(write=False)
        manifest = replace(
            self.manifest,
            pictures=len(kept),
            names=names,
            counts=label_counts(labels, len(names)),
            files=of_rows(self.manifest, kept.tolist()),
            pixels=pixel_digest(images),
            captioned=captioned(captions),
            captions=caption_digest(captions),
            left_out=(*self.manifest.left_out, *left_out),
        )
        return Dataset(images, labels, names, manifest, captions, attributes, self.notices)


def present(labels: Int64[np.ndarray, "n"], names: tuple[str, ...]) -> tuple[Int64[np.ndarray, "n"], tuple[str, ...]]:
    """The labels and the names without the classes that do not occur."""
    occur, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int64), tuple(names[i] for i in occur)


def pixel_digest(images: UInt8[np.ndarray, "n h w c"]) -> str:
    """sha256 of the shape and the bytes of an array of pictures."""
    state = hashlib.sha256(str(images.shape).encode())
    rows = max(1, (1 << 24) // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), rows):
        state.update(np.ascontiguousarray(images[start : start + rows]).data)
    return state.hexdigest()


def label_counts(labels: Int64[np.ndarray, "n"] | None, classes: int) -> tuple[int, ...]:
    """How many pictures each class has."""
    return () if labels is None else tuple(np.bincount(labels, minlength=classes).tolist())


def caption_digest(captions: Captions | None) -> str:
    """sha256 of all captions in order; "" where there are none."""
    return "" if captions is None else hashlib.sha256(json.dumps(captions).encode()).hexdigest()


def captioned(captions: Captions | None) -> int:
    """How many pictures have a caption."""
    return sum(1 for texts in captions or () if texts)
