"""The way from noise to pictures, as an animation of the grid."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana.generate.images import layout
from nirvana.generate.preview import Preview, to_bytes
from nirvana.generate.request import SampleRequest
from nirvana.modality.image import grid

MOST_FRAMES = 60
"""Longer trajectories are shown at every second, third, ... step, and the last."""


class Recorder:
    """Collects the states of a stream: the noise it starts from, x after each step, and the finished pictures."""

    def __init__(self, request: SampleRequest) -> None:
        self._request = request
        self._stride = math.ceil(request.steps / MOST_FRAMES)
        self._frames: dict[int, list[UInt8[np.ndarray, "b h w c"]]] = {}

    def add(self, preview: Preview) -> None:
        """Take one preview; they come in the order of the stream."""
        if preview.step == 1 and preview.before is not None:
            self._frames.setdefault(0, []).append(to_bytes(preview.codec, preview.before))
        if preview.step % self._stride == 0 or preview.done:
            self._frames.setdefault(preview.step, []).append(to_bytes(preview.codec, preview.x))

    def frames(self) -> list[Image.Image]:
        """One grid a moment, noise first."""
        return [layout(np.concatenate(parts), self._request) for _, parts in sorted(self._frames.items())]


def there_and_back(pictures: UInt8[np.ndarray, "n h w c"]) -> list[Image.Image]:
    """The pictures on the way from one to another as frames, and back again."""
    frames = [grid(pictures[i : i + 1]) for i in range(len(pictures))]
    return [*frames, *frames[-2:0:-1]]
