"""A picture of the user's, with the depth and alpha it has, of which only a part is replaced.

The EXIF rotation is applied, palettes are expanded, CMYK becomes RGB. 8 and 16 bits, alpha and the colour profile are
kept. What is written is PNG: it loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, PngImagePlugin

from nirvana.data.decode import PictureError, eight_bits, open_picture, orientation, reason, sixteen_bits, turned
from nirvana.edit import deep
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.modality.png import CHUNK

Values = np.ndarray
"""uint8 or uint16 of shape (h, w, c)."""

_DEEP, _PLAIN = 65535, 255


class Unreadable(Refused):
    """A file that is no picture that can be read."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as it is to be seen. pixels: (h, w, 1 or 3), uint8 or uint16; alpha: (h, w) of the same type, or None.

    profile: its ICC profile, or None.
    """

    pixels: Values
    alpha: np.ndarray | None = None
    profile: bytes | None = None

    @staticmethod
    def of(picture: Image.Image) -> Photo:
        """A picture of Pillow's. Refused where it has no 8 or 16 bits."""
        try:
            return _upright(picture, *_layers(picture))
        except PictureError as error:
            raise Refused(f"the picture has {error}; convert it to RGB") from None

    @property
    def pil(self) -> Image.Image:
        """For Pillow, which has no more than 8 bits of colours."""
        return _picture(eight_bits(self.layers) if self.most == _DEEP else self.layers)

    @property
    def layers(self) -> Values:
        """(h, w, c) with the alpha, if there is one, behind the colours."""
        return self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def most(self) -> int:
        """The value of white: 255 or 65535."""
        return _DEEP if self.pixels.dtype == np.uint16 else _PLAIN

    def bytes(self, channels: int) -> UInt8[np.ndarray, "h w c"]:
        """The pixels in 8 bits and 1 or 3 `channels`, as a model sees them: round(v / 257); colours to grey by BT.601.

        Alpha has no part in it: what is transparent has colours too.
        """
        plain = eight_bits(self.pixels) if self.most == _DEEP else self.pixels
        if plain.shape[2] == channels:
            return plain
        if channels == 3:
            return np.repeat(plain, 3, axis=2)
        return np.asarray(Image.fromarray(plain).convert("L"))[..., None]

    @property
    def seen(self) -> UInt8[np.ndarray, "h w c"]:
        """The pixels in 8 bits, as they are seen on white."""
        plain = self.bytes(self.pixels.shape[2])
        if self.alpha is None:
            return plain
        share = self.alpha[..., None] / self.most
        return np.rint(share * plain + (1 - share) * _PLAIN).astype(np.uint8)

    def edited(self, new: UInt8[np.ndarray, "h w c"], share: Float[np.ndarray, "h w"]) -> Photo:
        """Where `share` > 0 pixels become share * new + (1 - share) * old, rounded; elsewhere they stay, to the bit.

        A grey picture takes the grey of coloured pixels; a coloured one takes grey ones as they are. Alpha is kept.
        """
        ours = self.pixels.shape[2]
        fitting = Photo(new).bytes(ours) if new.shape[2] != ours else new
        weight = share[..., None].astype(np.float64)
        mixed = weight * (fitting.astype(np.float64) * (self.most // _PLAIN)) + (1 - weight) * self.pixels
        return replace(self, pixels=np.where(weight > 0, np.rint(mixed).astype(self.pixels.dtype), self.pixels))

    def padded(self, left: int, top: int, right: int, bottom: int) -> Photo:
        """With so many more pixels on each side: the nearest ones repeated, opaque."""
        around = ((top, bottom), (left, right))
        pixels = np.pad(self.pixels, (*around, (0, 0)), mode="edge")
        alpha = None if self.alpha is None else np.pad(self.alpha, around, constant_values=self.most)
        return replace(self, pixels=pixels, alpha=alpha)

    def png(self, record: Mapping[str, Json] | None = None) -> bytes:
        """A PNG file of it, with the `record` of how it was made. ValueError: NaN in the record."""
        text = None if record is None else json.dumps(record, allow_nan=False)
        layers = self.layers
        if self.most == _DEEP and layers.shape[2] > 1:
            return _deep_png(layers, text, self.profile)
        info = PngImagePlugin.PngInfo()
        if text is not None:
            info.add_text(CHUNK, text)
        out = BytesIO()
        _picture(layers).save(out, "PNG", pnginfo=info, icc_profile=self.profile)
        return out.getvalue()


def read_photo(path: str | Path) -> Photo:
    """The picture at `path`: of an animation its first frame. Unreadable, with the reason, where it cannot be read."""
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Refused(f"{path}: no such file; name a picture") from None
    except IsADirectoryError:
        raise Refused(f"{path} is a folder; name a picture in it") from None
    except OSError as error:
        raise Unreadable(f"{path}: {reason(error)}; name a picture that can be opened") from None
    try:
        return photo_of(data)
    except Exception as error:  # Pillow raises anything on damaged files
        raise Unreadable(f"{path}: {reason(error)}; name a picture that can be opened") from None


def photo_of(data: bytes) -> Photo:
    """The picture in `data`. Errors as `nirvana.data.decode.reason` explains them."""
    with open_picture(BytesIO(data)) as picture:
        stated = orientation(picture)
        picture.load()
        kept = deep.kept(picture, data)
        if kept is None:
            return _upright(picture, *_layers(picture))
        # Pillow turns a TIFF while it loads it, and forgets that it was to be turned.
        return _upright(picture, *kept, stated if picture.format == "TIFF" else None)


def _upright(picture: Image.Image, pixels: Values, alpha: np.ndarray | None, turn: int | None = None) -> Photo:
    turn, profile = orientation(picture) if turn is None else turn, picture.info.get("icc_profile")
    # The profile of inks does not fit the RGB that they became.
    kept = profile if isinstance(profile, bytes) and picture.mode != "CMYK" else None
    return Photo(turned(pixels, turn), None if alpha is None else turned(alpha, turn), kept)


def _layers(picture: Image.Image) -> tuple[Values, np.ndarray | None]:
    """Pixels and alpha of what Pillow keeps whole: 8 bits, and 16 bits of grey."""
    if picture.mode.startswith("I"):
        grey = sixteen_bits(np.asarray(picture))
        clear = picture.info.get("transparency")
        alpha = np.where(grey == clear, 0, _DEEP).astype(np.uint16) if isinstance(clear, int) else None
        return grey[..., None], alpha
    if picture.mode == "F":
        raise PictureError("floating-point values, which have no 8 or 16 bits to keep")
    grey = picture.mode in ("1", "L", "LA", "La")
    if picture.has_transparency_data:
        layers = np.asarray(picture.convert("RGBA"))
        return np.ascontiguousarray(layers[..., : 1 if grey else 3]), np.ascontiguousarray(layers[..., 3])
    plain = np.asarray(picture.convert("L" if grey else "RGB"))
    return (plain[..., None] if grey else plain), None


def _picture(layers: Values) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(layers[..., 0] if layers.shape[2] == 1 else layers))


def _deep_png(layers: Values, text: str | None, profile: bytes | None) -> bytes:
    import zlib

    import png

    height, width, planes = layers.shape
    out = BytesIO()
    png.Writer(width, height, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16).write_packed(
        out, (row.astype(">u2").tobytes() for row in layers)
    )
    head, *rest = png.Reader(bytes=out.getvalue()).chunks()
    extra: list[tuple[bytes, bytes]] = []
    if profile is not None:
        extra.append((b"iCCP", b"profile\0\0" + zlib.compress(profile)))
    if text is not None:
        extra.append((b"tEXt", CHUNK.encode() + b"\0" + text.encode("ascii")))
    whole = BytesIO()
    png.write_chunks(whole, [head, *extra, *rest])
    return whole.getvalue()
