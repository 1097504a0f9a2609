"""A folder with one of every defect, and one without any."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

JPEG = {"quality": 92}


def picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    """A smooth picture unlike those of other seeds."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def clean(root: Path, count: int = 12) -> Path:
    """Two classes of pictures that nothing is wrong with, each with a caption of its own."""
    for i in range(count):
        folder = root / ("roses" if i % 2 else "tulips")
        folder.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / f"{i}.jpg", **JPEG)
        (folder / f"{i}.txt").write_text(f"flower number {i}")
    return root


def png(width: int, height: int, bits: int, rows: bytes) -> bytes:
    """An RGB PNG of what its header should state and its rows hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_colours(seed: int) -> bytes:
    """A picture of three times 16 bits, which Pillow reads and does not write."""
    values = np.asarray(picture(seed)).astype(">u2") * 257
    return png(120, 90, 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))


def rotated(path: Path, seed: int, kind: str = "JPEG") -> None:
    """A picture that EXIF turns by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(seed).save(path, kind, exif=exif)


def defective(root: Path) -> dict[str, set[str]]:
    """Defects beside twelve good pictures; which files each kind of finding has to name."""
    clean(root)
    roses, tulips = root / "roses", root / "tulips"
    data = (roses / "1.jpg").read_bytes()
    (roses / "half.jpg").write_bytes(data[: len(data) // 2])
    (roses / "same.jpg").write_bytes(data)
    (tulips / "other-label.jpg").write_bytes((roses / "3.jpg").read_bytes())
    (tulips / "text.jpg").write_text("hello")
    (tulips / "empty.png").touch()
    (roses / "bomb.png").write_bytes(png(50_000, 50_000, 8, b""))
    picture(100).save(roses / "png.jpg", "PNG")
    rotated(roses / "rotated.jpg", 101)
    layered = picture(102).convert("RGBA")
    layered.putalpha(Image.linear_gradient("L").resize(layered.size))
    layered.save(tulips / "alpha.png")
    picture(103).convert("P").save(tulips / "palette.png")
    Image.fromarray(np.asarray(picture(104).convert("L")).astype(np.uint16) * 257).save(tulips / "deep.png")
    (tulips / "deep-colours.png").write_bytes(deep_colours(113))
    picture(105).convert("CMYK").save(tulips / "cmyk.jpg")
    picture(106).save(tulips / "moving.webp", save_all=True, append_images=[picture(107)])
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture(108).save(tulips / "lab.png", icc_profile=lab)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture(109).save(tulips / "srgb.png", icc_profile=srgb)
    with Image.open(roses / "5.jpg") as opened:
        opened.save(roses / "again.jpg", quality=60)
    with Image.open(roses / "7.jpg") as opened:
        opened.crop((1, 1, 119, 89)).save(roses / "crop.png")
    with Image.open(roses / "9.jpg") as opened:
        opened.resize((60, 45)).save(roses / "small.jpg", quality=95)
    picture(110, 8, 8).save(roses / "tiny.png")
    picture(111, 600, 60).save(roses / "banner.png")
    Image.new("RGB", (90, 90), (200, 10, 10)).save(roses / "red.png")
    picture(112).save(root / "loose.png")
    (roses / "png.txt").write_text(" \n")
    (roses / "rotated.txt").write_text("rose " * 100)
    (tulips / "alpha.txt").write_text("flower number 2")
    return {
        "corrupt": {"tulips/text.jpg", "tulips/empty.png"},
        "truncated": {"roses/half.jpg"},
        "bomb": {"roses/bomb.png"},
        "two-labels": {"tulips/other-label.jpg"},
        "duplicate": {"roses/same.jpg"},
        "near-duplicate": {"roses/again.jpg", "roses/crop.png", "roses/small.jpg"},
        "tiny": {"roses/tiny.png"},
        "one-colour": {"roses/red.png"},
        "extreme-aspect": {"roses/banner.png"},
        "unlabelled": {"loose.png"},
        "empty-caption": {"roses/png.jpg"},
        "long-caption": {"roses/rotated.jpg"},
        "shared-caption": {"tulips/alpha.png", "tulips/2.jpg"},
        "wrong-extension": {"roses/png.jpg"},
        "rotated": {"roses/rotated.jpg"},
        "alpha": {"tulips/alpha.png"},
        "palette": {"tulips/palette.png"},
        "16-bit": {"tulips/deep.png", "tulips/deep-colours.png"},
        "cmyk": {"tulips/cmyk.jpg"},
        "animated": {"tulips/moving.webp"},
        "profile": {"tulips/lab.png"},
    }
