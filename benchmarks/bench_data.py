"""Pictures a second from our cache, beside PyTorch's DataLoader on the raw files, and what filling the cache costs.

The files are made afresh: smooth random pictures of about 256 px, half PNG and half JPEG, wanted at 64 px in batches of
64, half of them mirrored. Both sides decode with the same function, and must give the same pictures before anything is
timed. Run: make bench, or python benchmarks/bench_data.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import torch
from measure import options, paired, publish, table
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nirvana.data import Dataset, open_data
from nirvana.data.decode import decode
from nirvana.recipes.task import PictureBatches

SIZE, BATCH = 64, 64
EPOCHS = 20
"""So often the cache is gone through in a measured run: once takes too little time to be measured."""
WORKERS = (0, 2)


class Files(TorchDataset[Tensor]):
    """Picture files, decoded when they are asked for; a random half is mirrored."""

    def __init__(self, paths: list[Path], flip: bool = True) -> None:
        self.paths, self.flip = paths, flip

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        picture = torch.from_numpy(np.array(decode(self.paths[index].read_bytes(), SIZE))).permute(2, 0, 1)
        return picture.flip(2) if self.flip and torch.rand(()) < 0.5 else picture


def make_files(folder: Path, pictures: int) -> list[Path]:
    """So many pictures, each another one."""
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for i in range(pictures):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        width, height = (int(side) for side in rng.integers(230, 290, 2))
        path = folder / f"{i:05d}.{'png' if i % 2 else 'jpg'}"
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def from_cache(data: Dataset) -> Callable[[], object]:
    """A run: `EPOCHS` times all pictures, in shuffled batches."""
    batches = PictureBatches(data, 0, flip=True)

    def run() -> None:
        for start in range(0, EPOCHS * len(data), BATCH):
            batches.batch(range(start, min(start + BATCH, EPOCHS * len(data))))

    return run


def from_files(paths: list[Path], workers: int) -> Callable[[], object]:
    """A run: all pictures once, in shuffled batches. The workers stay between the runs."""
    loader = DataLoader(Files(paths), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def run() -> None:
        for _ in loader:
            pass

    return run


def openings(folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds of the first opening, which fills the cache, and of the next, which checks it."""
    with tempfile.TemporaryDirectory() as caches:
        numbers = count()

        def first() -> None:
            open_data(str(folder), size=SIZE, cache_dir=Path(caches) / str(next(numbers)))

        def again() -> None:
            open_data(str(folder), size=SIZE, cache_dir=Path(caches) / "0")

        return paired({"first": first, "again": again}, rounds)


def check(data: Dataset, paths: list[Path]) -> None:
    """Raise ValueError where the two sides do not show the same pictures."""
    files = Files(paths, flip=False)
    of_files = np.stack([files[i].permute(1, 2, 0).numpy() for i in range(len(files))])
    if not np.array_equal(data.images, of_files):
        raise ValueError("the cache and the files give different pictures")


def tables(pictures: int, speeds: Mapping[str, float], opening: Mapping[str, float]) -> str:
    """The figures as two tables."""
    ours = speeds["our cache"]
    rows = [[name, f"{speed:.0f}", f"{ours / speed:.1f}x"] for name, speed in speeds.items()]
    kinds = {"first": "the first time: all files are decoded", "again": "later: the cache is checked"}
    opened = [[kinds[name], f"{seconds:.3f}", f"{pictures / seconds:.0f}"] for name, seconds in opening.items()]
    return (
        table(["", "pictures/s", "our cache against it"], rows)
        + "\n"
        + table(["opening the folder", "seconds", "pictures/s"], opened)
    )


def main() -> None:
    asked = options(__doc__ or "", rounds=5)
    pictures = 16 if asked.quick else 2048
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryDirectory() as cache:
        folder = Path(place)
        paths = make_files(folder, pictures)
        data = open_data(str(folder), size=SIZE, cache_dir=Path(cache))
        check(data, paths)
        candidates = {"our cache": from_cache(data)}
        candidates |= {f"DataLoader, {workers} workers": from_files(paths, workers) for workers in WORKERS}
        seconds = paired(candidates, asked.rounds)
        opening = openings(folder, asked.rounds)
    speeds = {name: pictures * (EPOCHS if name == "our cache" else 1) / taken for name, taken in seconds.items()}
    text = (
        f"{pictures} files of about 256 px, half PNG and half JPEG, to {SIZE} px in batches of {BATCH}, mirrored by"
        f" chance; medians of {asked.rounds} rounds in turn.\n\n{tables(pictures, speeds, opening)}"
    )
    values = {"pictures": pictures, "pictures_per_second": speeds, "opening_seconds": opening}
    publish("data", "Loading pictures", asked.command("bench_data.py"), text, values, asked.docs)


if __name__ == "__main__":
    main()
