"""Samples for an evaluation, kept in chunks as they are made, so that an interrupted evaluation goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from nirvana import files
from nirvana.data import Captions
from nirvana.data.dataset import pixel_digest
from nirvana.generate.model import Model
from nirvana.generate.request import SampleRequest

_CHUNK = 256
LEAST, MOST = 2_000, 10_000
"""How many pictures are drawn where a time is given and not a number."""

Pictures = UInt8[np.ndarray, "n h w c"]


@dataclass(frozen=True)
class Goal:
    """So many pictures; or, of None, as many as `seconds` allow: at least `least`, at most `most`."""

    n: int | None
    seconds: float = math.inf
    least: int = LEAST
    most: int = MOST


@dataclass(frozen=True)
class Drawn:
    """Drawn pictures on the disk: of the whole `request`, in chunks."""

    request: SampleRequest
    paths: Sequence[Path]

    def __len__(self) -> int:
        return self.request.n

    def chunks(self) -> Iterator[Pictures]:
        """The pictures in order, one chunk at a time in memory."""
        left = len(self)
        for path in self.paths:
            part = np.load(path, allow_pickle=False)[:left]
            left -= len(part)
            yield part


def draw(
    model: Model,
    request: SampleRequest,
    goal: Goal,
    root: Path,
    progress: Callable[[int, int], None] | None = None,
    inputs: UInt8[Tensor, "m d h w"] | None = None,
) -> Drawn:
    """The pictures of `request`; what `root` holds already is not drawn again.

    inputs: what a model of pairs draws from, picture i from inputs[i mod m]. progress(done, expected) hears every
    chunk. Refused where the model cannot do the request.
    """
    request = dataclasses.replace(request, n=goal.n or max(goal.least, goal.most))
    model.check(request)
    folder = root / _key(model, request, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_temporaries(folder)
    files.write_json(folder / "request.json", request.to_json())
    size = request.batch * max(1, _CHUNK // request.batch)
    paths: list[Path] = []
    done, drawn, started = 0, 0, time.monotonic()
    while done < request.n:
        spent = time.monotonic() - started
        expected = request.n if goal.n else _expected(goal, done, drawn, spent)
        if progress is not None:
            progress(done, expected)
        if goal.n is None and done >= goal.least and spent >= goal.seconds:
            break
        end = min(done + size, request.n)
        path = folder / f"{done:08d}.npy"
        if _read(path, end - done, model) is None:
            part = np.concatenate(list(_drawn(model, dataclasses.replace(request, n=end), done, inputs)))
            _write(path, part)
            drawn += len(part)
        paths.append(path)
        done = end
    if progress is not None:
        progress(done, done)
    return Drawn(dataclasses.replace(request, n=done), tuple(paths))


def _expected(goal: Goal, done: int, drawn: int, spent: float) -> int:
    """How many there will be, at the pace so far."""
    more = max(0.0, goal.seconds - spent) * drawn / spent if drawn else 0.0
    return min(max(goal.least, done + int(more)), max(goal.least, goal.most))


def _drawn(model: Model, request: SampleRequest, start: int, inputs: Tensor | None) -> Iterator[Pictures]:
    batches = [batch for batch in request.batches() if batch.start >= start]
    if inputs is None:
        previews = model.stream(request, batches)
    else:
        previews = model.diffusion(request.weights, "inputs").translated(request, inputs, batches)
    for preview in previews:
        if preview.done:
            yield model.sampler(request.weights).finished(preview)


def _key(model: Model, request: SampleRequest, inputs: Tensor | None) -> str:
    """What decides about the pictures: the request but for their number, the weights, and what they are drawn from."""
    described = {**request.to_json(), "n": 0, "sha256": model.origin(request).sha256}
    if inputs is not None:
        described["inputs"] = pixel_digest(inputs.permute(0, 2, 3, 1).numpy())
    return files.digest_of(described)[:16]


def _read(path: Path, count: int, model: Model) -> Pictures | None:
    """A chunk with at least `count` pictures; None where it is missing, damaged, or shorter."""
    channels, height, width = model.parts.shape
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(path, allow_pickle=False)
        if found.dtype == np.uint8 and found.shape[1:] == (height, width, channels) and len(found) >= count:
            return found
    return None


def _write(path: Path, pictures: Pictures) -> None:
    data = BytesIO()
    np.save(data, pictures, allow_pickle=False)
    with files.explained(path, "make room, and give the same command again: it goes on from here"):
        files.write_bytes(path, data.getvalue())


def prompts_of(captions: Captions, most: int = 1000) -> tuple[str, ...]:
    """The first caption of at most so many pictures, spread over the whole set: what is asked for is what was shown."""
    described = [said[0] for said in captions if said]
    count = min(most, len(described))
    return tuple(described[i * len(described) // count] for i in range(count))


def turns(names: Sequence[str], counts: Sequence[int], most: int = 1000) -> tuple[str, ...]:
    """The labels that pictures take in turn, so that every stretch has the classes as often as the data have them.

    Equal counts give each class once. Else at most `most` places, each to the class that is furthest behind its share.
    """
    if not names or len(set(counts)) <= 1:
        return tuple(names)
    total = sum(counts)
    length = min(most, total)
    given = [0] * len(names)
    places: list[str] = []
    for place in range(1, length + 1):
        behind = [place * count / total - have for count, have in zip(counts, given, strict=True)]
        chosen = behind.index(max(behind))
        given[chosen] += 1
        places.append(names[chosen])
    return tuple(places)
