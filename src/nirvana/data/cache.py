"""Decoded pictures on disk: one entry for each (source folder, size), whole or not there, checked at every opening."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import UInt8

from nirvana import files
from nirvana.data.dataset import Manifest, ManifestJson, pixel_digest

_IMAGES, _MANIFEST = "images.npy", "manifest.json"
_STALE_SECONDS = 24 * 3600
_CHUNK = 4096

Pixels = UInt8[np.ndarray, "n h w c"]


def default_root() -> Path:
    """`$XDG_CACHE_HOME/nirvana/data` where that is an absolute path, else `~/.cache/nirvana/data`."""
    return files.cache_folder("data")


def load(entry: Path, fingerprint: str) -> tuple[Pixels, Manifest] | None:
    """The mapped pictures and their manifest; None where missing, damaged, or of another state of the folder."""
    try:
        stored = json.loads((entry / _MANIFEST).read_text("utf-8"))
        if stored["fingerprint"] != fingerprint:
            return None
        manifest = _from_json(cast(ManifestJson, stored["manifest"]))
        images = np.load(entry / _IMAGES, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    shape = (manifest.pictures, manifest.size, manifest.size, manifest.channels)
    if images.dtype != np.uint8 or images.shape != shape or pixel_digest(images) != manifest.pixels:
        return None
    return images, manifest


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
        rejected=tuple(value["rejected"]),
        left_out=tuple(value["left_out"]),
        notes=tuple(value["notes"]),
    )
    if manifest.digest != value["digest"]:
        raise ValueError("the manifest does not have its digest")
    return manifest


def build(
    entry: Path, fingerprint: str, size: int, fill: Callable[[BinaryIO], int], describe: Callable[[Pixels], Manifest]
) -> None:
    """Make the cache entry: `fill` writes RGB rows and returns how many, `describe` says what they are.

    Pictures that are all grey keep one channel. The entry appears in one step; where another process was faster, its
    entry stays. OSError: it cannot be written.
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(entry.parent)
    work = Path(tempfile.mkdtemp(prefix=files.TEMPORARY, dir=entry.parent))
    try:
        images = _write_images(work, size, fill)
        manifest = describe(images)
        files.write_json(work / _MANIFEST, {"fingerprint": fingerprint, "manifest": manifest.to_json()})
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
