"""A collection of encoded pictures, with what is said of them, as a data set."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from nirvana.data import cache
from nirvana.data.captions import some
from nirvana.data.collection import Collection, Found, Words
from nirvana.data.dataset import (
    Captions,
    Dataset,
    FileEntry,
    Manifest,
    Rejection,
    caption_digest,
    captioned,
    label_counts,
    pixel_digest,
)
from nirvana.data.decisions import Decisions
from nirvana.data.decode import decode, reason
from nirvana.data.parallel import parallel
from nirvana.data.scan import natural
from nirvana.data.survey import Survey, quiet, survey
from nirvana.errors import Refused

KEEP_UP_TO = 32
DEFAULT_SIZE = 64
BAD_SHARE = 5
BAD_COUNT = 10
"""Refused when more than one file in `BAD_SHARE` and at least `BAD_COUNT` files are unreadable."""

Progress = Callable[[int, int], None]


def open_pictures(
    collection: Collection,
    source: str,
    size: int | None,
    allow_bad: bool,
    cache_dir: Path | None,
    progress: Progress | None,
    decisions: Decisions | None = None,
) -> Dataset:
    """The pictures of a collection, decoded once and then mapped from the cache.

    A file is a picture when its content is one, whatever its name. Of the others, those whose names end like a
    picture's are rejected as unreadable, and the rest is ignored. `size` None: `default_size` of the median of the
    shorter sides. With `decisions`, the pictures that they leave out are; refused where the others have changed.
    """

    @contextlib.contextmanager
    def decoder() -> Generator[_Plan]:
        with collection.files() as listing:
            found = survey(listing, collection.kind, source, decisions)
            yield _Plan.make(found, collection.kind, source, size, progress, decisions)

    identity = (collection.kind, *collection.identity, *(() if decisions is None else ("decided", decisions.digest)))
    data = cache.obtain(identity, size, collection.fingerprint, source, decoder, cache_dir)
    _check(data.manifest, allow_bad or decisions is not None)
    return data


def default_size(native: int) -> int:
    """The side of training pictures whose own is `native`: that, up to `KEEP_UP_TO`, else `DEFAULT_SIZE`."""
    return native if native <= KEEP_UP_TO else DEFAULT_SIZE


def _check(manifest: Manifest, allow_bad: bool) -> None:
    """Refuse a source that is too damaged, or too small, to train on."""
    bad, good, source = len(manifest.rejected), manifest.pictures, manifest.source
    first = f"{manifest.rejected[0]['path']}: {manifest.rejected[0]['reason']}" if bad else ""
    if good == 0:
        found = f"{bad} unreadable, first {first}" if bad else "PNG, JPEG, WebP, GIF, TIFF, BMP and others are read"
        raise Refused(f"{source}: no readable picture ({found}); give a source that holds pictures")
    if good == 1:
        raise Refused(f"{source}: only one readable picture, which a model could only copy; at least 2 are needed")
    if bad >= BAD_COUNT and bad * BAD_SHARE > bad + good and not allow_bad:
        raise Refused(
            f"{source}: {bad} of {bad + good} pictures are unreadable (first {first}); mend them, or use --allow-bad"
        )


@dataclass
class _Plan:
    """How one collection is decoded: what was found in it, and the size."""

    source: str
    kind: str
    found: Survey
    files: tuple[Found, ...]
    size: int
    native: int
    progress: Progress | None
    decisions: Decisions | None
    accepted: list[FileEntry] = field(default_factory=list[FileEntry])
    unreadable: list[Rejection] = field(default_factory=list[Rejection])

    @staticmethod
    def make(
        found: Survey,
        kind: str,
        source: str,
        size: int | None,
        progress: Progress | None,
        decisions: Decisions | None,
    ) -> _Plan:
        """Decide the size."""
        files = found.used
        native = statistics.median_low([min(found.headers[file.name]) for file in files] or [DEFAULT_SIZE])
        side = default_size(native) if size is None else size
        return _Plan(source, kind, found, files, side, native, progress, decisions)

    def fill(self, out: BinaryIO) -> int:
        """Decode every file and write those that can be read, in order; returns how many."""
        self.accepted, self.unreadable = [], []
        with quiet():
            for done, (file, result) in enumerate(zip(self.files, parallel(self._read, self.files), strict=True), 1):
                if isinstance(result, str):
                    self.unreadable.append({"path": file.name, "reason": result})
                else:
                    digest, pixels = result
                    entry: FileEntry = {
                        "path": file.name,
                        "sha256": digest,
                        "label": self.found.labelling.labels[file.name],
                    }
                    self.accepted.append(entry)
                    out.write(pixels.tobytes())
                if self.progress is not None:
                    self.progress(done, len(self.files))
        return len(self.accepted)

    def _read(self, file: Found) -> tuple[str, UInt8[np.ndarray, "size size 3"]] | str:
        """The digest of a file's bytes and its pixels, or why it cannot be read."""
        try:
            data = file.read()
            pixels = decode(data, self.size)
        except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
            return reason(error)
        return hashlib.sha256(data).hexdigest(), pixels

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> cache.Described:
        """The manifest and the captions of what `fill` wrote. Refused: another picture than the one decided about."""
        if self.decisions is not None:
            self.decisions.confirm(self.accepted, self.source)
        names = tuple(sorted({entry["label"] for entry in self.accepted if entry["label"] is not None}, key=natural))
        number = {name: i for i, name in enumerate(names)}
        labels = np.array([number[entry["label"] or ""] for entry in self.accepted], np.int64) if names else None
        rejected = sorted([*self.found.rejected, *self.unreadable], key=lambda item: natural(item["path"]))
        said = tuple(self.found.words.get(entry["path"], Words()).captions for entry in self.accepted)
        captions: Captions | None = said if any(said) else None
        notes = self.found.notes
        silent = [entry["path"] for entry, texts in zip(self.accepted, said, strict=True) if not texts]
        if captions is not None and silent:
            notes = (*notes, f"{len(silent)} of {len(said)} pictures have no caption (first: {some(silent)})")
        manifest = Manifest(
            source=self.source,
            kind=self.kind,
            size=self.size,
            channels=images.shape[3],
            pictures=len(images),
            names=names,
            counts=label_counts(labels, len(names)),
            files=tuple(self.accepted),
            pixels=pixel_digest(images),
            native_side=self.native,
            captioned=captioned(captions),
            captions=caption_digest(captions),
            rejected=tuple(rejected),
            left_out=self.found.left_out,
            notes=notes,
        )
        return cache.Described(manifest, labels, captions)
