"""Pictures side by side, large enough to be seen and labelled where that helps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from nirvana.modality.png import to_picture

VISIBLE = 64
"""Pictures with a shorter side below this many pixels are enlarged, each pixel to a square."""

PADDING = 4
_WHITE, _INK = 255, 32
_FONT_SIZE = 14
_ROW_LABEL_WIDTH = 160
_COLUMN_LABEL_WIDTH = 96


@dataclass(frozen=True)
class _Label:
    """A label broken into lines, and its extent in pixels."""

    text: str
    width: int
    height: int


def grid(
    images: UInt8[np.ndarray, "n h w c"],
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """The pictures row by row on white, `PADDING` pixels apart and around.

    `columns` None: as many as column labels, else a square. `scale` enlarges each pixel to a square; None makes
    the shorter side at least `VISIBLE`. Labels stand left of the rows and above the columns; long ones are broken at
    spaces, and a column grows where a word is wider. Grey pictures (c = 1) give a grey picture. ValueError: nothing to
    show, `columns` or `scale` below 1, or a number of labels that does not fit.
    """
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise ValueError(f"images have shape {images.shape}; at least one picture (n, h, w, 1 or 3) is needed")
    if columns is None:
        columns = len(column_labels) if column_labels else math.ceil(math.sqrt(len(images)))
    factor = max(1, math.ceil(VISIBLE / min(images.shape[1:3]))) if scale is None else scale
    if columns < 1 or factor < 1:
        raise ValueError(f"columns {columns} and scale {factor} must be at least 1")
    rows = math.ceil(len(images) / columns)
    for what, labels, needed in (("row", row_labels, rows), ("column", column_labels, columns)):
        if labels is not None and len(labels) != needed:
            raise ValueError(f"{len(labels)} {what} labels for {needed} {what}s")
    left = [_label(text, _ROW_LABEL_WIDTH) for text in row_labels or ()]
    top = [_label(text, max(images.shape[2] * factor, _COLUMN_LABEL_WIDTH)) for text in column_labels or ()]
    return _page(images, factor, (rows, columns), left, top)


def _page(
    images: UInt8[np.ndarray, "n h w c"], factor: int, shape: tuple[int, int], left: list[_Label], top: list[_Label]
) -> Image.Image:
    """The drawn grid: every picture and every label in the middle of its place."""
    cell_x, cell_y = images.shape[2] * factor, images.shape[1] * factor
    place_x = max(cell_x, *(label.width for label in top), 0)
    place_y = max(cell_y, *(label.height for label in left), 0)
    xs = [PADDING + _extent(label.width for label in left) + c * (place_x + PADDING) for c in range(shape[1] + 1)]
    ys = [PADDING + _extent(label.height for label in top) + r * (place_y + PADDING) for r in range(shape[0] + 1)]
    mode, white, ink = ("L", _WHITE, _INK) if images.shape[3] == 1 else ("RGB", (_WHITE,) * 3, (_INK,) * 3)
    page = Image.new(mode, (xs[-1], ys[-1]), white)
    for i, image in enumerate(images):
        x, y = xs[i % shape[1]] + (place_x - cell_x) // 2, ys[i // shape[1]] + (place_y - cell_y) // 2
        page.paste(to_picture(image).resize((cell_x, cell_y), Image.Resampling.NEAREST), (x, y))
    draw = ImageDraw.Draw(page)
    for y, label in zip(ys, left, strict=False):
        draw.multiline_text((PADDING, y + (place_y - label.height) // 2), label.text, fill=ink, font=_font())
    for x, label in zip(xs, top, strict=False):
        middle = x + (place_x - label.width) // 2
        draw.multiline_text((middle, PADDING), label.text, fill=ink, font=_font(), align="center")
    return page


def _extent(sizes: Iterable[int]) -> int:
    """The room that labels take: none where there are none."""
    largest = max(sizes, default=0)
    return largest + PADDING if largest else 0


def sheet(
    images: UInt8[np.ndarray, "rows columns h w c"],
    x: tuple[str, Sequence[object]],
    y: tuple[str, Sequence[object]] | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A grid over two named axes: the column of value v is labelled "name=v", and `y` labels the rows likewise.

    ValueError as for `grid`, or images that are not (rows, columns, h, w, c).
    """
    if images.ndim != 5:
        raise ValueError(f"images have shape {images.shape}; (rows, columns, h, w, c) is needed")
    row_labels = None if y is None else [f"{y[0]}={value}" for value in y[1]]
    column_labels = [f"{x[0]}={value}" for value in x[1]]
    return grid(images.reshape(-1, *images.shape[2:]), images.shape[1], row_labels, column_labels, scale)


def mosaic(images: UInt8[np.ndarray, "n h w c"], columns: int) -> UInt8[np.ndarray, "rows_h columns_w c"]:
    """The pictures edge to edge as one array, row by row, empty places white: to show several in a cell of a sheet."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    full = np.full((rows * columns, height, width, channels), _WHITE, np.uint8)
    full[:count] = images
    lines = full.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return lines.reshape(rows * height, columns * width, channels)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(_FONT_SIZE)


def _label(text: str, width: int) -> _Label:
    """`text` broken at spaces into lines of at most `width` pixels, as far as its words allow."""
    font = _font()
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    broken = "\n".join(lines)
    if not broken:
        return _Label("", 0, 0)
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), broken, font=font)
    return _Label(broken, math.ceil(box[2]), math.ceil(box[3]))
