"""Colours of more than 8 bits, of which Pillow keeps 8: read in full from PNG and TIFF, refused elsewhere."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from nirvana.data.decode import PictureError

Values = np.ndarray
"""uint16 of shape (h, w, c)."""

_PNG = b"\x89PNG\r\n\x1a\n"
_BITS_PER_SAMPLE = 258


def kept(picture: Image.Image, data: bytes) -> tuple[Values, np.ndarray | None] | None:
    """All bits of the colours and the alpha of a file that has 16; None where Pillow keeps what there is.

    picture: as Pillow opened `data`. PictureError where colours have more than 8 bits that cannot be read.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        return None  # one channel, which Pillow keeps
    if _is_deep_png(data):
        return _of_png(data)
    bits = _bits(picture, data)
    if bits <= 8:
        return None
    if picture.format == "TIFF" and bits == 16:
        return _of_tiff(data)
    raise PictureError(f"colours of {bits} bits, of which only 8 can be read from {picture.format}; convert it to PNG")


def _is_deep_png(data: bytes) -> bool:
    return data.startswith(_PNG) and len(data) > 25 and data[24] == 16 and data[25] != 0


def _bits(picture: Image.Image, data: bytes) -> int:
    """How many bits a channel of it has in the file."""
    if picture.format == "TIFF":
        return max(picture.tag_v2.get(_BITS_PER_SAMPLE, (8,)))  # pyright: ignore[reportAttributeAccessIssue]
    if picture.format == "PPM":
        return _most_of_ppm(data).bit_length()
    if picture.format == "JPEG2000":
        at = data.find(b"\xff\x51")  # SIZ: after 38 bytes the depth less 1 of each component, and its sign
        return 1 + max(data[at + 40 : at + 40 + 3 * int.from_bytes(data[at + 38 : at + 40]) : 3], default=7) % 128
    if picture.format == "AVIF":
        at = data.find(b"av1C")  # its third byte: high_bitdepth, twelve_bit
        flags = data[at + 6] if 0 < at < len(data) - 6 else 0
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    return 8


def _most_of_ppm(data: bytes) -> int:
    """The value of white that the header of a PPM states, behind its name, width and height."""
    words = b" ".join(line.partition(b"#")[0] for line in data[:4096].split(b"\n")).split()
    return int(words[3]) if len(words) > 3 and words[3].isdigit() and words[0] not in (b"P1", b"P4") else 1


def _of_png(data: bytes) -> tuple[Values, np.ndarray | None]:
    import png

    width, height, rows, info = png.Reader(bytes=data).asDirect()
    layers = np.stack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, info["planes"])
    return _parted(layers, bool(info["alpha"]))


def _of_tiff(data: bytes) -> tuple[Values, np.ndarray | None]:
    import tifffile

    with tifffile.TiffFile(BytesIO(data)) as file:
        page = file.pages.first
        try:
            layers, planes = page.asarray(), page.samplesperpixel
        except ValueError as error:  # packed in a way that takes another library, such as LZW
            raise PictureError(
                f"16-bit colours that cannot be unpacked ({error}); save it uncompressed or as PNG"
            ) from None
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and planes > 1:
            layers = np.moveaxis(layers, 0, -1)
        if layers.dtype.kind != "u" or page.photometric != tifffile.PHOTOMETRIC.RGB:
            raise PictureError(
                f"16-bit values of the kind {tifffile.PHOTOMETRIC(page.photometric).name}; convert it to RGB"
            )
        if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
            raise PictureError("an alpha that its colours are multiplied by; convert it to PNG")
        clear = tifffile.EXTRASAMPLE.UNASSALPHA in page.extrasamples
        return _parted(layers[..., : 3 + clear].astype(np.uint16), clear)


def _parted(layers: Values, alpha: bool) -> tuple[Values, np.ndarray | None]:
    if not alpha:
        return layers, None
    return np.ascontiguousarray(layers[..., :-1]), np.ascontiguousarray(layers[..., -1])
