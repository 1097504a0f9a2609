"""Measure the search for near duplicates on real pictures: how many changed copies it finds, and how many false pairs.

    python scripts/measure_duplicates.py [-n 10000] [--changed 500] [--pairs DIR]

Prints two tables for docs/data.md. The pictures are those of emoji, Fashion-MNIST (test) and tiles of the photographs
that scikit-image brings, where it is installed; none occurs twice pixel by pixel. Pairs of emoji of one family ("man
running", "woman running": `nirvana.data.emoji.family`) count apart. `--pairs` writes all pairs out to be looked at.
Every change goes through the search among all the others, and is found where the pair of the picture and its copy is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from nirvana.data import open_data
from nirvana.data.doctor.duplicates import FLAT, near_duplicates, small_copy
from nirvana.data.emoji import family

TILE = 96
"""Side of the tiles of photographs in pixels."""

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture through a JPEG file."""
    out = BytesIO()
    picture.save(out, "JPEG", quality=quality)
    with Image.open(out) as again:
        return again.convert("RGB")


def crop(picture: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """The picture without `share` of its width and height (whole pixels, at least one), taken off anywhere."""
    (width, height), lost = picture.size, [max(1, round(side * share)) for side in picture.size]
    left, top = (int(rng.integers(0, most + 1)) for most in lost)
    return picture.crop((left, top, left + width - lost[0], top + height - lost[1]))


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """The picture resized."""
    return picture.resize([max(1, round(side * factor)) for side in picture.size], Image.Resampling.LANCZOS)


CHANGES: Mapping[str, Change] = {
    "JPEG quality 60": lambda picture, _: jpeg(picture, 60),
    "crop of 2%": lambda picture, rng: crop(picture, 0.02, rng),
    "half the size": lambda picture, _: scaled(picture, 0.5),
    "0.7 of the size": lambda picture, _: scaled(picture, 0.7),
    "twice the size": lambda picture, _: scaled(picture, 2),
    "crop, half the size, JPEG 60": lambda picture, rng: jpeg(scaled(crop(picture, 0.02, rng), 0.5), 60),
}


@dataclass(frozen=True)
class Pictures:
    """Pictures, and of each the name of its family, where one picture of a family may stand for another."""

    images: list[Image.Image]
    families: list[str]


def built_in(source: str, n: int) -> Pictures:
    """The first pictures of a built-in, each pixel pattern once."""
    data = open_data(source)
    images, rows = np.unique(np.asarray(data.images[:n]), axis=0, return_index=True)
    pictures = [Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy()) for image in images]
    about = data.attributes
    return Pictures(pictures, [str(i) if about is None else family(str(about[int(i)]["code"])) for i in rows])


def photographs(n: int) -> Pictures:
    """Tiles of the photographs of scikit-image, side by side."""
    package = find_spec("skimage")  # found, not imported: only its pictures are needed
    folder = Path(package.origin).parent / "data" if package is not None and package.origin else Path("none")
    tiles: list[Image.Image] = []
    for name in sorted(path for path in folder.glob("*") if path.suffix in (".png", ".jpg")):
        with Image.open(name) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        tops, lefts = (range(0, side - TILE + 1, TILE) for side in pixels.shape[:2])
        corners = [(top, left) for top in tops for left in lefts]
        tiles += [Image.fromarray(pixels[top : top + TILE, left : left + TILE]) for top, left in corners]
    unique = {tile.tobytes(): tile for tile in tiles}
    return Pictures(list(unique.values())[:n], [str(i) for i in range(len(unique))])


def copies_of(pictures: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """What the search sees of pictures."""
    copies = np.stack([np.asarray(small_copy(picture)) for picture in pictures])
    return copies, np.array([min(picture.size) for picture in pictures])


def recalls(pictures: list[Image.Image], most: int) -> dict[str, float]:
    """For each change the share of changed copies that are found, of pictures that are not flat."""
    rng = np.random.default_rng(0)
    shown = np.nonzero(copies_of(pictures)[0].mean(-1).std((1, 2)) > FLAT)[0]
    chosen = rng.permutation(shown)[:most]
    originals = [pictures[i] for i in chosen]
    found: dict[str, float] = {}
    for name, change in CHANGES.items():
        copies, sides = copies_of([*originals, *(change(picture, rng) for picture in originals)])
        pairs = {(int(i), int(j)) for i, j in near_duplicates(copies, sides, len(chosen))}
        found[name] = sum((i, i + len(chosen)) in pairs for i in range(len(chosen))) / len(chosen)
    return found


def show(pictures: list[Image.Image], pairs: np.ndarray, path: Path) -> None:
    """Write the pairs as one picture, ten in a row."""
    if not len(pairs):
        return
    page = Image.new("RGB", (10 * 136, 68 * -(-len(pairs) // 10)), "white")
    for at, pair in enumerate(pairs):
        for side, i in enumerate(pair):
            page.paste(pictures[i].resize((64, 64)), (136 * (at % 10) + 64 * side, 68 * (at // 10)))
    page.save(path)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=500)
    parser.add_argument("--pairs", type=Path)
    args = parser.parse_args()
    sets = {"emoji": built_in("emoji", args.n), "Fashion-MNIST": built_in("fashion-mnist:test", args.n)}
    sets |= {"photographs": tiles} if (tiles := photographs(args.n)).images else {}
    print("| pictures | of | pairs found | of another family | in 1,000 pictures | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, held in sets.items():
        copies, sides = copies_of(held.images)
        started = time.perf_counter()
        pairs = near_duplicates(copies, sides)
        seconds, n = time.perf_counter() - started, len(held.images)
        false = sum(held.families[i] != held.families[j] for i, j in pairs)
        print(f"| {n} | {name} | {len(pairs)} | {false} | {1000 * false / n:.2f} | {seconds:.1f} |", flush=True)
        if args.pairs is not None:
            args.pairs.mkdir(parents=True, exist_ok=True)
            show(held.images, pairs, args.pairs / f"{name}.png")
    found = {name: recalls(held.images, args.changed) for name, held in sets.items()}
    print(f"\n| change | {' | '.join(sets)} |\n| --- |{' --- |' * len(sets)}")
    for change in CHANGES:
        print(f"| {change} | {' | '.join(f'{100 * found[name][change]:.1f}%' for name in sets)} |", flush=True)


if __name__ == "__main__":
    main()
