"""How items are shown and written. numpy and Pillow only."""

from __future__ import annotations

from nirvana.modality.animation import save_animation
from nirvana.modality.image import grid, mosaic, sheet
from nirvana.modality.png import read_png, read_png_metadata, to_png_bytes, write_png

__all__ = [
    "grid",
    "mosaic",
    "read_png",
    "read_png_metadata",
    "save_animation",
    "sheet",
    "to_png_bytes",
    "write_png",
]
