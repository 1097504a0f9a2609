"""Generated pictures, which know how they were made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana import files
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.origin import Origin
from nirvana.generate.request import SampleRequest
from nirvana.modality import png
from nirvana.modality.image import grid

RECORD = 1
"""Version of the record in a picture's metadata."""

COLUMNS = 16
"""A grid has a column for each class where there are at most this many."""


class Pictures(ABC):
    """Pictures of one request, side by side and as files. In a notebook they show as their grid."""

    request: SampleRequest
    origin: Origin

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def png(self, i: int) -> bytes:
        """Picture i as a PNG file with its record."""

    @abstractmethod
    def _seen(self) -> UInt8[np.ndarray, "n h w c"]:
        """The pictures in 8 bits."""

    def grid(self) -> Image.Image:
        """All pictures side by side; a labelled column for each class where they take turns, a blend in one row."""
        return layout(self._seen(), self.request)

    def grid_png(self) -> bytes:
        """The grid as a PNG file with its record."""
        return png.to_png_bytes(np.asarray(self.grid()), grid_record(self.request, self.origin))

    def save(self, folder: str | Path) -> list[Path]:
        """Write 000.png, 001.png, ... and grid.png; a new folder appears complete or not at all.

        In a folder that exists each file is replaced in one step, others stay. Returns the paths. Refused where
        `folder` is a file or cannot be written.
        """
        return write_pictures(folder, [self.png(i) for i in range(len(self))], self.grid_png())

    def _repr_png_(self) -> bytes:
        return self.grid_png() if len(self) > 1 else self.png(0)


@dataclass(frozen=True, eq=False)
class Images(Pictures):
    """Pictures as bytes, channels last, in the order of the request. In a notebook they show as their grid."""

    array: UInt8[np.ndarray, "n h w c"]
    request: SampleRequest
    origin: Origin

    @staticmethod
    def joined(batches: Sequence[UInt8[np.ndarray, "_ h w c"]], request: SampleRequest, origin: Origin) -> Images:
        """The pictures of finished batches."""
        return Images(np.concatenate(list(batches)), request, origin)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, i: int) -> Image.Image:
        return png.to_picture(self.array[i])

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def _seen(self) -> UInt8[np.ndarray, "n h w c"]:
        return self.array

    @property
    def pil(self) -> list[Image.Image]:
        """The pictures as Pillow images."""
        return list(self)

    def metadata(self, i: int) -> dict[str, Json]:
        """The record of picture i: its seed, label, batch, and all of the request and its origin."""
        start = i - i % self.request.batch
        own: dict[str, Json] = {
            "kind": "picture",
            "seed": self.request.seed_of(i),
            "index": i,
            **asked_of(i, self.request),
            "batch": [start, min(start + self.request.batch, self.request.n)],
        }
        return record(own, self.request, self.origin)

    def png(self, i: int) -> bytes:
        """Picture i as a PNG file with its record."""
        return png.to_png_bytes(self.array[i], self.metadata(i))


def write_pictures(folder: str | Path, pictures: Sequence[bytes], grid: bytes) -> list[Path]:
    """Write PNG files as 000.png, 001.png, ... and grid.png; the paths. See `Pictures.save`."""
    names = [*numbered("", len(pictures)), "grid.png"]
    contents = dict(zip(names, [*pictures, grid], strict=True))
    folder = check_folder(folder)
    with files.explained(folder, "make room, or choose another --out"):
        if folder.is_dir():
            for name, data in contents.items():
                files.write_bytes(folder / name, data)
        else:
            files.write_folder(folder, contents)
    return [folder / name for name in contents]


def numbered(before: str, count: int) -> list[str]:
    """The names of `count` pictures: 000.png, 001.png, ..., each after what stands `before` it."""
    digits = max(3, len(str(count - 1)))
    return [f"{before}{i:0{digits}d}.png" for i in range(count)]


def layout(array: UInt8[np.ndarray, "n h w c"], request: SampleRequest) -> Image.Image:
    """The grid of the pictures of `request`."""
    if request.way:
        return grid(array, min(len(array), COLUMNS))
    named = request.labels if len(request.labels) > 1 else request.prompts
    if 1 < len(named) <= min(COLUMNS, len(array)):
        return grid(array, len(named), column_labels=named)
    return grid(array)


def record(own: Mapping[str, Json], request: SampleRequest, origin: Origin) -> dict[str, Json]:
    """What a file says about itself: its `own` part, the whole request, how its texts are read, where it comes from."""
    read: dict[str, Json] = {"read": origin.read} if origin.read else {}
    return {"record": RECORD, **own, "request": request.to_json(), **read, "origin": origin.to_json()}


def asked_of(i: int, request: SampleRequest) -> dict[str, Json]:
    """What picture i of a request is of; on a way what the end of it is of, and how far along it lies."""
    of: dict[str, Json] = {"label": request.label(i)}
    if request.prompts:
        of["prompt"] = request.prompt(i)
    return {**of, "to": request.to, "share": request.share(i)} if request.way else of


def check_folder(folder: str | Path) -> Path:
    """`folder` as a path to write pictures to; Refused where that cannot be, before anything is computed."""
    path = Path(folder).expanduser()
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise Refused(f"{part} is a file; choose a folder for the pictures with --out")
            break
    return path


def grid_record(request: SampleRequest, origin: Origin) -> dict[str, Json]:
    """What the file of all pictures says about itself."""
    return record({"kind": "grid"}, request, origin)
