"""Animated pictures that browsers and viewers show."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from nirvana import files

SUFFIXES = (".gif", ".png", ".webp")


def save_animation(frames: Sequence[Image.Image], path: Path, fps: int | float = 10, hold: int | float = 1.5) -> None:
    """Write `frames` as an endless animation, the last one shown for `hold` seconds more; whole or not there.

    The name chooses the format. `.webp` and `.png` are lossless, and every browser shows them. `.gif` is shown by
    everything else as well, lossless for grey frames (256 greys), of 256 colours a frame otherwise, and counts time in
    hundredths of a second. ValueError: no frames, frames of different sizes or modes, modes other than L and RGB, fps
    outside (0, 50], another suffix.
    """
    if not frames or len({(frame.size, frame.mode) for frame in frames}) > 1 or frames[0].mode not in ("L", "RGB"):
        raise ValueError("an animation needs frames, all of one size and of one mode, L or RGB")
    if not 0 < fps <= 50 or hold < 0:
        raise ValueError(f"fps {fps} is not in (0, 50], or hold {hold} is negative")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: an animation is a file of type {', '.join(SUFFIXES)}")
    step = round(100 / fps) * 10
    durations = [step] * (len(frames) - 1) + [step + round(hold * 100) * 10]
    first, rest, out = frames[0], list(frames[1:]), BytesIO()
    if suffix == ".webp":
        first.save(
            out, "WEBP", save_all=True, append_images=rest, duration=durations, loop=0, lossless=True, quality=50
        )
    elif suffix == ".gif":
        first.save(out, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)
    else:
        first.save(out, "PNG", save_all=True, append_images=rest, duration=durations, loop=0)
    files.write_bytes(path, out.getvalue())
