"""PNG files that carry what made them: one text chunk "nirvana" with JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt, UInt8
from PIL import Image, PngImagePlugin

from nirvana import files
from nirvana.errors import Refused
from nirvana.files import Json

CHUNK = "nirvana"


def to_picture(array: np.ndarray) -> Image.Image:
    """A Pillow picture of (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) bytes. ValueError: any other shape or type."""
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    fits = flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4))
    if flat.dtype != np.uint8 or not fits or not flat.size:
        raise ValueError(f"no picture: {array.dtype} of shape {array.shape}; uint8 (h, w) or (h, w, 1, 3 or 4) is one")
    return Image.fromarray(np.ascontiguousarray(flat))


def to_png_bytes(array: UInt8[np.ndarray, "h w *c"], metadata: Mapping[str, Json] | None = None) -> bytes:
    """The bytes of a PNG file, a function of its arguments alone. ValueError: no picture, or NaN in `metadata`."""
    info = PngImagePlugin.PngInfo()
    if metadata is not None:
        info.add_text(CHUNK, json.dumps(metadata, allow_nan=False))  # escapes all but ASCII, so plain text is enough
    out = BytesIO()
    to_picture(array).save(out, "PNG", pnginfo=info)
    return out.getvalue()


def write_png(path: Path, array: UInt8[np.ndarray, "h w *c"], metadata: Mapping[str, Json] | None = None) -> None:
    """Write a picture and what made it, in one step: the file is whole or not there."""
    files.write_bytes(path, to_png_bytes(array, metadata))


def read_png(path: Path) -> tuple[UInt[np.ndarray, "h w c"], dict[str, Json]]:
    """The pixels and the metadata of a picture that `write_png` wrote.

    Refused: no such file, no PNG, damaged, or without metadata of ours.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            text = picture.info.get(CHUNK)
            pixels = np.asarray(picture)
    except FileNotFoundError as error:
        raise Refused(f"{path}: no such file; name a picture that nirvana made") from error
    except Exception as error:  # Pillow raises anything on damaged files
        raise Refused(f"{path}: not a PNG file that can be read; name a picture that nirvana made") from error
    if not isinstance(text, str):
        raise Refused(f"{path}: does not say how it was made (editors and websites remove that); use the original file")
    return pixels if pixels.ndim == 3 else pixels[..., None], _parse(path, text)


def read_png_metadata(path: Path) -> dict[str, Json]:
    """The metadata of a picture that `write_png` wrote. Refused as for `read_png`."""
    return read_png(path)[1]


def _parse(path: Path, text: str) -> dict[str, Json]:
    try:
        value = cast(Json, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: its record of how it was made is damaged; use the original file") from error
    if not isinstance(value, dict):
        raise Refused(f"{path}: its record of how it was made is damaged; use the original file")
    return value
