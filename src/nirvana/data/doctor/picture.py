"""One picture on the table: what its file is, and what training makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana.data.decisions import sha256
from nirvana.data.decode import one_at_a_time, open_picture, orientation, reason, upright
from nirvana.data.doctor.alignment import SIDE
from nirvana.data.doctor.duplicates import small_copy

EXTENSIONS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpc", ".j2c", ".jpf"),
    "AVIF": (".avif", ".avifs"),
}
"""The extensions of a format, the usual one first."""

ONE_COLOUR = 1.0
"""Standard deviation in levels of 0 to 255 below which a picture shows nothing."""

Copy = UInt8[np.ndarray, "32 32 3"]
NO_COPY = np.zeros((SIDE, SIDE, 3), np.uint8)


@dataclass(frozen=True)
class Picture:
    """What is known of a picture: format ("" where it has no file), size upright, the kinds of findings about its file,
    and the `problem` that keeps it from being read, or "". `sha256` is of its file, else of its pixels."""

    name: str
    sha256: str
    format: str = ""
    width: int = 0
    height: int = 0
    found: tuple[str, ...] = ()
    problem: str = ""
    label: str | None = None
    captions: tuple[str, ...] = ()

    @property
    def side(self) -> int:
        """The shorter side in pixels."""
        return min(self.width, self.height)


def examine(name: str, data: bytes, named: bool) -> tuple[Picture, Copy]:
    """The picture in the bytes of a file and its small copy. `named`: whether the name is one of a file."""
    digest = sha256(data)
    try:
        with open_picture(BytesIO(data)) as opened, one_at_a_time(opened):
            kind = opened.format or ""
            found = _peculiar(opened)
            turned = orientation(opened) in (5, 6, 7, 8)
            width, height = opened.size[::-1] if turned else opened.size
        shown = upright(data, 2 * SIDE)
    except Exception as error:  # Pillow raises anything on damaged files; each is named
        return unreadable(name, reason(error), digest), NO_COPY
    if named and PurePosixPath(name).suffix.casefold() not in EXTENSIONS[kind]:
        found.append("wrong-extension")
    if _one_colour(shown):
        found.append("one-colour")
    return Picture(name, digest, kind, width, height, tuple(found)), np.asarray(small_copy(shown))


def examine_pixels(name: str, digest: str, pixels: UInt8[np.ndarray, "h w *c"]) -> tuple[Picture, Copy]:
    """A picture that is no file."""
    shown = as_picture(pixels)
    found = ("one-colour",) if _one_colour(shown) else ()
    return Picture(name, digest, "", *shown.size, found), np.asarray(small_copy(shown))


def as_picture(pixels: UInt8[np.ndarray, "h w *c"]) -> Image.Image:
    """Grey or colour pixels as an RGB picture."""
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")


def unreadable(name: str, problem: str, digest: str = "") -> Picture:
    """A file that is no picture, or not any more."""
    kind = "bomb" if "pixels, more than" in problem or "states more than" in problem else "corrupt"
    if any(word in problem.casefold() for word in ("truncated", "unexpected end", "requires a buffer")):
        kind = "truncated"
    return Picture(name, digest, found=(kind,), problem=problem)


def _one_colour(shown: Image.Image) -> bool:
    return bool(np.asarray(shown.reduce(max(1, min(shown.size) // 64))).std((0, 1)).max() < ONE_COLOUR)


def _peculiar(opened: Image.Image) -> list[str]:
    """What is unusual about a file, by its header."""
    deep = opened.mode[0] in "IF" or _deep(opened)  # before EXIF, for which Pillow decodes some formats
    facts = {
        "rotated": orientation(opened) not in (0, 1),
        "alpha": opened.has_transparency_data,
        "palette": opened.mode in ("P", "PA"),
        "16-bit": deep,
        "cmyk": opened.mode == "CMYK",
        "animated": opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1,
        "profile": _foreign_profile(opened.info.get("icc_profile")),
    }
    return [kind for kind, is_so in facts.items() if is_so]


def _deep(opened: Image.Image) -> bool:
    """Whether the samples in the file have 16 bits, which the decoder is told by the raw mode."""
    tiles: object = getattr(opened, "tile", [])
    return ";16" in str(tiles)


def _foreign_profile(profile: object) -> bool:
    """Whether there is a colour profile that does not call itself sRGB, by its description as text."""
    if not isinstance(profile, bytes) or not profile:
        return False
    return b"sRGB" not in profile and "sRGB".encode("utf-16-be") not in profile
