"""Sets that are held in memory as they were stored: those in the package, and those a system package installs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

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
from nirvana.files import Json


@dataclass(frozen=True)
class Held:
    """The squares of a set, (n, h, w) grey or (n, h, w, 3), and what is known of them."""

    pixels: UInt8[np.ndarray, "n h w *c"]
    labels: Int64[np.ndarray, " n"]
    names: tuple[str, ...]
    kind: str
    files: tuple[FileEntry, ...]
    captions: Captions | None = None
    attributes: Sequence[Mapping[str, Json]] | None = None


def embedded(name: str) -> tuple[bytes, FileEntry]:
    """A file that ships in the package, and its entry for the manifest."""
    data = resources.files("nirvana.data").joinpath("embedded", name).read_bytes()
    return data, {"path": name, "sha256": hashlib.sha256(data).hexdigest(), "label": None}


def held_dataset(held: Held, source: str, size: int | None) -> Dataset:
    """The set, resampled where `size` is not its own."""
    pixels, native = held.pixels, held.pixels.shape[1]
    if size is not None and size != native:
        pixels = np.stack([np.asarray(fit(Image.fromarray(picture), size)) for picture in pixels])
    images = np.ascontiguousarray(pixels if pixels.ndim == 4 else pixels[..., None])
    images.setflags(write=False)
    manifest = Manifest(
        source=source,
        kind=held.kind,
        size=images.shape[1],
        channels=images.shape[3],
        pictures=len(images),
        names=held.names,
        counts=label_counts(held.labels, len(held.names)),
        files=held.files,
        pixels=pixel_digest(images),
        native_side=native,
        captioned=captioned(held.captions),
        captions=caption_digest(held.captions),
    )
    return Dataset(images, held.labels, held.names, manifest, held.captions, held.attributes)
