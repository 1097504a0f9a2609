"""Three folders for benchmarks/planner.py, and pictures held out from each.

    python benchmarks/planner_folders.py WORK

WORK/fashion: 6,000 grey pictures of 28 pixels in ten classes; held out is a part of the test set. WORK/emoji: drawings
of 64 pixels, by group; held out are other concepts. WORK/photos: 2,400 crops of 96 pixels of eight photographs that
scikit-image brings, without labels; held out are crops of the right quarter of each, which no other crop touches.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from nirvana.data import open_data

PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
CROP, CROPS, HELD_OUT = 96, 300, 75
"""Side of a crop, and how many of each photograph are trained on and held out."""


def save(pictures: np.ndarray, folders: list[Path]) -> None:
    """Picture i as PNG in folder i."""
    for number, (picture, folder) in enumerate(zip(pictures, folders, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(folder / f"{number:05}.png")


def labelled(source: str, out: Path, most: int) -> None:
    """The first pictures of `source`, each in the folder of its label."""
    data = open_data(source)
    if data.labels is None:
        raise SystemExit(f"{source} has no labels")
    images = np.asarray(data.images[:most])
    save(images, [out / data.names[label].replace(" ", "-") for label in data.labels[: len(images)]])


def crops(out: Path, held_out: Path) -> None:
    """Random crops of the left three quarters of every photograph, and of the right one."""
    package = find_spec("skimage")  # found, not imported: only its pictures are needed
    if package is None or package.origin is None:
        raise SystemExit("the photographs come with scikit-image: pip install scikit-image")
    folder, rng = Path(package.origin).parent / "data", np.random.default_rng(0)
    for place, count in ((out, CROPS), (held_out, HELD_OUT)):
        made: list[np.ndarray] = []
        for name in PHOTOS:
            with Image.open(folder / name) as photo:
                pixels = np.asarray(photo.convert("RGB"))
            # A quarter has to hold a crop.
            cut = pixels.shape[1] - max(pixels.shape[1] // 4, CROP)
            part = pixels[:, :cut] if place == out else pixels[:, cut:]
            for _ in range(count):
                top, left = (int(rng.integers(0, side - CROP + 1)) for side in part.shape[:2])
                made.append(part[top : top + CROP, left : left + CROP])
        save(np.stack(made), [place] * len(made))


def main() -> None:
    work = Path(sys.argv[1])
    labelled("fashion-mnist", work / "fashion", 6_000)
    labelled("fashion-mnist:test", work / "fashion-held-out", 600)
    labelled("emoji", work / "emoji", 10**9)
    labelled("emoji:test", work / "emoji-held-out", 600)
    crops(work / "photos", work / "photos-held-out")


if __name__ == "__main__":
    main()
