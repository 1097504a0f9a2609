"""Masks: 1 where a picture may change, 0 where it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFilter

from nirvana.edit.picture import Photo
from nirvana.errors import Refused

Mask = Float[np.ndarray, "h w"]

NEARLY = 8
"""How far, in 255ths, what is meant as black or white may be off."""


def read_mask(
    photo: Photo, size: tuple[int, int], name: str | Path = "the mask", *, invert: bool = False, fit: bool = False
) -> Mask:
    """The mask in a picture: white (1) is what changes, black (0) what stays, grey is in between.

    What is within `NEARLY` of black or white is that, since JPEG does not keep them. Where the picture is transparent
    its alpha is the mask instead if all its colours are the same. invert: black is what changes. fit: a mask of another
    size is stretched to `size`, (height, width), to its nearest pixels. Refused, calling it `name`, where it has
    another size without `fit`.
    """
    if photo.size != size and not fit:
        (h, w), (height, width) = photo.size, size
        raise Refused(f"{name} is {w}x{h} pixels and the picture {width}x{height}; add --fit to stretch it")
    values = _grey(photo)
    if photo.size != size:
        height, width = size
        values = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))
    mask = np.select([values < NEARLY, values > 255 - NEARLY], [0.0, 1.0], values.astype(np.float64) / 255)
    return 1 - mask if invert else mask


def _grey(photo: Photo) -> np.ndarray:
    """(h, w) uint8: its grey; or its alpha, where that is all it shows."""
    grey = photo.bytes(1)[..., 0]
    if photo.alpha is None or grey.min() != grey.max():
        return grey
    return Photo(photo.alpha[..., None]).bytes(1)[..., 0]


def feathered(mask: Mask, pixels: int) -> Mask:
    """`mask` with an edge that falls off over so many pixels, all of them inside: outside it stays 0.

    min(mask, d/(pixels + 1)) where d = 1, 2, ... counts the pixels to what stays. A mask of a single pixel keeps a
    share above 0. The border of the picture is no edge. Raises ValueError for pixels < 0.
    """
    if pixels < 0:
        raise ValueError(f"an edge of {pixels} pixels does not exist; give 0 (hard) or more")
    if (mask > 0).all():
        return mask
    inside = Image.fromarray(np.pad((mask > 0).astype(np.uint8) * 255, 1, mode="edge"))
    depth = np.zeros(mask.shape)
    for _ in range(pixels + 1):
        depth += np.asarray(inside)[1:-1, 1:-1] > 0
        inside = inside.filter(ImageFilter.MinFilter(3))
        if inside.getbbox() is None:
            break  # however soft the edge is to be, all of it has been met
    return np.minimum(mask, depth / (pixels + 1))
