"""A source laid open: every picture of it examined, whatever kind of source it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from nirvana.data.collection import Collection, Found, Words
from nirvana.data.decode import reason, upright
from nirvana.data.doctor.alignment import Copies
from nirvana.data.doctor.picture import NO_COPY, Copy, Picture, as_picture, examine, examine_pixels, sha256, unreadable
from nirvana.data.open import ArrayFile, BuiltIn, locate, open_data
from nirvana.data.parallel import parallel
from nirvana.data.rows import Array, checked, problems, row_name, row_sha256, to_bytes
from nirvana.data.scan import natural
from nirvana.data.survey import quiet, survey
from nirvana.errors import Refused

Progress = Callable[[int, int], None]
_ROWS = 256


@dataclass(frozen=True)
class Subject:
    """The pictures of a source in its order, a small copy of each, files that are not used and why, notes, and the
    names of the pictures beside which there is a text that says nothing.

    `read` gives the bytes of the files of these numbers, or None where there are no files; `show` the pictures as they
    are seen, at least so many pixels wide and high where they are.
    """

    source: str
    kind: str
    pictures: tuple[Picture, ...]
    copies: Copies
    passed_over: Mapping[str, str]
    notes: tuple[str, ...]
    empty: frozenset[str]
    read: Callable[[Iterable[int]], Iterator[tuple[int, bytes]]] | None
    show: Callable[[Iterable[int], int], Iterator[tuple[int, Image.Image]]]

    @property
    def sides(self) -> Int64[np.ndarray, " n"]:
        """The shorter sides."""
        return np.array([picture.side for picture in self.pictures], np.int64)

    @property
    def readable(self) -> list[int]:
        """The numbers of the pictures that can be read."""
        return [i for i, picture in enumerate(self.pictures) if not picture.problem]


def lay_open(source: str, progress: Progress = lambda _done, _total: None) -> Subject:
    """Examine every picture of a source. Refused: nothing to examine, and whatever the reading for training refuses."""
    place = locate(source)
    if isinstance(place, Collection):
        found = _of_files(place, source, progress)
    elif isinstance(place, ArrayFile):
        found = _of_arrays(place, source, progress)
    else:
        found = _of_built_in(place, source, progress)
    good, bad = len(found.readable), len(found.pictures) - len(found.readable)
    if good < 2:
        first = next((f"first {p.name}: {p.problem}" for p in found.pictures if p.problem), "")
        what = "only one readable picture" if good else "no readable picture"
        others = f" ({bad} unreadable, {first})" if bad else ""
        raise Refused(f"{source}: {what}{others}; give a source that holds at least 2 pictures")
    return found


def _of_files(collection: Collection, source: str, progress: Progress) -> Subject:
    """The pictures of a collection, and the files that claim to be some."""
    named = collection.kind != "table"
    examined: list[tuple[Picture, Copy]] = []

    def look(file: Found) -> tuple[Picture, Copy]:
        try:
            data = file.read()
        except Exception as error:  # archives raise anything on damaged members; each is named
            return unreadable(file.name, reason(error)), NO_COPY
        why = refused.get(file.name)
        return examine(file.name, data, named) if why is None else (unreadable(file.name, why, sha256(data)), NO_COPY)

    with collection.files() as listing, quiet():
        known = survey(listing, collection.kind, source)
        refused = {item["path"]: item["reason"] for item in known.rejected}
        files = [file for file in listing.files if file.name in known.headers or file.name in refused]
        for done, (picture, copy) in enumerate(parallel(look, files), 1):
            words = known.words.get(picture.name, Words())
            label = known.labelling.labels.get(picture.name)
            examined.append((replace(picture, label=label, captions=words.captions), copy))
            progress(done, len(files))
    listed = {file.name for file in files}
    examined += [(unreadable(name, why), NO_COPY) for name, why in refused.items() if name not in listed]
    examined.sort(key=lambda pair: natural(pair[0].name))
    pictures = tuple(picture for picture, _ in examined)

    def read(numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        with collection.files() as again:
            at = {file.name: file for file in again.files}
            yield from ((number, at[pictures[number].name].read()) for number in numbers)

    def show(numbers: Iterable[int], side: int) -> Iterator[tuple[int, Image.Image]]:
        with quiet():
            for number, data in read(i for i in numbers if not pictures[i].problem):
                yield number, upright(data, side)

    return Subject(
        source,
        collection.kind,
        pictures,
        np.array([copy for _, copy in examined], np.uint8).reshape(-1, *NO_COPY.shape),
        {item["path"]: item["reason"] for item in known.left_out},
        known.notes,
        frozenset(name for name, words in known.words.items() if words == Words()),
        read,
        show,
    )


def _of_arrays(place: ArrayFile, source: str, progress: Progress) -> Subject:
    """The rows of arrays. Refused: all of them have the wrong range."""
    rows = checked(place.read(place.path), source)
    wrong = [text for at in _chunks(rows.images) for text in problems(at)]
    if all(wrong):
        raise Refused(f"{source}: picture 0 {wrong[0]}")

    def pixels(row: int) -> UInt8[np.ndarray, "h w *c"]:
        return to_bytes(np.asarray(rows.images[row : row + 1]))[0]

    def look(row: int) -> tuple[Picture, Copy]:
        digest = row_sha256(rows.images[row])
        if wrong[row]:
            return unreadable(row_name(row), wrong[row].partition(";")[0], digest), NO_COPY
        return examine_pixels(row_name(row), digest, pixels(row))

    labels = [None] * len(wrong) if rows.labels is None else [rows.names[i] for i in rows.labels]
    return _of_rows(source, "arrays", look, pixels, labels, rows.captions, progress)


def _chunks(images: Array) -> Iterator[Array]:
    return (np.asarray(images[start : start + _ROWS]) for start in range(0, len(images), _ROWS))


def _of_built_in(place: BuiltIn, source: str, progress: Progress) -> Subject:
    """The pictures of a built-in at its own size."""
    data = open_data(source, progress=progress)

    def look(row: int) -> tuple[Picture, Copy]:
        return examine_pixels(row_name(row), row_sha256(data.images[row]), data.images[row])

    labels = [None] * len(data) if data.labels is None else [data.names[i] for i in data.labels]
    return _of_rows(source, place.name, look, lambda row: data.images[row], labels, data.captions, progress)


def _of_rows(
    source: str,
    kind: str,
    look: Callable[[int], tuple[Picture, Copy]],
    pixels: Callable[[int], UInt8[np.ndarray, "h w *c"]],
    labels: Sequence[str | None],
    captions: tuple[tuple[str, ...], ...] | None,
    progress: Progress,
) -> Subject:
    said = captions or ((),) * len(labels)
    pictures: list[Picture] = []
    copies: list[Copy] = []
    for row, (picture, copy) in enumerate(parallel(look, range(len(labels)))):
        pictures.append(replace(picture, label=labels[row], captions=said[row]))
        copies.append(copy)
        progress(row + 1, len(labels))

    def show(numbers: Iterable[int], side: int) -> Iterator[tuple[int, Image.Image]]:
        del side
        for number in numbers:
            if not pictures[number].problem:
                yield number, as_picture(pixels(number))

    return Subject(source, kind, tuple(pictures), np.stack(copies), {}, (), frozenset(), None, show)
