"""Pictures edited with a model: window by window of its canvas, and what was to stay stays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from nirvana.codec import Identity
from nirvana.diffusion.guidance import Rule
from nirvana.diffusion.inpaint import METHODS, Method
from nirvana.diffusion.level import Level
from nirvana.diffusion.solver import Solver
from nirvana.edit import Photo, Window, feathered, windows
from nirvana.errors import Refused
from nirvana.generate.beginning import Canvas
from nirvana.generate.changes import Changes
from nirvana.generate.named import made
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest

CONTEXT = 4
"""Unless the user says otherwise a window sees a quarter (one part in so many) of its side of what is known."""


Fill = Callable[[range, Canvas, Sequence[int]], Iterator[Preview]]
"""(pictures, canvas, the seed of each) -> a `Preview` at every step of drawing what is free of the canvas."""


@dataclass(frozen=True, eq=False)
class EditPreview:
    """A step of an edit: `window` of `windows` (from 1), where it lies, and what is drawn there now."""

    window: int
    windows: int
    place: Window
    drawing: Preview


@dataclass(frozen=True, eq=False)
class Editing:
    """An edit that is ready to go. photo: with its margins; share: (h, w), how much of each pixel is new.

    outer: rows and columns that only fill a canvas larger than the picture, and are cut off at the end.
    """

    photo: Photo
    share: Float[np.ndarray, "h w"]
    order: tuple[Window, ...]
    outer: tuple[int, int]
    channels: int

    @staticmethod
    def of(photo: Photo, mask: Float[np.ndarray, "h w"] | None, change: Changes, shape: Sequence[int]) -> Editing:
        """The edit `change` of `photo` on a canvas of `shape`, (C, H, W). mask: 1 is new; None: all, or the margins.

        Refused where nothing is to change.
        """
        margins, (height, width) = change.margins, photo.size
        inside = np.full(photo.size, 0.0 if any(margins) else 1.0) if mask is None else mask
        left, top, right, bottom = margins
        share = np.ones((height + top + bottom, width + left + right))
        share[top : top + height, left : left + width] = inside
        share = feathered(share, change.feather)
        if not (share > 0).any():
            raise Refused("the mask is black everywhere, so nothing would change; white is what changes (--invert)")
        channels, tall, wide = shape
        outer = max(0, tall - share.shape[0]), max(0, wide - share.shape[1])
        photo = photo.padded(left, top, right + outer[1], bottom + outer[0])
        share = np.pad(share, ((0, outer[0]), (0, outer[1])), constant_values=1.0)
        order = windows(share > 0, (tall, wide), change.context)
        return Editing(photo, share, tuple(order), outer, channels)

    def run(
        self,
        fill: Fill,
        finished: Callable[[Preview], UInt8[np.ndarray, "b h w c"]],
        request: SampleRequest,
        batch: range,
    ) -> Iterator[EditPreview | list[Photo]]:
        """Every step of drawing the pictures `batch` of `request`, and at the end the pictures.

        finished: the pictures of the last preview of a canvas, as a sampler has it.
        """
        now = np.repeat(self.photo.bytes(self.channels)[None], len(batch), axis=0)
        free = self.share > 0
        for number, window in enumerate(self.order):
            seeds = [_seed(request.seed_of(i), number) for i in batch]
            canvas = _canvas(now[:, *window.slices], ~free[window.slices])
            last: Preview | None = None
            for last in fill(batch, canvas, seeds):
                yield EditPreview(number + 1, len(self.order), window, last)
            if last is None:
                raise ValueError("a trajectory has at least one step")
            drawn = finished(last)
            now[:, *window.slices] = np.where(free[window.slices][..., None], drawn, now[:, *window.slices])
            free[window.slices] = False
        yield [self._cut(self.photo.edited(picture, self.share)) for picture in now]

    def _cut(self, photo: Photo) -> Photo:
        height, width = (side - outer for side, outer in zip(photo.size, self.outer, strict=True))
        alpha = None if photo.alpha is None else photo.alpha[:height, :width]
        return Photo(photo.pixels[:height, :width], alpha, photo.profile)


def _canvas(pictures: UInt8[np.ndarray, "b h w c"], known: Bool[np.ndarray, "h w"]) -> Canvas:
    tensor = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    return Canvas(Identity().encode(tensor), torch.from_numpy(known)[None, None])


def _seed(seed: int, window: int) -> int:
    """The seed of a window: the picture's own for the first, others that follow from it for the rest."""
    if window == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/window/{window}".encode()).digest()[:8], "little") >> 1


def method_of(change: Changes) -> Method:
    """The method that `change` names. Refused where it or a number of it is unknown or out of range."""
    return made("method", change.method, METHODS)


def check_edit(change: Changes, solver: Solver[object], rule: Rule, shape: Sequence[int]) -> None:
    """Refused where a model of pictures of `shape`, (C, H, W), cannot make `change` with `solver` and `rule`."""
    method = method_of(change)
    if rule.first_order_only and method.calls([Level.of(1.0, s) for s in (2.0, 1.0, 0.0)]):
        raise Refused(
            f"the method '{change.method}' looks at pictures between steps, which cfg++ has no guidance for; use the"
            " method ddnm, or another rule"
        )
    side = min(shape[1:])
    if change.context >= side:
        raise Refused(
            f"a context of {change.context} pixels leaves nothing to draw on the model's canvas of"
            f" {shape[2]}x{shape[1]}; give less than {side}"
        )
    if change.encode and not solver.deterministic:
        raise Refused("encoding a picture takes a solver without noise of its own; use ddim or dpmpp-2m")
