"""Pictures edited with a model: window by window of its canvas, and what was to stay stays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from nirvana.codec import Identity
from nirvana.condition import MASKED, PAIRED, Concat
from nirvana.data.decode import MAX_PIXELS, fit, to_rgb
from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.inpaint import DDNM, METHODS, Method
from nirvana.diffusion.level import Level
from nirvana.edit import Photo, Window, alike, faded, feathered, windows
from nirvana.errors import Refused
from nirvana.generate.beginning import Canvas
from nirvana.generate.changes import METHOD, TRANSLATED, Changes
from nirvana.generate.named import made, parse
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.steering import rule_of, solver_of

CONTEXT = 4
"""Unless the user says otherwise a window sees a quarter (one part in so many) of its side of what is known."""

LEARNED = "learned"
BESIDE: Mapping[str, str] = MappingProxyType({LEARNED: MASKED, TRANSLATED: PAIRED})
"""Methods of a model that sees a picture beside the noisy one, and the kind of its `concat`. What is known is kept as
by `DDNM`, without whose bias: the network is told of it."""

Fill = Callable[[range, Canvas, Sequence[int]], Iterator[Preview]]
"""(pictures, canvas, the seed of each) -> a `Preview` at every step of drawing what is free of the canvas."""


@dataclass(frozen=True, eq=False)
class EditPreview:
    """A step of an edit: `window` of `windows` (from 1), where it lies, and what is drawn there now.

    before: the pictures as they were when the window was begun; free: what of it is drawn.
    """

    window: int
    windows: int
    place: Window
    drawing: Preview
    before: UInt8[np.ndarray, "b h w c"]
    free: Bool[np.ndarray, "tall wide"]

    @property
    def pictures(self) -> UInt8[np.ndarray, "b h w c"]:
        """All of the pictures as they are now, as the model sees them."""
        return _pasted(self.before, self.place, self.free, self.drawing.pictures)


@dataclass(frozen=True, eq=False)
class Editing:
    """An edit that is ready to go. photo: with its margins; share: (h, w), how much of each pixel is new.

    end: where the pictures lie between two, the other one, in the form of `photo`. outer: rows and columns that only
    fill a canvas larger than the picture, and are cut off at the end. beside: the picture that a new one is drawn from,
    which `photo` then is no part of.
    """

    photo: Photo
    share: Float[np.ndarray, "h w"]
    order: tuple[Window, ...]
    outer: tuple[int, int]
    channels: int
    end: Photo | None = None
    beside: UInt8[np.ndarray, "h w d"] | None = None

    @staticmethod
    def translation(photo: Photo, shape: Sequence[int], channels: int) -> Editing:
        """A new picture of `shape`, (C, H, W), drawn from `photo` as its model was trained to: fitted to the canvas.

        channels: of the pictures that the model draws from.
        """
        size = shape[1], shape[2]
        beside = np.array(Photo(np.asarray(fit(to_rgb(photo.pil), shape[2]))).bytes(channels))
        blank = Photo(np.zeros((*size, shape[0]), np.uint8))
        return Editing(blank, np.ones(size), (Window(0, 0, *size),), (0, 0), shape[0], beside=beside)

    @staticmethod
    def of(
        photo: Photo,
        mask: Float[np.ndarray, "h w"] | None,
        change: Changes,
        shape: Sequence[int],
        end: Photo | None = None,
    ) -> Editing:
        """The edit `change` of `photo` on a canvas of `shape`, (C, H, W). mask: 1 is new; None: all, or the margins.

        Refused where nothing is to change, or `end` has another size.
        """
        if end is not None:
            photo, end = alike(photo, end, fit=change.fit)
        margins, (height, width) = change.margins, photo.size
        _check_size(height + margins[1] + margins[3], width + margins[0] + margins[2])
        inside = np.full(photo.size, 0.0 if any(margins) else 1.0) if mask is None else mask
        left, top, right, bottom = margins
        share = np.ones((height + top + bottom, width + left + right))
        share[top : top + height, left : left + width] = inside
        share = feathered(share, change.feather)
        if not (share > 0).any():
            named = "the mask" if change.mask is None or change.mask.path is None else f"the mask {change.mask.path}"
            if change.invert:
                raise Refused(f"{named} is white everywhere, so with --invert nothing would change; leave --invert out")
            raise Refused(f"{named} is black everywhere, so nothing would change; white is what changes (--invert)")
        channels, tall, wide = shape
        outer = max(0, tall - share.shape[0]), max(0, wide - share.shape[1])
        around = left, top, right + outer[1], bottom + outer[0]
        share = np.pad(share, ((0, outer[0]), (0, outer[1])), constant_values=1.0)
        order = windows(share > 0, (tall, wide), change.context)
        photo, end = photo.padded(*around), None if end is None else end.padded(*around)
        return Editing(photo, share, tuple(order), outer, channels, end)

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
        photos = [self.photo] if self.end is None else [self.photo, self.end]
        now = [np.repeat(photo.bytes(self.channels)[None], len(batch), axis=0) for photo in photos]
        free = self.share > 0
        for number, window in enumerate(self.order):
            seeds = [_seed(request.seed_of(i), number) for i in batch]
            inside = free[window.slices].copy()
            canvas = _canvas([pictures[:, *window.slices] for pictures in now], ~inside, self.beside)
            last: Preview | None = None
            for last in fill(batch, canvas, seeds):
                yield EditPreview(number + 1, len(self.order), window, last, now[0], inside)
            if last is None:
                raise ValueError("a trajectory has at least one step")
            drawn = finished(last)
            now = [_pasted(pictures, window, inside, drawn) for pictures in now]
            free[window.slices] = False
        parts = [0.0 if self.end is None else request.share(i) for i in batch]
        yield [self._finished(picture, part) for picture, part in zip(now[0], parts, strict=True)]

    def _finished(self, picture: UInt8[np.ndarray, "h w c"], part: float) -> Photo:
        photo = self.photo if self.end is None else faded(self.photo, self.end, part)
        photo = photo.edited(picture, self.share)
        height, width = (side - outer for side, outer in zip(photo.size, self.outer, strict=True))
        alpha = None if photo.alpha is None else photo.alpha[:height, :width]
        return Photo(photo.pixels[:height, :width], alpha, photo.profile)


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise Refused(f"the picture would be {width}x{height}, more than {MAX_PIXELS} pixels; extend it by less")


def _pasted(
    pictures: UInt8[np.ndarray, "b h w c"],
    window: Window,
    inside: Bool[np.ndarray, "tall wide"],
    drawn: UInt8[np.ndarray, "b tall wide c"],
) -> UInt8[np.ndarray, "b h w c"]:
    """`pictures` with what is `drawn` inside a window."""
    pictures = pictures.copy()
    pictures[:, *window.slices] = np.where(inside[..., None], drawn, pictures[:, *window.slices])
    return pictures


def _canvas(
    pictures: Sequence[UInt8[np.ndarray, "b h w c"]],
    known: Bool[np.ndarray, "h w"],
    beside: UInt8[np.ndarray, "h w d"] | None,
) -> Canvas:
    y, *end = map(_encoded, pictures)
    other = None if beside is None else _encoded(beside[None])
    return Canvas(y, torch.from_numpy(known)[None, None], *end, beside=other)


def _encoded(pictures: UInt8[np.ndarray, "b h w c"]) -> Float[torch.Tensor, "b c h w"]:
    return Identity().encode(torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2))


def seen(change: Changes, canvas: Canvas, concat: Concat | None) -> Cond | None:
    """What a model with this `concat` sees of `canvas` while it makes `change`, as its slot; None: nothing.

    It sees nothing of a picture that is encoded: what is drawn from its noise must meet the flow that led there.
    """
    kind = BESIDE.get(parse("method", change.method).name)
    if concat is None or kind is None or change.encode:
        return None
    if kind == MASKED:
        return concat.slot(canvas.y, canvas.known)
    if canvas.beside is None:
        raise ValueError("a translation needs the picture that it draws from")
    pictures = canvas.beside.expand(len(canvas.y), -1, -1, -1)
    return concat.slot(pictures, torch.ones(1, 1, 1, 1, dtype=torch.bool))


def method_for(written: str, concat: Concat | None) -> str:
    """The method that `written` is for a model with this `concat`: "auto" is what it has learned, or langevin."""
    if written != METHOD:
        return written
    return LEARNED if concat is not None and concat.kind == MASKED else "langevin"


def _seed(seed: int, window: int) -> int:
    """The seed of a window: the picture's own for the first, others that follow from it for the rest."""
    if window == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/window/{window}".encode()).digest()[:8], "little") >> 1


