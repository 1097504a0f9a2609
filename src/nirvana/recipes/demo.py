"""The demo: pictures of the models that ship, a short training on real pictures, and what was measured of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nirvana import files, zoo
from nirvana.codec import Identity
from nirvana.data import open_data
from nirvana.diffusion import RectifiedFlow, SeededNoise
from nirvana.evaluate.copies import copy_ratio
from nirvana.evaluate.judge import FashionJudge
from nirvana.evaluate.statistics import Interval, wilson
from nirvana.files import Json
from nirvana.generate.animate import Recorder
from nirvana.generate.images import Images
from nirvana.generate.model import Model, load
from nirvana.generate.preview import Preview, to_bytes
from nirvana.modality import grid, save_animation
from nirvana.recipes.order import Order

SOURCE = "fashion-mnist:subset"
IMAGES = 15_000
"""As many as two cores of a laptop see in about 90 seconds."""
PICTURES = 100
FORWARD_FRAMES = 30
GREETING = 4
"""Pictures of a model that ships."""


def order(seed: int = 0) -> Order:
    """The training of the demo."""
    return Order(SOURCE, images=IMAGES, seed=seed)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the demo made and measured.

    right: how many of the 100 pictures the judge names as the class that was asked for, with its 95% interval.
    copy_ratio: median distance to the nearest training picture, over that of real test pictures.
    """

    images: Images
    files: tuple[Path, ...]
    right: int
    interval: Interval
    copy_ratio: float
    seconds: float

    def to_json(self) -> dict[str, Json]:
        """What is stored as demo.json."""
        return {
            "pictures": len(self.images),
            "named_right": self.right,
            "interval_95": list(self.interval),
            "copy_ratio": self.copy_ratio,
            "sampling_seconds": round(self.seconds, 2),
            "request": self.images.request.to_json(),
        }


def greet(name: str, folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Draw the prompt of a model of the zoo into `folder`: the grid, and the way from noise as an animation.

    Refused where it needs an extra that is not installed.
    """
    model = load(zoo.folder(name))
    request = model.request(zoo.card(name).prompt, n=GREETING, seed=seed)
    recorder = Recorder(request)

    def watched(preview: Preview) -> Preview:
        recorder.add(preview)
        return preview

    images = model.gather(request, map(watched, model.stream(request)))
    written, animation = images.save(folder), folder / "noise-to-picture.webp"
    save_animation(recorder.frames(), animation)
    return written[-1], animation


def show(model: Model, seed: int = 0) -> Iterator[Preview | Outcome]:
    """Draw 100 pictures, ten a class, yielding every step; then write the pictures and animations, measure, and end
    with the `Outcome`.
    """
    folder, started = model.run.path, time.perf_counter()
    request = model.request(n=PICTURES, seed=seed, batch=PICTURES)
    recorder, last = Recorder(request), None
    for last in model.stream(request):
        recorder.add(last)
        yield last
    if last is None:
        raise ValueError("a stream of pictures has at least one step")
    images = model.gather(request, iter([last]))
    seconds = time.perf_counter() - started
    written = images.save(folder / "pictures")
    animations = {"noise-to-picture.webp": recorder.frames(), "picture-to-noise.webp": forward(seed)}
    for name, frames in animations.items():
        save_animation(frames, folder / name)
    right, ratio = measured(images)
    outcome = Outcome(
        images=images,
        files=(written[-1], *(folder / name for name in animations)),
        right=right,
        interval=wilson(right, PICTURES),
        copy_ratio=ratio,
        seconds=seconds,
    )
    files.write_json(folder / "demo.json", outcome.to_json())
    yield outcome


def measured(images: Images) -> tuple[int, float]:
    """How many pictures the judge names as asked, and the copy ratio against the training and test pictures."""
    train, test = open_data(SOURCE), open_data(f"{SOURCE}-test")
    asked = np.array([train.names.index(str(images.request.label(i))) for i in range(len(images))])
    named, _ = FashionJudge.load().classify(images.array)
    return int((named == asked).sum()), copy_ratio(images.array, train.images, test.images)


def forward(seed: int) -> list[Image.Image]:
    """q(x_t | x_0) of one real picture a class, from t = 0 to t = 1: x_t = alpha x_0 + sigma eps, eps held fixed."""
    data = open_data(f"{SOURCE}-test")
    labels = data.labels if data.labels is not None else np.zeros(len(data), np.int64)
    chosen = [int(np.flatnonzero(labels == k)[0]) for k in range(len(data.names))]
    x0 = Identity().encode(torch.from_numpy(np.ascontiguousarray(data.images[chosen])).permute(0, 3, 1, 2))
    eps = SeededNoise(range(seed, seed + len(chosen)), tuple(x0.shape[1:])).initial()
    frames: list[Image.Image] = []
    for t in torch.linspace(0, 1, FORWARD_FRAMES, dtype=torch.float64):
        level = RectifiedFlow()(t).like(x0)
        frames.append(grid(to_bytes(Identity(), level.alpha * x0 + level.sigma * eps), columns=5))
    return frames
