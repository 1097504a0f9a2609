"""Animations: frames, times, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.modality import save_animation


def frames(count: int, mode: str) -> list[Image.Image]:
    shape = (8, 9) if mode == "L" else (8, 9, 3)
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def played(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as found:
        shown, times = [], []
        for i in range(found.n_frames):
            found.seek(i)
            found.load()
            shown.append(np.asarray(found.convert("RGB")))
            times.append(found.info["duration"])
        assert found.info.get("loop") == 0
    return shown, times


@pytest.mark.parametrize(
    ("name", "mode"), [("a.webp", "L"), ("a.webp", "RGB"), ("a.PNG", "L"), ("a.png", "RGB"), ("a.gif", "L")]
)
def test_lossless_frames_in_time(tmp_path: Path, name: str, mode: str) -> None:
    made = frames(3, mode)
    save_animation(made, tmp_path / name, fps=8, hold=2)
    shown, times = played(tmp_path / name)
    assert times == [120, 120, 2120]
    assert all(np.array_equal(a, np.asarray(b.convert("RGB"))) for a, b in zip(shown, made, strict=True))
    assert os.listdir(tmp_path) == [name]


def test_gif_of_colour_is_close(tmp_path: Path) -> None:
    made = frames(2, "RGB")
    save_animation(made, tmp_path / "a.gif")
    shown, times = played(tmp_path / "a.gif")
    assert times == [100, 1600]
    assert max(np.abs(a.astype(int) - np.asarray(b)).mean() for a, b in zip(shown, made, strict=True)) < 8


def test_bad_arguments_write_nothing(tmp_path: Path) -> None:
    good = frames(2, "L")
    for bad in ([], [*good, frames(1, "RGB")[0]], [*good, Image.new("L", (1, 1))], [Image.new("P", (2, 2))]):
        with pytest.raises(ValueError, match="an animation needs frames"):
            save_animation(bad, tmp_path / "a.webp")
    for fps in (0, -1, 51):
        with pytest.raises(ValueError, match="fps"):
            save_animation(good, tmp_path / "a.webp", fps=fps)
    with pytest.raises(ValueError, match=r"a\.mp4"):
        save_animation(good, tmp_path / "a.mp4")
    assert os.listdir(tmp_path) == []
