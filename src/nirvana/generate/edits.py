"""Edited pictures with the record of how they were made, and what asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from nirvana.edit import Photo, read_mask, read_photo
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.changes import TRANSLATED, Changes, Taken
from nirvana.generate.editing import CONTEXT, Editing, EditPreview, method_for
from nirvana.generate.filling import filling
from nirvana.generate.images import Pictures, asked_of, record
from nirvana.generate.origin import Origin
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler

Picture = str | Path | Photo | Image.Image | np.ndarray
"""A file, or a picture from memory: uint8 or uint16, (h, w) or (h, w, 1 to 4)."""

Mask = Float[np.ndarray, "h w"]


@runtime_checkable
class Draws(Protocol):
    """What an edit needs of a model."""

    @property
    def request(self) -> Callable[..., SampleRequest]:
        """Makes a complete request, as `Sampler.request`."""
        ...

    def diffusion(self, which: str, what: str) -> Sampler:
        """What samples with the weights `which`. Refused where it is no diffusion model, and so has no `what`."""
        ...

    def origin(self, request: SampleRequest) -> Origin:
        """Where a picture of `request` comes from."""
        ...


@dataclass(frozen=True, eq=False)
class Edited(Pictures):
    """The n pictures that came of one, or of two. In a notebook they show as their grid."""

    photos: Sequence[Photo]
    request: SampleRequest
    origin: Origin

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: int) -> Photo:
        return self.photos[i]

    def __iter__(self) -> Iterator[Photo]:
        return iter(self.photos)

    @property
    def pil(self) -> list[Image.Image]:
        """The pictures as Pillow images, which have 8 bits."""
        return [photo.pil for photo in self]

    def _seen(self) -> UInt8[np.ndarray, "n h w c"]:
        return self.array

    @property
    def array(self) -> UInt8[np.ndarray, "n h w c"]:
        """The pictures in 8 bits, as they are seen on white."""
        return np.stack([photo.seen for photo in self])

    def metadata(self, i: int) -> dict[str, Json]:
        """The record of picture i."""
        return edit_record(i, self.request, self.origin)

    def png(self, i: int) -> bytes:
        """Picture i as a PNG file with its record."""
        return self.photos[i].png(self.metadata(i))


def edit_record(i: int, request: SampleRequest, origin: Origin) -> dict[str, Json]:
    """What the file of picture i of an edit says about itself."""
    own: dict[str, Json] = {"kind": "edit", "seed": request.seed_of(i), "index": i, "prompt": None}
    return record({**own, **asked_of(i, request)}, request, origin)


@dataclass(frozen=True, eq=False)
class Edit:
    """An edit of a picture, or a blend of two, by a model, checked and ready: iterate `run`, or take the `result`."""

    model: Draws
    request: SampleRequest
    editing: Editing

    def steps(self, batches: Sequence[range] | None = None) -> int:
        """How many previews come, in all batches (or only in `batches`) and windows."""
        each = len(self.editing.order) * self.request.walked
        return each * len(self.request.batches() if batches is None else batches)

    @property
    def whole(self) -> bool:
        """Whether nothing stays as it was."""
        return bool((self.editing.share == 1).all())

    @property
    def origin(self) -> Origin:
        """Where the new parts come from."""
        return self.model.origin(self.request)

    def run(self, batches: Sequence[range] | None = None) -> Iterator[EditPreview | list[Photo]]:
        """Every step, and the pictures of each batch when it is done."""
        sampler = self.model.diffusion(self.request.weights, "pictures to edit")
        fill = filling(sampler, self.request)
        for batch in self.request.batches() if batches is None else batches:
            yield from self.editing.run(fill, sampler.finished, self.request, batch)

    def result(self, watch: Callable[[EditPreview], None] = lambda _: None) -> Edited:
        """All pictures; `watch` sees every step."""
        photos: list[Photo] = []
        for event in self.run():
            if isinstance(event, EditPreview):
                watch(event)
            else:
                photos += event
        return Edited(photos, self.request, self.origin)


def prepare_edit(
    model: Draws,
    picture: Picture,
    mask: Picture | None = None,
    *,
    end: Picture | None = None,
    change: Changes,
    ask: Callable[[Changes], SampleRequest] | None = None,
    size: tuple[int, int] | None = None,
    context: int | None = None,
) -> Edit:
    """The edit `change`, with this picture, and this mask or end, in the place of its own.

    ask: the request of an edit, `lambda edit: model.request("a bee", n=4, edit=edit)`; None takes what the run
    recommends. size: (width, height) of the whole, with the picture in its middle. context: None is a quarter of the
    canvas's side.
    Refused where a file cannot be read, the mask does not fit, nothing would change, or the model cannot do it.
    """
    parts = model.diffusion("ema", "pictures to edit").parts
    canvas, concat = parts.shape, parts.concat
    photo = as_photo(picture)
    hole, last = (None if taken is None else as_photo(taken) for taken in (mask, end))
    asked = replace(
        settled(model, change if size is None else _in_the_middle(change, photo, size), context),
        picture=Taken.of(photo, _path(picture)),
        mask=None if hole is None else Taken.of(hole, _path(mask)),
        end=None if last is None else Taken.of(last, _path(end)),
    )
    share: Mask | None = None
    if hole is not None:
        share = read_mask(hole, photo.size, _path(mask) or "the mask", invert=asked.invert, fit=asked.fit)
    request = model.request(edit=asked) if ask is None else ask(asked)
    if asked.method == TRANSLATED and concat is not None:
        return Edit(model, request, Editing.translation(photo, canvas, concat.channels))
    return Edit(model, request, Editing.of(photo, share, asked, canvas, last))


def settled(model: Draws, change: Changes, context: int | None) -> Changes:
    """`change` with what is decided by the model: its method, and where nobody says the context."""
    parts = model.diffusion("ema", "pictures to edit").parts
    seen = min(parts.shape[1:]) // CONTEXT if context is None else context
    return replace(change, context=seen, method=method_for(change.method, parts.concat))


def _in_the_middle(change: Changes, photo: Photo, size: tuple[int, int]) -> Changes:
    (height, width), (wide, tall) = photo.size, size
    if wide < width or tall < height:
        raise Refused(f"the picture is {width}x{height}, larger than {wide}x{tall}; extending only adds to a picture")
    if size == (width, height):  # without margins an edit is of all of the picture
        raise Refused(f"the picture is {width}x{height} already; give a larger size to extend it to")
    left, top = (wide - width) // 2, (tall - height) // 2
    return replace(change, left=left, right=wide - width - left, top=top, bottom=tall - height - top)


def as_photo(picture: Picture) -> Photo:
    """A picture in any form as a `Photo`. Refused where it is a file that cannot be read, or no picture."""
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, str | Path):
        return read_photo(picture)
    if isinstance(picture, Image.Image):
        return Photo.of(picture)
    if not isinstance(picture, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance] - of a caller without types
        raise Refused(f"a {type(picture).__name__} is no picture; give a path, a Pillow image, or an array")
    array = picture[..., None] if picture.ndim == 2 else picture
    if (
        not array.size
        or array.ndim != 3
        or array.dtype.name not in ("uint8", "uint16")
        or array.shape[2] not in (1, 2, 3, 4)
    ):
        raise Refused(f"an array of {picture.dtype} and shape {picture.shape} is no picture; give uint8 (h, w, 1 to 4)")
    if array.shape[2] in (2, 4):
        return Photo(np.ascontiguousarray(array[..., :-1]), np.ascontiguousarray(array[..., -1]))
    return Photo(array)


def _path(picture: Picture | None) -> str | Path | None:
    return picture if isinstance(picture, str | Path) else None
