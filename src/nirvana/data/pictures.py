"""A collection of encoded pictures, with what is said of them, as a data set."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
import threading
import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from nirvana.data import cache
from nirvana.data.captions import annotate
from nirvana.data.collection import Collection, Found, Scan, Words
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
from nirvana.data.decode import Header, PictureError, decode, read_header, reason
from nirvana.data.labelling import Labelling, label, label_by
from nirvana.data.parallel import parallel
from nirvana.data.scan import natural
from nirvana.errors import Refused

KEEP_UP_TO = 32
DEFAULT_SIZE = 64
BAD_SHARE = 5
BAD_COUNT = 10
"""Refused when more than one file in `BAD_SHARE` and at least `BAD_COUNT` files are unreadable."""

Progress = Callable[[int, int], None]

_EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".avifs", ".heic", ".heif"),
}
_CONTAINERS = {".zip", ".tar", ".tgz", ".gz", ".npy", ".npz", ".parquet"}
_EXAMPLES = 3
_LARGE_PIXELS = 2**24
_LARGE = threading.Lock()
"""Held while a picture above `_LARGE_PIXELS` is decoded: one at a time, so that memory stays bounded."""


def open_pictures(
    collection: Collection,
    source: str,
    size: int | None,
    allow_bad: bool,
    cache_dir: Path | None,
    progress: Progress | None,
) -> Dataset:
    """The pictures of a collection, decoded once and then mapped from the cache.

    A file is a picture when its content is one, whatever its name. Of the others, those whose names end like a
    picture's are rejected as unreadable, and the rest is ignored. `size` None: `default_size` of the median of the
    shorter sides.
    """

    @contextlib.contextmanager
    def decoder() -> Generator[_Plan]:
        with collection.files() as listing:
            yield _Plan.make(listing, collection.kind, source, size, progress)

    identity = (collection.kind, *collection.identity)
    data = cache.obtain(identity, size, collection.fingerprint, source, decoder, cache_dir)
    _check(data.manifest, allow_bad)
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
    """How one collection is decoded: which files, with which labels and captions, to which size."""

    source: str
    kind: str
    files: tuple[Found, ...]
    size: int
    native: int
    labelling: Labelling
    words: dict[str, Words]
    rejected: list[Rejection]
    left_out: tuple[Rejection, ...]
    notes: tuple[str, ...]
    large: frozenset[str]
    progress: Progress | None
    accepted: list[FileEntry] = field(default_factory=list[FileEntry])
    unreadable: list[Rejection] = field(default_factory=list[Rejection])

    @staticmethod
    def make(listing: Scan, kind: str, source: str, size: int | None, progress: Progress | None) -> _Plan:
        """Read all headers and everything that is said of the pictures; decide labels and size."""
        if not listing.files and not listing.rejected:
            raise Refused(f"{source}: the {kind} is empty; put at least 2 pictures into it")
        rejected = list(listing.rejected)
        headers: dict[str, Header] = {}
        with _quiet():
            for file, header in zip(listing.files, parallel(_probe, listing.files), strict=True):
                if isinstance(header, Header):
                    headers[file.name] = header
                elif header:
                    rejected.append({"path": file.name, "reason": header})
        if not headers:
            _point_inside(listing, source)
        words, notes = _words(listing, list(headers), source)
        labelling, more = _labelling(listing, headers, words, source)
        used = {name: header for name, header in headers.items() if name in labelling.labels}
        native = statistics.median_low([min(header) for header in used.values()] or [DEFAULT_SIZE])
        return _Plan(
            source=source,
            kind=kind,
            files=tuple(file for file in listing.files if file.name in used),
            size=default_size(native) if size is None else size,
            native=native,
            labelling=labelling,
            words=words,
            rejected=rejected,
            left_out=(*listing.left_out, *labelling.left_out),
            notes=(*notes, *more, *labelling.notes),
            large=frozenset(name for name, header in used.items() if header.width * header.height > _LARGE_PIXELS),
            progress=progress,
        )

    def fill(self, out: BinaryIO) -> int:
        """Decode every file and write those that can be read, in order; returns how many."""
        self.accepted, self.unreadable = [], []
        with _quiet():
            for done, (file, result) in enumerate(zip(self.files, parallel(self._read, self.files), strict=True), 1):
                if isinstance(result, str):
                    self.unreadable.append({"path": file.name, "reason": result})
                else:
                    digest, pixels = result
                    entry: FileEntry = {"path": file.name, "sha256": digest, "label": self.labelling.labels[file.name]}
                    self.accepted.append(entry)
                    out.write(pixels.tobytes())
                if self.progress is not None:
                    self.progress(done, len(self.files))
        return len(self.accepted)

    def _read(self, file: Found) -> tuple[str, UInt8[np.ndarray, "size size 3"]] | str:
        """The digest of a file's bytes and its pixels, or why it cannot be read."""
        try:
            data = file.read()
            if file.name in self.large:
                with _LARGE:
                    pixels = decode(data, self.size)
            else:
                pixels = decode(data, self.size)
        except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
            return reason(error)
        return hashlib.sha256(data).hexdigest(), pixels

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> cache.Described:
        """The manifest and the captions of what `fill` wrote."""
        names = tuple(sorted({entry["label"] for entry in self.accepted if entry["label"] is not None}, key=natural))
        number = {name: i for i, name in enumerate(names)}
        labels = np.array([number[entry["label"] or ""] for entry in self.accepted], np.int64) if names else None
        rejected = sorted([*self.rejected, *self.unreadable], key=lambda item: natural(item["path"]))
        said = tuple(self.words[entry["path"]].captions for entry in self.accepted)
        captions: Captions | None = said if any(said) else None
        notes = self.notes
        if captions is not None and not all(captions):
            notes = (*notes, f"{len(captions) - captioned(captions)} of {len(captions)} pictures have no caption")
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
            left_out=self.left_out,
            notes=notes,
        )
        return cache.Described(manifest, labels, captions)


