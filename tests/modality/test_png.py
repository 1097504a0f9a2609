"""PNG files with metadata: exact pixels, exact JSON, damage refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from nirvana.errors import Refused
from nirvana.modality import read_png, read_png_metadata, to_png_bytes, write_png
from nirvana.modality.png import to_picture

METADATA = {
    "prompt": 'rote Blüte 🌷 \u2028 "quoted" \\ \n\t\0 猫',
    "seed": 2**63 - 1,
    "guidance": 0.1,
    "label": None,
    "nested": {"steps": [1, 2.5, True]},
    "": "x" * 100_000,
}


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pixels_and_metadata_come_back_exactly(tmp_path: Path, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, channels), dtype=np.uint8)
    write_png(tmp_path / "a.png", pixels, METADATA)
    found, metadata = read_png(tmp_path / "a.png")
    assert np.array_equal(found, pixels)
    assert metadata == METADATA
    assert read_png_metadata(tmp_path / "a.png") == METADATA
    assert os.listdir(tmp_path) == ["a.png"]


def test_bytes_are_a_function_of_the_arguments() -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6)
    assert to_png_bytes(pixels, METADATA) == to_png_bytes(pixels[..., None].copy(), METADATA)
    assert to_png_bytes(pixels) == to_png_bytes(np.asfortranarray(pixels))
    assert to_png_bytes(pixels) != to_png_bytes(pixels, {})


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_png(path, np.zeros((2, 2), np.uint8), {"n": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_png(path, np.ones((2, 2), np.uint8), {"n": 2})
    assert read_png_metadata(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["a.png"]


def with_text(path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("nirvana", text)
    Image.new("L", (2, 2)).save(path, pnginfo=info)


@pytest.mark.parametrize("text", ["", "{", "[1]", "nul", '"x"', "[" * 100_000])
def test_damaged_metadata_are_refused(tmp_path: Path, text: str) -> None:
    with_text(tmp_path / "a.png", text)
    with pytest.raises(Refused, match=r"a\.png: its record .* is damaged"):
        read_png_metadata(tmp_path / "a.png")


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(Refused, match=r"a\.png: no such file"):
        read_png_metadata(path)
    Image.new("L", (2, 2)).save(path)
    with pytest.raises(Refused, match="does not say how it was made"):
        read_png_metadata(path)
    Image.new("L", (2, 2)).save(path, "JPEG")
    with pytest.raises(Refused, match="not a PNG"):
        read_png_metadata(path)
    with pytest.raises(Refused, match="not a PNG"):
        read_png_metadata(tmp_path)


def test_every_truncation_is_refused_or_whole(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    data = to_png_bytes(pixels, {"n": 1})
    path = tmp_path / "a.png"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found, metadata = read_png(path)
        except Refused:
            continue
        assert metadata == {"n": 1}
        assert np.array_equal(found[..., 0], pixels)


@pytest.mark.parametrize("shape", [(2, 2, 2), (2,), (0, 2), (2, 2, 3, 1)])
def test_other_shapes_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no picture"):
        to_picture(np.zeros(shape, np.uint8))


def test_other_types_are_no_pictures_and_nan_is_no_json() -> None:
    with pytest.raises(ValueError, match="no picture"):
        to_picture(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="JSON"):
        to_png_bytes(np.zeros((2, 2), np.uint8), {"loss": float("nan")})
