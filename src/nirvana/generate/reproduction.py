"""A generated file made again from what it says about itself."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt, UInt8

from nirvana.edit import Photo, read_photo
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.changes import Changes, Taken
from nirvana.generate.checks import whole
from nirvana.generate.edits import Edit, edit_record, prepare_edit
from nirvana.generate.images import RECORD, Images
from nirvana.generate.model import Classifiers, Model, load
from nirvana.generate.request import SampleRequest
from nirvana.modality import png


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What making `file` again gave: the bytes of the new file, and how far its pixels are from the old ones.

    difference: the largest of a pixel, in 1/255. changed: what is not as it was, "torch 2.5.0 -> 2.13.0".
    """

    file: Path
    data: bytes
    array: UInt[np.ndarray, "h w c"]
    same_bytes: bool
    difference: int
    changed: tuple[str, ...]

    def sentence(self) -> str:
        """One line for people."""
        because = f"; changed since: {', '.join(self.changed)}" if self.changed else ""
        if self.same_bytes:
            return f"{self.file}: reproduced, byte for byte"
        if self.difference == 0:
            return f"{self.file}: reproduced, every pixel (the files differ in their records){because}"
        return f"{self.file}: reproduced, but the largest difference of a pixel is {self.difference}/255{because}"


def reproduce(
    file: str | Path, model: str | Path | None = None, *, classifiers: Classifiers | None = None
) -> Reproduction:
    """Run the batch that `file` (a picture or a grid) came from, in its shape and with its threads, and compare.

    model: where the run is now, if it moved. classifiers: as for `load`, where one steered the picture. Refused where
    the file has no record, or its model is missing or has other weights by now.
    """
    file = Path(file).expanduser()
    pixels, saved = png.read_png(file)
    request, kind = _read(file, saved)
    if kind == "edit":
        pixels = read_photo(file).layers  # with all 16 bits, where it has them
    source = cast("Mapping[str, Json]", saved["origin"])
    found = _model(file, source, model, classifiers)
    with _threads(cast("Mapping[str, Json]", source["machine"]).get("threads")):
        images = found.origin(request)
        if images.sha256 != source["sha256"]:
            raise Refused(
                f"{file}: the weights of {found.run.path} have changed since (then after {source['images']} images, now"
                f" after {images.images}); name a copy of the run as it was with --model"
            )
        if kind == "grid":
            array, data = (_whole_grid if request.edit is None else _edited_grid)(found, request)
        else:
            index = whole(f"{file}: index", saved.get("index"), least=0, most=request.n - 1)
            array, data = (_edited if kind == "edit" else _picture)(found, request, index)
    array = array[..., None] if array.ndim == 2 else array
    if array.shape != pixels.shape:
        raise Refused(f"{file} is {pixels.shape} in size, its record makes {array.shape}; use the original file")
    steps = np.abs(array.astype(np.int32) - pixels.astype(np.int32)).max()
    difference = int(-(-steps // 257) if array.dtype == np.uint16 else steps)
    changed = _changed(source, images.to_json())
    return Reproduction(file, data, array, data == file.read_bytes(), difference, changed)


def _picture(model: Model, request: SampleRequest, index: int) -> tuple[UInt8[np.ndarray, "h w c"], bytes]:
    """Picture `index`, made in the batch it was made in, and its file."""
    batch = request.batches()[index // request.batch]
    array = next(model.sampler(request.weights).finished(p) for p in model.stream(request, [batch]) if p.done)
    # The record is that of a picture in its request; only this batch of it was made.
    images = Images(array, request, model.origin(request))
    picture = array[index - batch.start]
    return picture, png.to_png_bytes(picture, images.metadata(index))


def _whole_grid(model: Model, request: SampleRequest) -> tuple[UInt8[np.ndarray, "..."], bytes]:
    """The grid of all pictures, and its file."""
    images = model.gather(request, model.stream(request))
    return np.asarray(images.grid()), images.grid_png()


def _edited(model: Model, request: SampleRequest, index: int) -> tuple[np.ndarray, bytes]:
    """Picture `index` of an edit, made in the batch it was made in."""
    batch = request.batches()[index // request.batch]
    *_, photos = _edit(model, request).run([batch])
    photo = cast("list[Photo]", photos)[index - batch.start]
    return photo.layers, photo.png(edit_record(index, request, model.origin(request)))


def _edited_grid(model: Model, request: SampleRequest) -> tuple[UInt8[np.ndarray, "..."], bytes]:
    """The grid of all pictures of an edit, and its file."""
    result = _edit(model, request).result()
    return np.asarray(result.grid()), result.grid_png()


def _edit(model: Model, request: SampleRequest) -> Edit:
    """The edit of pictures that are where they were."""
    change = cast(Changes, request.edit)
    begun = (change.picture, change.mask, change.end)
    picture, mask, end = (None if taken is None else _unchanged(taken) for taken in begun)
    return prepare_edit(
        model, cast(Path, picture), mask, end=end, change=change, ask=lambda _: request, context=change.context
    )


def _unchanged(taken: Taken) -> Path:
    """The file of a picture that an edit began with. Refused where it is not there, or shows something else by now."""
    if taken.path is None:
        raise Refused("the picture that was edited came from memory, not from a file; it cannot be found again")
    if Taken.of(read_photo(taken.path)).sha256 != taken.sha256:
        raise Refused(f"{taken.path} has changed since it was edited; put it back as it was")
    return Path(taken.path)


def _read(file: Path, saved: Mapping[str, Json]) -> tuple[SampleRequest, str]:
    version, kind = saved.get("record"), saved.get("kind")
    if isinstance(version, int) and version > RECORD:
        raise Refused(
            f"{file}: its record has version {version}, newer than this nirvana reads ({RECORD}); upgrade nirvana"
        )
    if kind == "sheet":
        raise Refused(f"{file} is a sheet of many requests; reproduce single pictures, or run its command again")
    source = saved.get("origin")
    complete = isinstance(source, dict) and isinstance(source.get("machine"), dict)
    if version != RECORD or kind not in ("picture", "grid", "edit") or not complete:
        raise Refused(f"{file}: its record of how it was made is damaged; use the original file")
    needed = {"path", "sha256", "images", "versions"}
    if not needed <= cast("dict[str, Json]", source).keys():
        raise Refused(f"{file}: its record of how it was made is damaged; use the original file")
    try:
        return SampleRequest.from_json(saved.get("request")), kind
    except Refused as error:
        raise Refused(f"{file}: {error}") from None


def _model(file: Path, source: Mapping[str, Json], model: str | Path | None, classifiers: Classifiers | None) -> Model:
    path = str(source["path"]) if model is None else str(model)
    if model is None and not Path(path).is_dir():
        raise Refused(f"{file}: its model {path} is not there (any more); say where it is now with --model RUN")
    machine = cast("Mapping[str, Json]", source["machine"])
    device = "cpu" if machine.get("device") == "cpu" else "auto"
    return load(path, device=device, compile="compiled" in machine, classifiers=classifiers)


@contextmanager
def _threads(count: Json) -> Generator[None]:
    before = torch.get_num_threads()
    if isinstance(count, int) and 1 <= count <= 4096:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _changed(then: Mapping[str, Json], now: Mapping[str, Json]) -> tuple[str, ...]:
    """The entries of versions and machine that differ."""
    found: list[str] = []
    for part in ("versions", "machine"):
        old, new = then[part], now[part]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names = {**old, **new}
            found += [f"{name} {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]
    return tuple(found)