def _point_inside(listing: Scan, source: str) -> None:
    """Refuse a source without a picture that holds archives, arrays or tables: these are opened by their own names."""
    inside = [file.name for file in listing.files if PurePosixPath(file.name).suffix.casefold() in _CONTAINERS]
    if inside:
        more = f" (and {len(inside) - 1} more)" if len(inside) > 1 else ""
        raise Refused(f"{source}: holds no picture but {inside[0]}{more}; give one of them as the source, or a pattern")


def _words(listing: Scan, pictures: list[str], source: str) -> tuple[dict[str, Words], tuple[str, ...]]:
    """What is said of each picture, and notes."""
    if listing.words is not None:
        return {name: listing.words[name] for name in pictures}, ()
    found = annotate(listing.files, pictures, source)
    notes = found.notes
    # One text among many pictures is no caption (a licence), as many as pictures are some under other names.
    captioned = any(words.captions for words in found.words.values())
    if found.orphans and (captioned or 2 * len(found.orphans) >= len(pictures)):
        some = ", ".join(found.orphans[:_EXAMPLES])
        notes = (*notes, f"{len(found.orphans)} caption files belong to no picture (first: {some})")
    return {name: found.words.get(name, Words()) for name in pictures}, notes


def _labelling(
    listing: Scan, headers: dict[str, Header], words: dict[str, Words], source: str
) -> tuple[Labelling, tuple[str, ...]]:
    """The labels that are said; where there are none, those of the folders inside each shard."""
    said = label_by({name: said.label for name, said in words.items()})
    if said is not None:
        return said, ()
    notes = ("fewer than half of the pictures have a stated label, so these are not used",)
    notes = notes if any(said.label for said in words.values()) else ()
    if listing.words is not None:
        return Labelling(dict.fromkeys(headers)), notes
    inner = {file.name: file.name.removeprefix(file.shard) for file in listing.files if file.name in headers}
    by_folder = label(list(dict.fromkeys(inner.values())), source)
    reasons = {item["path"]: item["reason"] for item in by_folder.left_out}
    labels = {name: by_folder.labels[place] for name, place in inner.items() if place in by_folder.labels}
    left_out: list[Rejection] = [
        {"path": n, "reason": reasons[place]} for n, place in inner.items() if place in reasons
    ]
    return Labelling(labels, tuple(left_out), by_folder.notes), notes


def _probe(file: Found) -> Header | str:
    """The header of a picture; else why it is unreadable, or "" for a file that does not claim to be a picture."""
    claims = PurePosixPath(file.name).suffix.casefold() in _EXTENSIONS
    if file.size == 0:
        return "an empty file" if claims else ""
    try:
        with file.open() as opened:
            return read_header(opened)
    except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
        return reason(error) if claims or isinstance(error, PictureError) else ""


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No warnings of Pillow's about large or odd pictures: our own limit and the manifest say what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield
