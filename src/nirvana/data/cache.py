"""Decoded pictures on disk: one entry for each (source, size), whole or not there, checked at every opening."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import PIL
from jaxtyping import Int64, UInt8

from nirvana import files
from nirvana.data.dataset import RULES, Captions, Dataset, Manifest, ManifestJson, pixel_digest
from nirvana.errors import Refused

_IMAGES, _MANIFEST, _BESIDE = "images.npy", "manifest.json", "beside.json"
_STALE_SECONDS = 24 * 3600
_CHUNK = 4096

Pixels = UInt8[np.ndarray, "n h w c"]


class Described(NamedTuple):
    """What is known of decoded pictures: their manifest, and the label and the captions of each where there are any."""

    manifest: Manifest
    labels: Int64[np.ndarray, " n"] | None = None
    captions: Captions | None = None


class Decoded(NamedTuple):
    """Decoded pictures, mapped, and what is known of them."""

    images: Pixels
    known: Described


@runtime_checkable
class Decoder(Protocol):
    """How a source becomes pixels, once its size is decided."""

    @property
    def source(self) -> str:
        """Its name, for messages."""
        ...

    @property
    def size(self) -> int:
        """Side of the decoded squares in pixels."""
        ...

    def fill(self, out: BinaryIO) -> int:
        """Write the RGB rows of every picture that can be read, in order; how many there are."""
        ...

    def describe(self, images: Pixels) -> Described:
        """What `fill` wrote."""
        ...


def default_root() -> Path:
    """`$XDG_CACHE_HOME/nirvana/data` where that is an absolute path, else `~/.cache/nirvana/data`."""
    return files.cache_folder("data")


def obtain(
    identity: tuple[str, ...],
    size: int | None,
    fingerprint: str,
    source: str,
    decoder: Callable[[], contextlib.AbstractContextManager[Decoder]],
    cache_dir: Path | None,
) -> Dataset:
    """The pictures of a source of this `identity` at the asked `size`: mapped where the cache holds them in this state.

    Otherwise they are decoded into it; where it cannot be written, into a temporary place for this run only, with a
    notice. Refused: no room anywhere, or the source changes while it is read.
    """
    key = hashlib.sha256(os.fsencode(json.dumps([RULES, PIL.__version__, *identity, size]))).hexdigest()[:32]
    root = cache_dir or default_root()
    found, notices = load(root / key, fingerprint), ()
    if found is None:
        with decoder() as made:
            found, notices = _decoded(made, root, key, fingerprint)
    images, (manifest, labels, captions) = found
    manifest = replace(manifest, source=source)
    return Dataset(images, labels, manifest.names, manifest, captions, notices=notices)


def _decoded(decoder: Decoder, root: Path, key: str, fingerprint: str) -> tuple[Decoded, tuple[str, ...]]:
    """Decode into the cache, else into a temporary place."""
    try:
        build(root / key, fingerprint, decoder)
        found, notices = load(root / key, fingerprint), ()
    except OSError as error:
        why = error.strerror or str(error)
        notices = (f"the cache {root} cannot be written ({why}): the pictures will be decoded anew each time",)
        found = _temporary(decoder, root, key, fingerprint, why)
    if found is None:
        raise Refused(f"{decoder.source}: it changes while it is read; wait until it is complete")
    return found, notices


def _temporary(decoder: Decoder, root: Path, key: str, fingerprint: str, why: str) -> Decoded | None:
    """Decode into a temporary folder that is deleted at once; the mapping keeps the pictures until it is closed."""
    folder = ""
    try:
        folder = tempfile.mkdtemp(prefix="nirvana-")
        build(Path(folder) / key, fingerprint, decoder)
        return load(Path(folder) / key, fingerprint)
    except OSError as error:
        other = error.strerror or str(error)
        raise Refused(
            f"no room for the decoded pictures: {root} ({why}), {tempfile.gettempdir()} ({other}); "
            "free some space, or set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(entry: Path, fingerprint: str) -> Decoded | None:
    """The mapped pictures and what is known of them; None where missing, damaged, or of another state of the source."""
    try:
        stored = json.loads((entry / _MANIFEST).read_text("utf-8"))
        if stored["fingerprint"] != fingerprint:
            return None
        manifest = _from_json(cast(ManifestJson, stored["manifest"]))
        beside = (entry / _BESIDE).read_bytes()
        if hashlib.sha256(beside).hexdigest() != stored["beside"]:
            return None
        images = np.load(entry / _IMAGES, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    shape = (manifest.pictures, manifest.size, manifest.size, manifest.channels)
    if images.dtype != np.uint8 or images.shape != shape or pixel_digest(images) != manifest.pixels:
        return None
    said = json.loads(beside)
    labels = None if said["labels"] is None else np.array(said["labels"], np.int64)
    captions = None if said["captions"] is None else tuple(tuple(texts) for texts in said["captions"])
    return Decoded(images, Described(manifest, labels, captions))


def _from_json(value: ManifestJson) -> Manifest:
    """The manifest that `to_json` made. ValueError: its digest does not fit, so it was edited."""
    manifest = Manifest(
        source=value["source"],
        kind=value["kind"],
        size=value["size"],
        channels=value["channels"],
        pictures=value["pictures"],
        names=tuple(value["names"]),
        counts=tuple(value["counts"]),
        files=tuple(value["files"]),
        pixels=value["pixels"],
        native_side=value["native_side"],
        captioned=value["captioned"],
        captions=value["captions"],
        rejected=tuple(value["rejected"]),
        left_out=tuple(value["left_out"]),
        notes=tuple(value["notes"]),
    )
    if manifest.digest != value["digest"]:
        raise ValueError("the manifest does not have its digest")
    return manifest


def build(entry: Path, fingerprint: str, decoder: Decoder) -> None:
    """Make the cache entry. Pictures that are all grey keep one channel.

    The entry appears in one step; where another process was faster, its entry stays. OSError: it cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(entry.parent)
    work = Path(tempfile.mkdtemp(prefix=files.TEMPORARY, dir=entry.parent))
    try:
        images = _write_images(work, decoder.size, decoder.fill)
        manifest, labels, captions = decoder.describe(images)
        said = {"labels": None if labels is None else labels.tolist(), "captions": captions}
        beside = files.write_chunks(work / _BESIDE, [json.dumps(said).encode()])
        stored = {"fingerprint": fingerprint, "manifest": manifest.to_json(), "beside": beside.sha256}
        files.write_json(work / _MANIFEST, stored)
        _put_in_place(work, entry, fingerprint)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_images(work: Path, size: int, fill: Callable[[BinaryIO], int]) -> Pixels:
    """Write `images.npy` in `work` and map it. Plain writes, not mapped ones: a full disk is an error, not a crash."""
    path = work / _IMAGES
    with open(path, "wb") as out:
        out.write(_header((0, size, size, 3)))
        count = fill(out)
        out.seek(0)
        out.write(_header((count, size, size, 3)))  # as long as the first: numpy pads for a growing first axis
        _sync(out)
    images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    chunks = [images[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    if not all(np.array_equal(c[..., 0], c[..., 1]) and np.array_equal(c[..., 0], c[..., 2]) for c in chunks):
        return images
    grey = work / "grey.npy"
    with open(grey, "wb") as out:
        out.write(_header((count, size, size, 1)))
        for chunk in chunks:
            out.write(chunk[..., 0].tobytes())
        _sync(out)
    os.replace(grey, path)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _header(shape: tuple[int, ...]) -> bytes:
    """The start of an .npy file of bytes in C order."""
    out = BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _put_in_place(work: Path, entry: Path, fingerprint: str) -> None:
    """Rename `work` to `entry`, moving an old or damaged entry out of the way; a good one of the same state is kept."""
    for _ in range(8):
        try:
            os.rename(work, entry)
        except OSError:
            if not entry.exists():
                raise
            if load(entry, fingerprint) is not None:
                return
            aside = Path(tempfile.mkdtemp(prefix=files.TEMPORARY, dir=entry.parent))
            with contextlib.suppress(OSError):  # another process was faster: then the next round finds its entry
                os.rename(entry, aside / "old")
            shutil.rmtree(aside, ignore_errors=True)
        else:
            files.sync_folder(entry.parent)
            return
    raise OSError(f"{entry} cannot be replaced")


def _remove_stale(root: Path) -> None:
    """Delete what processes that were killed left behind, once it is a day old."""
    for leftover in root.glob(f"{files.TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
