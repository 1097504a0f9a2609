"""From the bytes of a file to an upright square of 8-bit pixels.

The rules: the format is told by the content, never by the name. Of an animation the first frame counts. EXIF rotation
is applied. Transparent pixels are composited on `BACKGROUND`. 16-bit grey values v become round(v / 257); 16-bit
colours keep their high byte. CMYK becomes RGB by Pillow's plain formula (JPEG inks are stored inverted, as Adobe and
every browser have it). Colour profiles and gamma chunks are not applied.
"""

from __future__ import annotations

import contextlib
import re
import threading
from functools import cache
from io import BufferedIOBase, BytesIO
from typing import IO, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from nirvana.data.dataset import BACKGROUND

MAX_PIXELS = 2**27
"""Pictures whose header states more pixels (134 million) are refused before they are decoded."""

LARGE_PIXELS = 2**24
"""Pictures with more pixels are decoded one at a time, so that memory stays bounded."""

EXTENSIONS = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".avifs", ".heic", ".heif"),
    )
)
"""How the names of files end that claim to be pictures."""

_large = threading.Lock()
_WANTED = ("PNG", "JPEG", "MPO", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
_EXIF_ORIENTATION = 0x0112


class PictureError(Exception):
    """A picture that cannot be used, with the reason in words."""


class Header(NamedTuple):
    """What a file says of its picture before it is decoded."""

    width: int
    height: int


@cache
def _formats() -> tuple[str, ...]:
    """The wanted formats this Pillow knows. A closed list: some of its readers (EPS) start other programs."""
    Image.init()
    return tuple(name for name in _WANTED if name in Image.OPEN)


def open_picture(file: BufferedIOBase) -> Image.Image:
    """The picture behind `file`, header read. PictureError: larger than `MAX_PIXELS`; also any error of Pillow."""
    try:
        picture = Image.open(cast(IO[bytes], file), formats=_formats())
    except Image.DecompressionBombError as error:
        raise PictureError(f"its header states more than {MAX_PIXELS} pixels") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise PictureError(f"its header states {width} x {height} pixels, more than {MAX_PIXELS}")
    return picture


def read_header(file: BufferedIOBase) -> Header:
    """The size a picture states. Errors as `reason` explains them."""
    with open_picture(file) as picture:
        return Header(*picture.size)


def decode(data: bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The first frame of the picture in `data`, upright, opaque, its centre square resampled to `size` (RGB).

    A picture that cannot be decoded raises PictureError or any error of Pillow; `reason` turns it into words.
    """
    return np.asarray(fit(upright(data, size), size))


def upright(data: bytes, size: int) -> Image.Image:
    """The first frame of the picture in `data` as it is to be seen: upright and opaque, in RGB.

    A JPEG may come smaller than it is, but at least twice `size` wide and high. Errors as of `decode`.
    """
    with open_picture(BytesIO(data)) as picture, one_at_a_time(picture):
        if picture.format == "JPEG":
            # The DCT can shrink by 2, 4 or 8 for free; Lanczos does the rest from at least twice the size.
            picture.draft(picture.mode, (2 * size, 2 * size))
        picture.load()
        turn, opaque = orientation(picture), to_rgb(picture)
        return Image.fromarray(turned(np.asarray(opaque), turn)) if 2 <= turn <= 8 else opaque


def one_at_a_time(picture: Image.Image) -> contextlib.AbstractContextManager[object]:
    """Held while a picture is decoded, if it is a large one."""
    return _large if picture.width * picture.height > LARGE_PIXELS else contextlib.nullcontext()


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or where the EXIF block is damaged."""
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # Pillow raises anything on damaged EXIF, and the pixels are still good
        return 1


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (h, w, ...) as an EXIF orientation says they are to be seen; as they are where it says nothing known."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in 8-bit RGB, composited on `BACKGROUND` where it is transparent."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = picture.convert("RGBA")
    ground = Image.new("RGB", layers.size, BACKGROUND)
    return Image.composite(layers.convert("RGB"), ground, layers.getchannel("A"))


def sixteen_bits(values: np.ndarray) -> np.ndarray:
    """Integers as uint16. PictureError: outside of its range."""
    if values.min() < 0 or values.max() > 65535:
        raise PictureError("integers outside 0 to 65535")
    return values.astype(np.uint16)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """uint16 as uint8: round(v / 257)."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_deep(picture: Image.Image) -> Image.Image:
    """RGB from one channel of 16-bit integers (0..65535), of 32-bit integers in that range, or of floats in 0..1."""
    values = np.asarray(picture)
    if picture.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise PictureError("floating-point values outside 0 to 1")
        grey = np.round(values.astype(np.float64) * 255).astype(np.uint8)
    else:
        grey = eight_bits(sixteen_bits(values))
    rgb = np.repeat(grey[..., None], 3, axis=2)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        rgb[values == clear] = BACKGROUND
    return Image.fromarray(rgb)


def fit(picture: Image.Image, size: int) -> Image.Image:
    """The centre square, resampled to `size` x `size` (Lanczos, antialiased, on the gamma-encoded values)."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if width != height:
        picture = picture.crop((left, top, left + side, top + side))
    return picture if side == size else picture.resize((size, size), Image.Resampling.LANCZOS)


def reason(error: Exception) -> str:
    """Why a file could not be read, in one short line that is the same in every run."""
    if isinstance(error, PictureError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return "no picture in a known format"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, FileNotFoundError):
        return "a broken link, or gone"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = re.sub(r"<[^>]*>", "", " ".join(str(error).split()))[:120]
    return f"damaged ({message or type(error).__name__})"
