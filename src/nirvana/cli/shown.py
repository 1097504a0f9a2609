"""Pictures in a terminal, above the bar of what draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress
from rich.segment import Segment
from rich.style import Style

from nirvana.modality import mosaic
from nirvana.modality.png import to_picture

MOST_COLUMNS, MOST_LINES = 80, 20
MOST_PICTURES = 16
UPPER = "\N{UPPER HALF BLOCK}"
COLOURS = ("256", "truecolor", "windows")
"""Of a terminal that can show pictures."""


class HalfBlocks:
    """Pictures of bytes, (n, h, w, 1 or 3), side by side as large as the terminal has room for, in its colours.

    A character holds two pixels: the upper half in its colour, the lower one in that of its background.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures[:MOST_PICTURES]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        pixels = fitted(self.pictures, min(options.max_width, MOST_COLUMNS), min(console.height - 3, MOST_LINES))
        for line in np.concatenate([pixels[::2], pixels[1::2]], axis=2).tolist():
            yield from (Segment(UPPER, _style(*colours)) for colours in line)
            yield Segment.line()


@lru_cache(2**14)
def _style(*colours: int) -> Style:
    """That of a character whose halves have these colours, red, green, blue and red, green, blue."""
    return Style(color=Color.from_rgb(*colours[:3]), bgcolor=Color.from_rgb(*colours[3:]))


def fitted(pictures: np.ndarray, columns: int, lines: int) -> np.ndarray:
    """(rows, columns, 3): the pictures in the arrangement that shows them largest, in at most 2*lines rows, an even
    number of them. They are enlarged by whole numbers, and made smaller by any.
    """
    n, height, width, _ = pictures.shape
    room_y, room_x = max(2 * lines, 2), max(columns, 1)

    def scale(across: int) -> float:
        return min(room_x / (across * width), room_y / (math.ceil(n / across) * height))

    across = max(range(1, n + 1), key=scale)
    picture = to_picture(mosaic(pictures, across)).convert("RGB")
    factor = scale(across) if scale(across) < 1 else math.floor(scale(across))
    size = max(1, round(picture.width * factor)), max(2, round(picture.height * factor) // 2 * 2)
    return np.asarray(picture.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST))


class Pictured(Progress):
    """A progress bar with pictures above it."""

    pictures: np.ndarray | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """The pictures, if there are any, and the bar."""
        if self.pictures is not None:
            yield HalfBlocks(self.pictures)
        yield from super().get_renderables()

    def __exit__(self, *error: object) -> None:
        self.pictures = None  # a preview does not outlast what it is a preview of
        super().__exit__(None, None, None)


def colourful(console: Console) -> bool:
    """Whether its terminal can show pictures."""
    return console.color_system in COLOURS and not console.no_color
