"""How the commands that edit pictures run: all of a folder, or a blend of two, going on where they were stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nirvana.cli.console import Console, duration
from nirvana.cli.drawing import Drawing
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.changes import Changes

if TYPE_CHECKING:
    from nirvana.generate.edits import Edit, Edited


def edit(
    console: Console,
    model: str,
    image: str,
    mask: str | None,
    prompt: str | None,
    change: Changes,
    context: int | None,
    drawing: Drawing,
    size: tuple[int, int] | None = None,
) -> None:
    """Edit a picture, or all of a folder that are not edited yet.

    Refused at the end, when the others are edited, where files of a folder cannot be read.
    """
    from nirvana.edit import Unreadable
    from nirvana.generate.edits import prepare_edit
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load

    folder = check_folder(drawing.out)
    pairs = _pairs(image, mask)
    _check_apart(folder, [Path(one).expanduser() for one in (image, mask) if one is not None], drawing)
    found = load(model, device=drawing.device)
    started, made, kept, unread = time.perf_counter(), list[Path](), 0, list[Unreadable]()
    ask = partial(drawing.request, found, prompt)
    for number, (picture, hole) in enumerate(pairs):
        try:
            edit = prepare_edit(found, picture, hole, change=change, ask=ask, size=size, context=context)
        except Unreadable as error:
            if len(pairs) == 1:
                raise
            console.note(f"left out: {error}")
            unread.append(error)
            continue
        paths = _targets(folder, picture.stem, drawing.n)
        _check_targets(paths, [picture], drawing)
        todo = _todo(edit, paths, overwrite=drawing.overwrite)
        if hole is not None and todo and edit.whole:
            console.note(f"the mask {hole} leaves nothing as it was: all of {picture} is drawn anew")
        if todo:
            what = f"editing {number + 1} of {len(pairs)}" if len(pairs) > 1 else "editing"
            _draw(console, edit, paths, todo, what, drawing)
        else:
            kept += 1
        made += paths
    new = len(pairs) - kept - len(unread)
    took = duration(time.perf_counter() - started)
    already = f", {kept} {'was' if kept == 1 else 'were'} there already" if kept else ""
    console.result(
        f"{new} picture{'s' if new != 1 else ''} edited in {folder} ({took}){already}",
        {"out": str(folder), "files": [str(path) for path in made], "kept": kept},
    )
    if unread:
        raise Refused(f"{len(unread)} of {len(pairs)} pictures were left out, the first being {unread[0]}")


def blend(
    console: Console,
    model: str,
    first: str,
    last: str,
    prompt: str | None,
    change: Changes,
    context: int | None,
    drawing: Drawing,
    *,
    animate: bool,
) -> None:
    """Draw the pictures from one to another that are not there yet; then the strip and the animation of them all."""
    from nirvana.edit import read_photo
    from nirvana.generate.edits import Edited, prepare_edit
    from nirvana.generate.images import check_folder, grid_record
    from nirvana.generate.model import load

    folder, a, b = check_folder(drawing.out), Path(first).expanduser(), Path(last).expanduser()
    found, started = load(model, device=drawing.device), time.perf_counter()
    ask = partial(drawing.request, found, prompt)
    edit = prepare_edit(found, a, end=b, change=change, ask=ask, context=context)
    stem = f"{a.stem}-{b.stem}"
    paths = _targets(folder, stem, drawing.n)
    strip, animation = folder / f"{stem}-grid.png", folder / f"{stem}-animation.webp"
    _check_targets([*paths, strip, *([animation] if animate else [])], [a, b], drawing)
    todo = _todo(edit, paths, overwrite=drawing.overwrite)
    if not drawing.overwrite:
        _check_same(strip, grid_record(edit.request, edit.origin))
        if animate and todo and animation.exists():  # it is made last, of pictures that are all there
            raise Refused(_otherwise(animation))
    if todo:
        _draw(console, edit, paths, todo, "blending", drawing)
    result = Edited([read_photo(path) for path in paths], edit.request, edit.origin)
    made = [*paths, *_summary(result, strip, animation if animate else None)]
    kept = 0 if todo else drawing.n
    took = duration(time.perf_counter() - started)
    already = ", they were there already" if kept else ""
    console.result(
        f"{drawing.n} pictures from {a.name} to {b.name} in {folder} ({took}){already}",
        {"out": str(folder), "files": [str(path) for path in made], "kept": kept},
    )


def _pairs(image: str, mask: str | None) -> list[tuple[Path, Path | None]]:
    """The pictures to edit, each with its mask. Refused where there is none, or a mask is missing."""
    at, hole = Path(image).expanduser(), None if mask is None else Path(mask).expanduser()
    if not at.is_dir():
        if hole is not None and hole.is_dir():
            raise Refused(f"{hole} is a folder and {at} a picture; name one mask")
        return [(at, hole)]
    pictures = _pictures(at)
    if not pictures:
        raise Refused(f"{at} has no pictures; name a folder that has, or a picture")
    if hole is None or not hole.is_dir():
        return [(picture, hole) for picture in pictures]
    masks = {path.stem: path for path in _pictures(hole)}
    lacking = [picture.name for picture in pictures if picture.stem not in masks]
    if lacking:
        raise Refused(f"{hole} has no mask for {lacking[0]} ({len(lacking)} lack one); give it the name of its picture")
    return [(picture, masks[picture.stem]) for picture in pictures]


def _pictures(folder: Path) -> list[Path]:
    """All that are not hidden, as what is half-written is. Refused where two differ in their suffix alone."""
    from nirvana.data.decode import EXTENSIONS

    found = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")]
    names: dict[str, Path] = {}
    for path in sorted(found):
        other = names.setdefault(path.stem, path)
        if other is not path:
            raise Refused(f"{other} and {path} have one name, which results go by; rename one of them")
    return list(names.values())


def _targets(folder: Path, stem: str, n: int) -> list[Path]:
    """Where n pictures go."""
    from nirvana.generate.images import numbered

    return [folder / name for name in ([f"{stem}.png"] if n == 1 else numbered(f"{stem}-", n))]


def _check_apart(folder: Path, inputs: Sequence[Path], drawing: Drawing) -> None:
    """Refused where results would lie among what the next edit takes for pictures, but for those in their place."""
    for one in inputs:
        if one.is_dir() and folder.is_dir() and one.samefile(folder) and (drawing.n > 1 or not drawing.overwrite):
            raise Refused(f"{folder} is a folder that pictures come from; choose another --out for the results")


def _check_targets(paths: Sequence[Path], inputs: Sequence[Path], drawing: Drawing) -> None:
    """Refused where one of them is a picture that is edited, unless it may be overwritten."""
    for path in paths:
        if path.exists() and any(path.samefile(one) for one in inputs) and not drawing.overwrite:
            raise Refused(f"{path} is the picture that is edited; choose another --out, or add --overwrite")


def _todo(edit: Edit, paths: Sequence[Path], *, overwrite: bool) -> list[range]:
    """The batches of which a picture is not there yet. Refused where something else has its name."""
    from nirvana.generate.edits import edit_record

    missing, origin = list[range](), edit.origin
    for batch in edit.request.batches():
        if not overwrite:
            for i in batch:
                _check_same(paths[i], edit_record(i, edit.request, origin))
        if overwrite or not all(paths[i].exists() for i in batch):
            missing.append(batch)
    return missing


def _check_same(path: Path, record: Mapping[str, Json]) -> None:
    """Refused where there is a file at `path` that does not have this record."""
    from nirvana.modality.png import read_png_metadata

    try:
        same = not path.exists() or read_png_metadata(path) == record
    except Refused:
        same = False
    if not same:
        raise Refused(_otherwise(path))


def _otherwise(path: Path) -> str:
    return f"{path} is there and was made otherwise; choose another --out, or add --overwrite"


def _draw(
    console: Console, edit: Edit, paths: Sequence[Path], todo: Sequence[range], what: str, drawing: Drawing
) -> None:
    """Draw the batches that are to do; each picture is written, whole, when its batch is done."""
    from nirvana.files import explained, write_bytes
    from nirvana.generate.editing import EditPreview
    from nirvana.generate.edits import edit_record

    batches, origin, done = iter(todo), edit.origin, 0
    with console.progress(what, edit.steps(todo), "steps", preview=not drawing.no_preview) as bar:
        for event in edit.run(todo):
            if isinstance(event, EditPreview):
                done += 1
                bar.update(done, show=lambda now=event: now.pictures)
                continue
            with explained(paths[0].parent, "make room, or choose another --out"):
                paths[0].parent.mkdir(parents=True, exist_ok=True)
                for i, photo in zip(next(batches), event, strict=True):
                    write_bytes(paths[i], photo.png(edit_record(i, edit.request, origin)))


def _summary(result: Edited, strip: Path, animation: Path | None) -> list[Path]:
    """Write all pictures side by side, and one after the other."""
    from nirvana.files import explained, write_bytes
    from nirvana.generate.animate import there_and_back
    from nirvana.modality import save_animation

    with explained(strip.parent, "make room, or choose another --out"):
        write_bytes(strip, result.grid_png())
        if animation is not None:
            save_animation(there_and_back(result.array), animation)
    return [strip] if animation is None else [strip, animation]