def method_of(change: Changes) -> Method:
    """The method that `change` names. Refused where it or a number of it is unknown or out of range."""
    return made("method", change.method, {**METHODS, **dict.fromkeys(BESIDE, DDNM)})


_TAUGHT = {
    MASKED: "has not learned to inpaint; use the method langevin, or train a model with --inpaint",
    PAIRED: "was not trained on pairs; name a model that was, with `nirvana train SOURCE --target DIR`",
}


def check_edit(
    request: SampleRequest, levels: Sequence[Level], shape: Sequence[int], concat: Concat | None, where: str
) -> None:
    """Refused where a model of pictures of `shape`, (C, H, W), cannot make the edit of `request` along `levels`.

    concat: of the model; where: what refusals call it.
    """
    change, method = cast(Changes, request.edit), method_of(cast(Changes, request.edit))
    kind = BESIDE.get(parse("method", change.method).name)
    if kind is not None and (concat is None or concat.kind != kind):
        raise Refused(f"{where} {_TAUGHT[kind]}")
    if not change.encode and rule_of(request).first_order_only and method.calls(levels):
        instead = "the method ddnm, or another rule" if change.fills else "another rule"
        raise Refused(
            f"the method '{change.method}' looks at pictures between steps, which the rule '{request.rule}' has no"
            f" guidance for; use {instead}"
        )
    side = min(shape[1:])
    if change.context >= side:
        raise Refused(
            f"a context of {change.context} pixels leaves nothing to draw on the model's canvas of"
            f" {shape[2]}x{shape[1]}; give less than {side}"
        )
    if change.encode and not solver_of(request).deterministic:
        raise Refused("encoding a picture takes a solver without noise of its own; use ddim or dpmpp-2m")
