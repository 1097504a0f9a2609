"""The built-in source `shapes`: a window of the infinite set, rendered once into the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from jaxtyping import UInt8

from nirvana.data import cache
from nirvana.data.collection import fingerprint
from nirvana.data.dataset import Captions, Dataset, Manifest, caption_digest, captioned, pixel_digest
from nirvana.data.shapes.grammar import captions
from nirvana.data.shapes.render import render
from nirvana.data.shapes.scene import Scene, scene
from nirvana.errors import Refused
from nirvana.files import Json

SEED = 0
DEFAULT_SIZE, LEAST_SIZE = 32, 24
TRAIN, HELD_OUT = 50_000, 2_000
"""Pictures of each part."""
VERSION = 1
"""Of scenes, grammar and rendering; a change makes the cache anew."""

_REPORT = 500


@dataclass(frozen=True)
class Scenes(Sequence[Any]):
    """The attributes of scenes 0 to `total` - 1 of a part, made when they are asked for."""

    seed: int
    total: int
    held_out: bool

    def scene(self, index: int) -> Scene:
        """The scene of a picture."""
        return scene(self.seed, index, held_out=self.held_out)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Json]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Json]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Json] | Sequence[Mapping[str, Json]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.total))]
        return self.scene(range(self.total)[index]).to_json()


def open_shapes(
    held_out: bool,
    source: str,
    size: int | None,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None,
) -> Dataset:
    """The training part, without held-out combinations, or the other, in which every scene has one.

    `size` None: `DEFAULT_SIZE`. Refused: below `LEAST_SIZE`, where small shapes cannot be told apart.
    """
    side = DEFAULT_SIZE if size is None else size
    if side < LEAST_SIZE:
        raise Refused(f"shapes at size {side}: they can be told apart from {LEAST_SIZE} pixels on; give a larger size")
    scenes = Scenes(SEED, HELD_OUT if held_out else TRAIN, held_out)

    @contextlib.contextmanager
    def decoder() -> Generator[_Renderer]:
        yield _Renderer(source, side, scenes, progress)

    identity = ("shapes", "heldout" if held_out else "train")
    state = fingerprint(VERSION, SEED, len(scenes))
    return replace(cache.obtain(identity, side, state, source, decoder, cache_dir), attributes=scenes)


@dataclass(frozen=True)
class _Renderer:
    """Scenes on their way into the cache."""

    source: str
    size: int
    scenes: Scenes
    progress: Callable[[int, int], None] | None

    def fill(self, out: BinaryIO) -> int:
        """Render every scene."""
        for i in range(len(self.scenes)):
            out.write(render(self.scenes.scene(i), self.size).tobytes())
            if self.progress is not None and ((i + 1) % _REPORT == 0 or i + 1 == len(self.scenes)):
                self.progress(i + 1, len(self.scenes))
        return len(self.scenes)

    def describe(self, images: UInt8[np.ndarray, "n h w c"]) -> cache.Described:
        """The manifest and the captions."""
        said: Captions = tuple(captions(self.scenes.scene(i)) for i in range(len(self.scenes)))
        manifest = Manifest(
            source=self.source,
            kind="procedural",
            size=self.size,
            channels=images.shape[3],
            pictures=len(images),
            names=(),
            counts=(),
            files=(),
            pixels=pixel_digest(images),
            native_side=self.size,
            captioned=captioned(said),
            captions=caption_digest(said),
        )
        return cache.Described(manifest, captions=said)
