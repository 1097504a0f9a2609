"""Two pictures in one form, so that others can lie between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from nirvana.edit.picture import Photo, Values
from nirvana.errors import Refused


def alike(first: Photo, second: Photo, *, fit: bool = False) -> tuple[Photo, Photo]:
    """Both with the larger depth, with colours and with alpha if one has them, and with the profile if it is the same.

    What had no alpha is opaque. fit: `second` is scaled to cover the size of `first`, and cropped to its middle.
    Refused where the sizes differ without it.
    """
    if first.size != second.size:
        if not fit:
            (h, w), (height, width) = second.size, first.size
            raise Refused(f"the second picture is {w}x{h} pixels and the first {width}x{height}; add --fit to scale it")
        second = _covering(second, first.size)
    most = max(first.most, second.most)
    channels = max(first.pixels.shape[2], second.pixels.shape[2])
    clear = first.alpha is not None or second.alpha is not None
    profile = first.profile if first.profile == second.profile else None
    a, b = (_formed(photo, most, channels, clear, profile) for photo in (first, second))
    return a, b


def faded(first: Photo, second: Photo, part: int | float) -> Photo:
    """`first` with the alpha (1 - part) first + part second, rounded, if they have one."""
    if first.alpha is None or second.alpha is None:
        return first
    mixed = (1 - part) * first.alpha.astype(np.float64) + part * second.alpha
    return replace(first, alpha=np.rint(mixed).astype(first.alpha.dtype))


def _formed(photo: Photo, most: int, channels: int, clear: bool, profile: bytes | None) -> Photo:
    kind, factor = np.uint16 if most > 255 else np.uint8, most // photo.most
    pixels = photo.pixels.astype(kind) * kind(factor)
    if pixels.shape[2] < channels:
        pixels = np.repeat(pixels, channels, axis=2)
    alpha = None if photo.alpha is None else photo.alpha.astype(kind) * kind(factor)
    if clear and alpha is None:
        alpha = np.full(photo.size, most, kind)
    return Photo(pixels, alpha, profile)


def _covering(photo: Photo, size: tuple[int, int]) -> Photo:
    """`photo` in `size`: scaled, its sides as they were to each other, what stands over at two sides cut off."""
    (h, w), (height, width) = photo.size, size
    scale = min(h / height, w / width)
    top, left = (h - height * scale) / 2, (w - width * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)

    def scaled(layer: np.ndarray) -> np.ndarray:
        drawn = Image.fromarray(layer.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC, box)
        return np.clip(np.rint(np.asarray(drawn)), 0, photo.most).astype(layer.dtype)

    pixels: Values = np.dstack([scaled(photo.pixels[..., c]) for c in range(photo.pixels.shape[2])])
    return replace(photo, pixels=pixels, alpha=None if photo.alpha is None else scaled(photo.alpha))
