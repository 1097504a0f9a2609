"""Exact pixels of every kind of picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from nirvana.data import decode as module
from nirvana.data.decode import PictureError, decode, fit, reason


def encoded(picture: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, file_format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand, so that the oracle does not come from Pillow."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def some_rgb(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey3(values: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8)[..., None], 3, axis=2)


def test_rgb_of_the_right_size_is_untouched() -> None:
    pixels = some_rgb(5, 5)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert np.array_equal(decode(encoded(Image.fromarray(pixels), kind), 5), pixels), kind
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), "WEBP", lossless=True), 5), pixels)


EXIF_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    # how an upright picture is stored under each orientation (EXIF 2.3, tag 274: where row 0 and column 0 lie)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientations_all_give_the_upright_picture(orientation: int, kind: str) -> None:
    upright = some_rgb(4, 7)  # an odd margin: the crop must come after the rotation
    exif = Image.Exif()
    exif[274] = orientation
    stored = np.ascontiguousarray(EXIF_STORED[orientation](upright))
    assert np.array_equal(decode(encoded(Image.fromarray(stored), kind, exif=exif), 4), upright[:, 1:5])


def test_exif_orientation_of_a_jpeg() -> None:
    picture = Image.new("RGB", (64, 32), (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, 64, 16))
    exif = Image.Exif()
    exif[274] = 6  # row 0 of the file is the right-hand side
    result = decode(encoded(picture, "JPEG", exif=exif, quality=95), 32)
    assert result[:, :15].max() < 20
    assert result[:, 17:].min() > 235


def test_damaged_exif_does_not_cost_the_picture() -> None:
    pixels = some_rgb(4, 4)
    data = encoded(Image.fromarray(pixels))
    broken = data[:33] + chunk(b"eXIf", b"II*\x00\xff\xff\xff\xff garbage") + data[33:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "getexif", lambda self: (_ for _ in ()).throw(SyntaxError("not a TIFF")))
        assert np.array_equal(decode(broken, 4), pixels)


def test_alpha_is_composited_on_white_exactly() -> None:
    colours = np.array([[[0, 100, 200]] * 256], np.uint8).repeat(256, axis=0)
    alpha = np.arange(256, dtype=np.uint8)[None].repeat(256, axis=0)
    data = encoded(Image.fromarray(np.dstack([colours, alpha])))
    exact = (colours.astype(np.float64) * alpha[..., None] + 255.0 * (255 - alpha[..., None].astype(np.float64))) / 255
    assert np.array_equal(decode(data, 256), np.floor(exact + 0.5).astype(np.uint8))


def test_hidden_colour_under_zero_alpha_does_not_bleed_when_resized() -> None:
    layers = np.zeros((8, 8, 4), np.uint8)
    layers[..., 0] = 255  # fully transparent red
    assert (decode(encoded(Image.fromarray(layers)), 2) == 255).all()


def test_grey_with_alpha() -> None:
    layers = np.array([[[10, 255], [10, 0]], [[200, 255], [0, 51]]], np.uint8)
    data = raw_png(2, 2, 8, 4, b"".join(b"\0" + row.tobytes() for row in layers))
    assert np.array_equal(decode(data, 2), grey3([[10, 255], [200, 204]]))


def test_palette_with_and_without_transparency() -> None:
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    rows = b"\0\0\1\0\2\1"
    plain = raw_png(2, 2, 8, 3, rows, chunk(b"PLTE", palette))
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    assert decode(plain, 2).tolist() == [[red, green], [blue, green]]
    partly = raw_png(2, 2, 8, 3, rows, chunk(b"PLTE", palette) + chunk(b"tRNS", bytes([0, 102])))
    assert decode(partly, 2).tolist() == [[[255] * 3, [153, 255, 153]], [blue, [153, 255, 153]]]


def test_transparent_colour_of_rgb_and_grey() -> None:
    rgb = raw_png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    assert decode(rgb, 1).tolist() == [[[255] * 3]]
    grey = raw_png(1, 1, 8, 0, b"\0\7", chunk(b"tRNS", struct.pack(">H", 7)))
    assert decode(grey, 1).tolist() == [[[255] * 3]]


def test_one_bit() -> None:
    assert np.array_equal(decode(raw_png(2, 2, 1, 0, b"\0\x80\0\x40"), 2), grey3([[255, 0], [0, 255]]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_at_full_range(kind: str) -> None:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    expected = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decode(encoded(Image.fromarray(values), kind), 16), expected[..., None].repeat(3, 2))


def test_16_bit_grey_is_rounded_and_knows_its_transparent_value() -> None:
    values = struct.pack(">BHHBHH", 0, 128, 129, 0, 65535, 1000)
    assert np.array_equal(decode(raw_png(2, 2, 16, 0, values), 2), grey3([[0, 1], [255, 4]]))
    clear = raw_png(2, 2, 16, 0, values, chunk(b"tRNS", struct.pack(">H", 1000)))
    assert np.array_equal(decode(clear, 2), grey3([[0, 1], [255, 255]]))


def test_16_bit_colour_at_full_range() -> None:
    values = struct.pack(">BHHH", 0, 65535, 257 * 77, 0)
    assert decode(raw_png(1, 1, 16, 2, values), 1).tolist() == [[[255, 77, 0]]]


def test_32_bit_integers_and_floats_need_a_known_range() -> None:
    assert decode(encoded(Image.fromarray(np.array([[257 * 9]], np.int32)), "TIFF"), 1).tolist() == [[[9] * 3]]
    assert decode(encoded(Image.fromarray(np.array([[0.4]], np.float32)), "TIFF"), 1).tolist() == [[[102] * 3]]
    for bad in (np.array([[70000]], np.int32), np.array([[-1]], np.int32), np.array([[1.5]], np.float32)):
        with pytest.raises(PictureError, match="outside"):
            decode(encoded(Image.fromarray(bad), "TIFF"), 1)
    with pytest.raises(PictureError, match="outside"):
        decode(encoded(Image.fromarray(np.array([[np.nan]], np.float32)), "TIFF"), 1)


def test_cmyk() -> None:
    inks = np.array([[[0, 0, 0, 0], [0, 255, 255, 0]], [[0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    expected = [[[255, 255, 255], [255, 0, 0]], [[0, 0, 0], [0, 255, 255]]]
    assert decode(encoded(Image.fromarray(inks, "CMYK"), "TIFF"), 2).tolist() == expected


def test_adobe_cmyk_jpeg_has_inverted_inks() -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode(data, 16).astype(int) - [255, 0, 0]).max() <= 2


def test_first_frame_of_animations() -> None:
    red, blue = Image.new("RGB", (3, 3), (255, 0, 0)), Image.new("RGB", (3, 3), (0, 0, 255))
    for kind, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(red, kind, save_all=True, append_images=[blue], duration=100, **options)
        assert np.array_equal(decode(data, 3), np.full((3, 3, 3), [255, 0, 0])), kind


def test_crop_takes_the_centre_and_resampling_keeps_constants() -> None:
    wide = np.zeros((2, 6, 3), np.uint8)
    wide[:, 2:4] = 200
    assert (np.asarray(fit(Image.fromarray(wide), 2)) == 200).all()
    assert (np.asarray(fit(Image.fromarray(wide.swapaxes(0, 1).copy()), 2)) == 200).all()
    assert (np.asarray(fit(Image.new("L", (50, 40), 77), 8)) == 77).all()


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = np.asarray(fit(Image.fromarray(stripes), 8)).astype(int)
    assert np.abs(small[:, 1:-1] - 127.5).max() < 4


def test_large_jpeg_is_close_to_its_full_decoding() -> None:
    y, x = np.mgrid[:128, :128]
    rings = (127.5 + 127.5 * np.cos((x * x + y * y) / 200)).astype(
        np.uint8
    )  # every frequency the small picture can hold
    data = encoded(Image.fromarray(rings), "JPEG", quality=95)
    full = np.asarray(fit(Image.open(io.BytesIO(data)), 16)).astype(int)
    assert np.abs(decode(data, 16)[..., 0].astype(int) - full).mean() < 4


def test_bombs_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(PictureError, match="11586 x 11586 pixels"):
        decode(raw_png(11_586, 11_586, 8, 0, b""), 8)
    with pytest.raises(PictureError, match="more than 134217728 pixels"):  # above Pillow's own limit
        decode(raw_png(60_000, 60_000, 8, 0, b""), 8)


def test_limit_of_pixels_is_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 12)
    assert decode(encoded(Image.new("L", (4, 3))), 2).shape == (2, 2, 3)
    with pytest.raises(PictureError, match="13 x 1 pixels, more than 12"):
        decode(encoded(Image.new("L", (13, 1))), 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_files_raise(kind: str) -> None:
    data = encoded(Image.fromarray(some_rgb(40, 40)), kind)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        decode(data[: len(data) * 6 // 10], 8)
    text = reason(caught.value)
    assert text
    assert "0x" not in text
    assert "\n" not in text


def test_scripts_and_unknown_formats_are_not_opened() -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", b"", b"hello", b"<svg/>"):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            decode(data, 8)
        assert reason(caught.value) == "no picture in a known format"
