"""Two sources of pictures as one data set: what a model is shown, and what it shall make of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from nirvana.data.dataset import Dataset, Inputs, Rejection, named_by_picture, of_rows, pixel_digest
from nirvana.data.decode import open_picture, orientation
from nirvana.data.open import open_data
from nirvana.errors import Refused

_LEAST = 2


def open_pairs(
    source: str,
    target: str,
    *,
    size: int | None = None,
    allow_bad: bool = False,
    captions: bool = False,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The pictures of `target`, with those of `source` as its `inputs`; options as of `open_data`.

    Files make a pair where their names, below the source and without the suffix, are the same; rows of arrays and of
    built-ins where their numbers are. Labels and captions are those of `target`. Pictures without a partner are left
    out: the manifests list them on both sides, and notes count them.
    Refused: no pairs, two files of one name, arrays of other lengths, and a pair whose shapes differ, since then the
    centre squares would not show the same.
    """
    wanted = open_data(
        target, size=size, allow_bad=allow_bad, captions=captions, cache_dir=cache_dir, progress=progress
    )
    side = wanted.manifest.size
    shown = open_data(source, size=side, allow_bad=allow_bad, cache_dir=cache_dir, progress=progress)
    rows = _matched(shown, wanted)
    _check_shapes(shown, wanted, rows)
    return _joined(shown, wanted, rows)


def _matched(shown: Dataset, wanted: Dataset) -> dict[int, int]:
    """Row of `wanted` -> row of `shown`, in order."""
    a, b = shown.manifest, wanted.manifest
    by_name = named_by_picture(a), named_by_picture(b)
    if not any(by_name):
        if len(shown) != len(wanted):
            raise Refused(
                f"{a.source} has {len(shown)} pictures and {b.source} {len(wanted)}; arrays are paired by their rows,"
                " so give both the same number"
            )
        return {row: row for row in range(len(wanted))}
    if not all(by_name):
        raise Refused(f"{a.source} and {b.source}: files are paired by name and arrays by row; give two of one kind")
    of_shown, of_wanted = _by_name(shown), _by_name(wanted)
    rows = {row: of_shown[name] for name, row in of_wanted.items() if name in of_shown}
    if len(rows) < _LEAST:
        first = ", ".join(data.files([0])[0] for data in (shown, wanted))
        raise Refused(
            f"{len(rows)} of {len(shown)} pictures in {a.source} have a partner in {b.source} (first of each: {first});"
            f" at least {_LEAST} need the same name, whatever their suffixes"
        )
    return rows


def _by_name(data: Dataset) -> dict[str, int]:
    """Name without suffix -> row. Refused where two files have one."""
    rows: dict[str, int] = {}
    files = data.files(range(len(data)))
    for row, file in enumerate(files):
        name = str(PurePosixPath(file).with_suffix(""))
        if name in rows:
            raise Refused(
                f"{data.manifest.source}: {files[rows[name]]} and {file} have one name, so their partner is not"
                " clear; rename or remove one"
            )
        rows[name] = row
    return rows


def _check_shapes(shown: Dataset, wanted: Dataset, rows: dict[int, int]) -> None:
    """Refused at the first pair of files whose shapes differ by more than a pixel; folders only."""
    a, b = shown.manifest, wanted.manifest
    if (a.kind, b.kind) != ("folder", "folder"):
        return
    for row, other in rows.items():
        files = [Path(m.source).expanduser() / m.files[i]["path"] for m, i in ((a, other), (b, row))]
        try:
            (w, h), (width, height) = map(_upright_size, files)
        except OSError:
            continue  # read when it was decoded; what is gone since does not count
        if abs(w * height - h * width) > max(w, h, width, height):
            raise Refused(
                f"{files[0]} is {w}x{h} and its partner {files[1]} {width}x{height}; the centre squares of both show"
                " the same only where their shapes agree: crop one of them"
            )


def _upright_size(path: Path) -> tuple[int, int]:
    """(width, height) as it is to be seen."""
    with path.open("rb") as file, open_picture(file) as picture:
        width, height = picture.size
        return (height, width) if orientation(picture) >= 5 else (width, height)


def _joined(shown: Dataset, wanted: Dataset, rows: dict[int, int]) -> Dataset:
    """`wanted` less what has no partner, with its inputs in the same order."""
    alone = _alone(wanted, set(rows), shown), _alone(shown, set(rows.values()), wanted)
    notes = tuple(
        f"{len(left)} of {len(data)} pictures in {data.manifest.source} have no partner, and are left out (first:"
        f" {left[0]['path']})"
        for left, data in zip(alone, (wanted, shown), strict=True)
        if left
    )
    if alone[0]:
        kept = set(rows)
        wanted = wanted.without((row for row in range(len(wanted)) if row not in kept), alone[0])
    return replace(
        wanted,
        manifest=replace(wanted.manifest, notes=(*wanted.manifest.notes, *notes)),
        inputs=_inputs(shown, [rows[row] for row in sorted(rows)], alone[1]),
        notices=(*wanted.notices, *(notice for notice in shown.notices if notice not in wanted.notices)),
    )


def _inputs(shown: Dataset, order: Sequence[int], left_out: tuple[Rejection, ...]) -> Inputs:
    """Those rows in this order: the array as it is, where it has it already."""
    images = shown.images
    if order != list(range(len(images))):
        images = images[np.array(order, np.int64)]
        images.setflags(write=False)
    return Inputs(
        images,
        replace(
            shown.manifest,
            pictures=len(images),
            files=of_rows(shown.manifest, order),
            pixels=pixel_digest(images),
            left_out=(*shown.manifest.left_out, *left_out),
        ),
    )


def _alone(data: Dataset, paired: set[int], other: Dataset) -> tuple[Rejection, ...]:
    rows: Sequence[int] = [row for row in range(len(data)) if row not in paired]
    reason = f"no picture of this name in {other.manifest.source}"
    return tuple({"path": path, "reason": reason} for path in data.files(rows))
