"""What was to stay stays: depth, alpha, profile, and every pixel outside of an edit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from nirvana.data.decode import PictureError, turned
from nirvana.edit import Photo, read_photo
from nirvana.edit.deep import kept
from nirvana.errors import Refused
from nirvana.modality.png import read_png_metadata

RNG = np.random.default_rng(5)


def values(channels: int, deep: bool = False, size: tuple[int, int] = (6, 9)) -> np.ndarray:
    return RNG.integers(0, 65536 if deep else 256, (*size, channels)).astype(np.uint16 if deep else np.uint8)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again(tmp_path: Path, channels: int, alpha: bool, deep: bool) -> None:
    photo = Photo(values(channels, deep), values(1, deep)[..., 0] if alpha else None, b"a profile")
    (tmp_path / "a.png").write_bytes(photo.png({"seed": 3}))
    again = read_photo(tmp_path / "a.png")
    assert again.pixels.dtype == photo.pixels.dtype and np.array_equal(again.pixels, photo.pixels)
    assert again.profile == b"a profile"
    if photo.alpha is None:
        assert again.alpha is None
    else:
        assert again.alpha is not None and np.array_equal(again.alpha, photo.alpha)
    assert read_png_metadata(tmp_path / "a.png") == {"seed": 3}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_outside_the_mask_nothing_changes_in_ten_edits(tmp_path: Path, channels: int, deep: bool) -> None:
    photo = first = Photo(values(channels, deep), values(1, deep)[..., 0])
    share = RNG.choice([0.0, 0.3, 1.0], photo.size)
    for i in range(10):
        photo = photo.edited(values(3), share)
        (tmp_path / f"{i}.png").write_bytes(photo.png())
        photo = read_photo(tmp_path / f"{i}.png")
    kept = share == 0
    assert np.array_equal(photo.pixels[kept], first.pixels[kept])
    assert photo.alpha is not None and first.alpha is not None and np.array_equal(photo.alpha, first.alpha)
    assert (photo.pixels[share == 1] != first.pixels[share == 1]).any(-1).mean() > 0.9


def test_an_edit_is_mixed_at_the_depth_of_the_picture() -> None:
    old = np.array([[[0], [100], [200]]], np.uint8)
    new = np.array([[[255], [101], [0]]], np.uint8)
    share = np.array([[1.0, 0.4, 0.5]])
    assert Photo(old).edited(new, share).pixels.ravel().tolist() == [255, 100, 100]
    deep = Photo(old.astype(np.uint16) * 257).edited(new, share).pixels
    assert deep.dtype == np.uint16 and deep.ravel().tolist() == [65535, 25803, 25700]


def test_colours_of_another_number_fit() -> None:
    red = np.full((1, 1, 3), (255, 0, 0), np.uint8)
    one = np.ones((1, 1))
    assert Photo(np.zeros((1, 1, 1), np.uint8)).edited(red, one).pixels.ravel().tolist() == [76]
    assert Photo(np.zeros((1, 1, 3), np.uint8)).edited(red[..., 1:2] + 9, one).pixels.ravel().tolist() == [9, 9, 9]
    deep = Photo(np.array([[[65535, 0, 257]]], np.uint16))
    assert deep.bytes(3).ravel().tolist() == [255, 0, 1]
    assert Photo(np.array([[[128], [129], [65535]]], np.uint16)).bytes(1).ravel().tolist() == [0, 1, 255]


def test_palettes_inks_and_bits_become_what_they_show(tmp_path: Path) -> None:
    colours = Image.fromarray(values(3))
    for name, picture in {
        "palette.png": colours.quantize(8),
        "inks.jpg": colours.convert("CMYK"),
        "bits.png": colours.convert("1"),
        "first.gif": colours,
    }.items():
        picture.save(tmp_path / name)
        with Image.open(tmp_path / name) as written:
            shown = np.asarray(written.convert("L" if name == "bits.png" else "RGB"))
        found = read_photo(tmp_path / name)
        assert np.array_equal(found.pixels.squeeze(), shown), name
        assert found.alpha is None
    clear = colours.quantize(8)
    clear.save(tmp_path / "clear.png", transparency=0)
    found = read_photo(tmp_path / "clear.png")
    with Image.open(tmp_path / "clear.png") as written:
        layers = np.asarray(written.convert("RGBA"))
    assert found.alpha is not None and np.array_equal(np.dstack([found.pixels, found.alpha]), layers)


def test_a_transparent_value_of_16_bits_is_alpha(tmp_path: Path) -> None:
    grey = np.array([[0, 7, 65535]], np.uint16)
    with (tmp_path / "g.png").open("wb") as file:
        png.Writer(3, 1, greyscale=True, bitdepth=16, transparent=7).write(file, grey.tolist())
    found = read_photo(tmp_path / "g.png")
    assert found.alpha is not None and found.alpha.tolist() == [[65535, 0, 65535]]


@pytest.mark.parametrize("turn", range(1, 9))
def test_it_is_turned_as_pillow_turns_it(turn: int) -> None:
    from PIL import ImageOps

    array = values(3)
    exif = Image.Exif()
    exif[0x0112] = turn
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(out))
    assert np.array_equal(turned(array, turn), np.asarray(upright))


def test_exif_is_applied_to_deep_pictures_too(tmp_path: Path) -> None:
    photo = Photo(values(3, deep=True))
    head, *rest = png.Reader(bytes=photo.png()).chunks()
    exif = Image.Exif()
    exif[0x0112] = 6
    with (tmp_path / "t.png").open("wb") as file:
        png.write_chunks(file, [head, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")), *rest])
    assert np.array_equal(read_photo(tmp_path / "t.png").pixels, np.rot90(photo.pixels, -1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("channels", "compression"), [(3, None), (4, None), (3, "zlib")])
def test_tiffs_keep_their_16_bits(
    tmp_path: Path, channels: int, compression: str | None, order: str, planar: str
) -> None:
    layers = values(channels, deep=True)
    written = layers if planar == "contig" else np.moveaxis(layers, -1, 0)
    path, extra = tmp_path / "a.tiff", ["unassalpha"] if channels == 4 else None
    tifffile.imwrite(
        path,
        written,
        photometric="rgb",
        planarconfig=planar,
        byteorder=order,
        compression=compression,
        extrasamples=extra,
        extratags=[(274, "H", 1, 6, True)],
    )
    found = read_photo(path)
    assert found.pixels.dtype == np.uint16 and np.array_equal(found.layers, turned(layers, 6))
    assert (found.alpha is None) == (channels == 3)


def test_colours_of_more_bits_than_can_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6\n# 2 by 1\n2 1\n65535\n" + bytes(12))
    Image.fromarray(values(3, size=(32, 32))).save(tmp_path / "a.avif")
    eight = (tmp_path / "a.avif").read_bytes()
    at = eight.index(b"av1C") + 6
    with Image.open(tmp_path / "a.avif") as avif, pytest.raises(PictureError, match="colours of 10 bits"):
        kept(avif, eight[:at] + bytes([eight[at] | 0x40]) + eight[at + 1 :])
    Image.fromarray(values(3)).save(tmp_path / "a.jp2")
    plain = (tmp_path / "a.jp2").read_bytes()
    at = plain.index(b"\xff\x51") + 40
    deep = plain[:at] + bytes([15, *plain[at + 1 : at + 3], 15, *plain[at + 4 : at + 6], 15]) + plain[at + 7 :]
    (tmp_path / "b.jp2").write_bytes(deep)
    layers = values(4, deep=True)
    tifffile.imwrite(tmp_path / "a.tif", layers, photometric="rgb", extrasamples=["assocalpha"])
    Image.fromarray(values(3, size=(32, 32))).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    packed = (tmp_path / "lzw.tif").read_bytes()
    with Image.open(tmp_path / "lzw.tif") as lzw:
        lzw.tag_v2[258] = (16, 16, 16)  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(PictureError, match=r"unpacked \(.*imagecodecs.*save it"):
            kept(lzw, packed)
    for name, message in (
        ("a.ppm", "colours of 16 bits, of which only 8 can be read from PPM; convert it to PNG"),
        ("b.jp2", "colours of 16 bits"),
        ("a.tif", "an alpha that its colours are multiplied by"),
    ):
        with pytest.raises(Refused, match=message):
            read_photo(tmp_path / name)
    for name in ("a.avif", "a.jp2"):
        assert read_photo(tmp_path / name).pixels.dtype == np.uint8


def test_padding_repeats_the_border() -> None:
    photo = Photo(np.array([[[1], [2]]], np.uint8), np.array([[0, 9]], np.uint8)).padded(1, 0, 2, 1)
    assert photo.pixels[..., 0].tolist() == [[1, 1, 2, 2, 2]] * 2
    assert photo.alpha is not None and photo.alpha.tolist() == [[255, 0, 9, 255, 255], [255] * 5]


def test_what_cannot_be_read_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = Photo(values(3, deep=True)).png()
    for i, cut in enumerate(range(30, len(whole) - 12, 40)):
        (tmp_path / f"cut{i}.png").write_bytes(whole[:cut])
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tiff")
    for path in tmp_path.iterdir():
        with pytest.raises(Refused, match="name a picture") as refusal:
            read_photo(path)
        assert str(refusal.value).startswith(str(path)) and "\n" not in str(refusal.value)
    with pytest.raises(Refused, match="no such file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(Refused, match="is a folder"):
        read_photo(tmp_path)
