"""Measure how often the checker of `shapes` reads a picture right, as it is and after what a small model does to it.

    python scripts/measure_shapes_checker.py [-n 1000] [--sizes 32 64]

Prints a table for docs/data.md. Half of the scenes hold held-out combinations. A blur of b is of b pixels at 32 and in
proportion at other sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from nirvana.data.shapes import Score, render, scene, score

CORRUPTIONS = {
    "none": (0.0, 0.0),
    "noise 10": (0.0, 10.0),
    "noise 30": (0.0, 30.0),
    "blur 0.6": (0.6, 0.0),
    "blur 0.7, noise 15": (0.7, 15.0),
    "blur 1": (1.0, 0.0),
    "blur 1, noise 20": (1.0, 20.0),
    "blur 1.5": (1.5, 0.0),
}
"""Standard deviations: of the blur in pixels at 32, of the noise in 0 to 255."""


def corrupted(picture: np.ndarray, blur: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The picture blurred, then with Gaussian noise."""
    soft = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(blur * len(picture) / 32)))
    return np.clip(soft + rng.normal(0, noise, soft.shape), 0, 255).round().astype(np.uint8)


def scores(size: int, n: int, blur: float, noise: float) -> list[Score]:
    """Of scenes that nothing else uses."""
    rng = np.random.default_rng(0)
    scenes = [scene(2**40, i, held_out=i % 2 == 1) for i in range(n)]
    change = partial(corrupted, blur=blur, noise=noise, rng=rng)
    return [score(item, change(render(item, size))) for item in scenes]


def row(name: str, size: int, scored: Sequence[Score], seconds: float) -> str:
    """A line of the table: shares of flags that are right, in percent."""

    def share(flags: Sequence[bool]) -> str:
        return f"{100 * sum(flags) / len(flags):.2f}"

    cells = [
        share([flag for item in scored for flag in item.shapes]),
        share([flag for item in scored for flag in item.colours]),
        share([flag for item in scored for flag in item.sizes]),
        share([flag for item in scored for flag in item.relations]),
        share([item.place for item in scored if item.place is not None]),
        share([item.count for item in scored]),
        share([item.right for item in scored]),
    ]
    return f"| {size} | {name} | {' | '.join(cells)} | {1000 * seconds / len(scored):.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    args = parser.parse_args()
    print("| size | corruption | shapes | colours | sizes | relations | place | count | all | ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in args.sizes:
        for name, (blur, noise) in CORRUPTIONS.items():
            started = time.perf_counter()
            scored = scores(size, args.n, blur, noise)
            print(row(name, size, scored, time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
