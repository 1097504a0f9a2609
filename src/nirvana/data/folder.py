"""A folder of pictures as a data set."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import PIL
from jaxtyping import UInt8

from nirvana.data import cache
from nirvana.data.dataset import RULES, Dataset, FileEntry, Manifest, Rejection, label_counts, pixel_digest
from nirvana.data.decode import Header, PictureError, decode, read_header, reason
from nirvana.data.labelling import Labelling, label
from nirvana.data.scan import Found, Scan, natural, scan
from nirvana.errors import Refused

KEEP_UP_TO = 32
DEFAULT_SIZE = 64
BAD_SHARE = 5
BAD_COUNT = 10
"""Refused when more than one file in `BAD_SHARE` and at least `BAD_COUNT` files are unreadable."""
_JUDGED = 200
"""So many files, evenly spread, tell the size of all."""

Progress = Callable[[int, int], None]
In = TypeVar("In")
Out = TypeVar("Out")

_EXTENSIONS = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".avifs", ".heic", ".heif"),
}
_LARGE_PIXELS = 2**24
_LARGE = threading.Lock()
"""Held while a picture above `_LARGE_PIXELS` is decoded: one at a time, so that memory stays bounded."""


def open_folder(
    path: Path, source: str, size: int | None, allow_bad: bool, cache_dir: Path | None, progress: Progress | None
) -> Dataset:
    """The pictures below `path`, decoded once and then mapped from the cache.

    A file is a picture when its content is one, whatever its name. Of the others, those whose names end like a
    picture's are rejected as unreadable, and the rest is ignored. `size` None: the median of the shorter sides where
    that is at most `KEEP_UP_TO`, else `DEFAULT_SIZE`.
    """
    listing = scan(path)
    if not listing.files and not listing.rejected:
        raise Refused(f"{source}: the folder is empty; put at least 2 pictures into it")
    identity = json.dumps([RULES, PIL.__version__, os.path.realpath(path), size])
    key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]
    root = cache_dir or cache.default_root()
    notices: tuple[str, ...] = ()
    found = cache.load(root / key, listing.fingerprint)
    if found is None:
        plan = _Plan.make(listing, source, size, progress)
        found, notices = _decoded(plan, root, key, listing.fingerprint)
    images, manifest = found
    manifest = replace(manifest, source=source)
    _check(manifest, allow_bad)
    labels = None
    if manifest.names:
        number = {name: i for i, name in enumerate(manifest.names)}
        labels = np.array([number[entry["label"] or ""] for entry in manifest.files], np.int64)
    return Dataset(images, labels, manifest.names, manifest, notices)


def native_side(path: Path) -> int:
    """The median of the shorter sides of the pictures below `path`, judged by some of them; 0 where there is none."""
    found = scan(path).files
    with _quiet():
        headers = list(_parallel(_probe, found[:: max(1, len(found) // _JUDGED)]))
    return statistics.median_low([min(header) for header in headers if isinstance(header, Header)] or [0])


def _check(manifest: Manifest, allow_bad: bool) -> None:
    """Refuse a folder that is too damaged, or too small, to train on."""
    bad, good, source = len(manifest.rejected), manifest.pictures, manifest.source
    first = f"{manifest.rejected[0]['path']}: {manifest.rejected[0]['reason']}" if bad else ""
    if good == 0:
        found = f"{bad} unreadable, first {first}" if bad else "PNG, JPEG, WebP, GIF, TIFF, BMP and others are read"
        raise Refused(f"{source}: no readable picture ({found}); give a folder that holds pictures")
    if good == 1:
        raise Refused(f"{source}: only one readable picture, which a model could only copy; at least 2 are needed")
    if bad >= BAD_COUNT and bad * BAD_SHARE > bad + good and not allow_bad:
        raise Refused(
            f"{source}: {bad} of {bad + good} pictures are unreadable (first {first}); mend them, or use --allow-bad"
        )


def _decoded(
    plan: _Plan, root: Path, key: str, fingerprint: str
) -> tuple[tuple[UInt8[np.ndarray, "n h w c"], Manifest], tuple[str, ...]]:
    """Decode into the cache; where that cannot be written, into a temporary place for this run only."""
    try:
        cache.build(root / key, fingerprint, plan.size, plan.fill, plan.describe)
        found, notices = cache.load(root / key, fingerprint), ()
    except OSError as error:
        why = error.strerror or str(error)
        notices = (f"the cache {root} cannot be written ({why}): the pictures will be decoded anew each time",)
        found = _temporary(plan, root, key, fingerprint, why)
    if found is None:
        raise Refused(f"{plan.source}: the folder changes while it is read; wait until it is complete")
    return found, notices


def _temporary(
    plan: _Plan, root: Path, key: str, fingerprint: str, why: str
) -> tuple[UInt8[np.ndarray, "n h w c"], Manifest] | None:
    """Decode into a temporary folder that is deleted at once; the mapping keeps the pictures until it is closed."""
    folder = ""
    try:
        folder = tempfile.mkdtemp(prefix="nirvana-")
        cache.build(Path(folder) / key, fingerprint, plan.size, plan.fill, plan.describe)
        return cache.load(Path(folder) / key, fingerprint)
    except OSError as error:
        other = error.strerror or str(error)
        raise Refused(
            f"no room for the decoded pictures: {root} ({why}), {tempfile.gettempdir()} ({other}); "
            "free some space, or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Plan:
    """How one folder is decoded: which files, with which labels, to which size."""

    source: str
    files: tuple[Found, ...]
    size: int
    labelling: Labelling
    rejected: list[Rejection]
    left_out: tuple[Rejection, ...]
    large: frozenset[str]
    progress: Progress | None
    accepted: list[FileEntry] = field(default_factory=list)
    unreadable: list[Rejection] = field(default_factory=list)

    @staticmethod
    def make(listing: Scan, source: str, size: int | None, progress: Progress | None) -> _Plan:
        """Read all headers; decide labels and size."""
        rejected = list(listing.rejected)
        headers: dict[str, Header] = {}
        with _quiet():
            for file, header in zip(listing.files, _parallel(_probe, listing.files), strict=True):
                if isinstance(header, Header):
                    headers[file.name] = header
                elif header:
                    rejected.append({"path": file.name, "reason": header})
        labelling = label(list(headers), source)
        used = {name: header for name, header in headers.items() if name in labelling.labels}
        if size is None:
            median = statistics.median_low([min(header) for header in used.values()] or [DEFAULT_SIZE])
            size = median if median <= KEEP_UP_TO else DEFAULT_SIZE
        return _Plan(
            source=source,
            files=tuple(file for file in listing.files if file.name in used),
            size=size,
            labelling=labelling,
            rejected=rejected,
            left_out=(*listing.left_out, *labelling.left_out),
            large=frozenset(name for name, header in used.items() if header.width * header.height > _LARGE_PIXELS),
            progress=progress,
        )

    def fill(self, out: BinaryIO) -> int:
        """Decode every file and write those that can be read, in order; returns how many."""
        self.accepted, self.unreadable = [], []
        with _quiet():
            for done, (file, result) in enumerate(zip(self.files, _parallel(self._read, self.files), strict=True), 1):
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
            data = file.path.read_bytes()
            if file.name in self.large:
                with _LARGE:
                    pixels = decode(data, self.size)
            else:
                pixels = decode(data, self.size)
        except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
            return reason(error)
        return hashlib.sha256(data).hexdigest(), pixels

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> Manifest:
        """The manifest of what `fill` wrote."""
        names = tuple(sorted({entry["label"] for entry in self.accepted if entry["label"] is not None}, key=natural))
        number = {name: i for i, name in enumerate(names)}
        labels = np.array([number[entry["label"] or ""] for entry in self.accepted], np.int64) if names else None
        rejected = sorted([*self.rejected, *self.unreadable], key=lambda item: natural(item["path"]))
        return Manifest(
            source=self.source,
            kind="folder",
            size=self.size,
            channels=images.shape[3],
            pictures=len(images),
            names=names,
            counts=label_counts(labels, len(names)),
            files=tuple(self.accepted),
            pixels=pixel_digest(images),
            rejected=tuple(rejected),
            left_out=self.left_out,
            notes=self.labelling.notes,
        )


def _probe(file: Found) -> Header | str:
    """The header of a picture; else why it is unreadable, or "" for a file that does not claim to be a picture."""
    claims = file.path.suffix.lower() in _EXTENSIONS
    if file.stamp[0] == 0:
        return "an empty file" if claims else ""
    try:
        return read_header(file.path)
    except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
        return reason(error) if claims or isinstance(error, PictureError) else ""


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """No warnings of Pillow's about large or odd pictures: our own limit and the manifest say what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def _processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parallel(work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` in order on a few threads (Pillow frees the interpreter lock while it decodes), with little in flight."""
    workers = min(8, _processors())
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 8 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
