"""How the commands that edit pictures run: all of a folder, going on where they were stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from nirvana.cli.console import Console, duration
from nirvana.cli.drawing import Drawing
from nirvana.cli.reading import note_readings
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.changes import Changes

if TYPE_CHECKING:
    from nirvana.generate.edits import Edit


class _Input(NamedTuple):
    """A picture, and its mask or the one that a blend ends at."""

    picture: Path
    other: Path | None


@dataclass(frozen=True)
class _Targets:
    """Where the pictures of an edit go, of which a strip and an animation may be made. own: over pictures of
    a folder that they are made of, which after an interruption are gone.
    """

    paths: Sequence[Path]
    own: bool
    strip: Path | None
    animation: Path | None


@dataclass(frozen=True, eq=False)
class _Task:
    """An edit and where its pictures go."""

    edit: Edit
    to: _Targets


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What became of the inputs: the files, how many were there already, and why others were left out."""

    files: list[Path] = field(default_factory=list[Path])
    kept: list[_Input] = field(default_factory=list[_Input])
    left_out: list[Refused] = field(default_factory=list[Refused])


def edit(
    console: Console,
    model: str,
    image: str,
    other: str | None,
    prompt: str | None,
    change: Changes,
    context: int | None,
    drawing: Drawing,
    size: tuple[int, int] | None = None,
    *,
    animate: bool = False,
) -> None:
    """Edit a picture, or all of a folder that are not edited yet. other: the mask, or where a blend ends.

    Refused at the end, when the others are edited, where files of a folder cannot be.
    """
    from nirvana.generate.edits import prepare_edit, settled
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load

    folder, blends = check_folder(drawing.out), change.end is not None
    inputs = _inputs(image, other, blends)
    _check_apart(folder, image, other, inputs, drawing, grows=size is not None)
    several = len(inputs) > 1
    targets = [_targets(one, folder, drawing, blends=blends, animate=animate, several=several) for one in inputs]
    found = load(model, device=drawing.device)
    started, outcome = time.perf_counter(), _Outcome()
    ask = partial(drawing.request, found, prompt)
    # What no picture can have is said once, and now.
    asked = ask(settled(found, change if size is None else replace(change, right=1), context))
    said = [reading for reading in found.sampler(asked.weights).readings(asked) if reading.text or prompt is not None]
    note_readings(console, said)
    for number, (one, target) in enumerate(zip(inputs, targets, strict=True)):
        ends = (None, one.other) if blends else (one.other, None)
        try:
            ready = prepare_edit(
                found, one.picture, ends[0], end=ends[1], change=change, ask=ask, size=size, context=context
            )
        except Refused as error:
            if len(inputs) == 1:
                raise
            named = error if str(one.picture) in str(error) else Refused(f"{one.picture}: {error}")
            console.note(f"left out: {named}")
            outcome.left_out.append(named)
            continue
        task = _Task(ready, target)
        what = ("blending" if blends else "editing") + (f" {number + 1} of {len(inputs)}" if len(inputs) > 1 else "")
        if not _done(console, task, one, what, drawing):
            outcome.kept.append(one)
        outcome.files.extend([*target.paths, *_summary(task)])
    took = duration(time.perf_counter() - started)
    _report(console, outcome, len(inputs), f" of {drawing.n} pictures" if blends else "", folder, took)


def _report(console: Console, outcome: _Outcome, inputs: int, of: str, folder: Path, took: str) -> None:
    kept, left_out = len(outcome.kept), outcome.left_out
    new = inputs - kept - len(left_out)
    what = f"blend{'s' if new != 1 else ''}{of} made" if of else f"picture{'s' if new != 1 else ''} edited"
    already = f", {kept} {'was' if kept == 1 else 'were'} there already" if kept else ""
    console.result(
        f"{new} {what} in {folder} ({took}){already}",
        {
            "out": str(folder),
            "files": [str(path) for path in outcome.files],
            "kept": kept,
            "left_out": [str(error) for error in left_out],
        },
    )
    if left_out:
        raise Refused(f"{len(left_out)} of {inputs} pictures were left out, the first being {left_out[0]}")


def _inputs(image: str, other: str | None, blends: bool) -> list[_Input]:
    """What to edit. Refused where there is nothing, or a picture of a folder has no partner in the other one."""
    at, beside = Path(image).expanduser(), None if other is None else Path(other).expanduser()
    if beside is None or not beside.is_dir():
        pictures = _pictures(at) if at.is_dir() else [at]
        if len(pictures) > 1 and beside is not None and beside.exists():  # one for all, which may lie among them
            pictures = [picture for picture in pictures if not (picture.exists() and picture.samefile(beside))]
        return [_Input(picture, beside) for picture in pictures]
    if not at.is_dir():
        if not blends:
            raise Refused(f"{beside} is a folder and {at} a picture; name one mask")
        return [_Input(at, picture) for picture in _pictures(beside)]
    pictures, partners = _pictures(at), {path.stem: path for path in _pictures(beside)}
    lacking = [picture.name for picture in pictures if picture.stem not in partners]
    if lacking:
        what = "picture to end at" if blends else "mask"
        raise Refused(
            f"{beside} has no {what} for {lacking[0]} ({len(lacking)} lack one); give it the name of its picture"
        )
    return [_Input(picture, partners[picture.stem]) for picture in pictures]


def _pictures(folder: Path) -> list[Path]:
    """All but hidden ones, as what is half-written is. Refused where none is, or two differ in their suffix alone."""
    from nirvana.data.decode import EXTENSIONS

    found = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")]
    names: dict[str, Path] = {}
    for path in sorted(path for path in found if not path.is_dir()):
        other = names.setdefault(path.stem, path)
        if other is not path:
            raise Refused(f"{other} and {path} have one name, which results go by; rename one of them")
    if not names:
        raise Refused(f"{folder} has no pictures; name a folder that has, or a picture")
    return list(names.values())


def _check_apart(
    folder: Path, image: str, other: str | None, inputs: Sequence[_Input], drawing: Drawing, *, grows: bool
) -> None:
    """Refused where results would lie among what the next edit takes for pictures, but for those in their place.

    grows: to a given size, which pictures that were edited have already.
    """
    for name in (image, other):
        one = None if name is None else Path(name).expanduser()
        if one is None or not one.is_dir() or not folder.is_dir() or not one.samefile(folder):
            continue
        if name is other or drawing.n > 1 or not drawing.overwrite:
            raise Refused(f"{folder} is a folder that pictures come from; choose another --out for the results")
        if grows:
            raise Refused(
                f"a picture in {folder} that was extended could not be told from one that was not; choose another --out"
            )
        beside = next((each.picture for each in inputs if each.picture.suffix != ".png"), None)
        if beside is not None:
            raise Refused(f"results are PNG files, which cannot take the place of {beside}; choose another --out")


def _targets(one: _Input, folder: Path, drawing: Drawing, *, blends: bool, animate: bool, several: bool) -> _Targets:
    """Where the pictures of `one` go. Refused where that is a picture it is made of, unless it may be overwritten."""
    from nirvana.generate.images import numbered

    n, picture, mask = drawing.n, one.picture, None if blends else one.other
    stem = f"{picture.stem}-{cast(Path, one.other).stem}" if blends else picture.stem
    paths = [folder / name for name in ([f"{stem}.png"] if n == 1 else numbered(f"{stem}-", n))]
    strip = folder / f"{stem}-grid.png" if blends else None
    animation = folder / f"{stem}-animation.webp" if animate else None
    made_of = [path for path in (picture, one.other) if path is not None and path.exists()]
    own = False
    for path in (*paths, *filter(None, (strip, animation))):
        if not path.exists() or not any(path.samefile(source) for source in made_of):
            continue
        if mask is not None and mask.exists() and path.samefile(mask):
            raise Refused(f"{path} is the mask; choose another --out")
        if not drawing.overwrite:
            raise Refused(f"{path} is the picture that is edited; choose another --out, or add --overwrite")
        own = several
    return _Targets(paths, own, strip, animation)


def _done(console: Console, task: _Task, one: _Input, what: str, drawing: Drawing) -> bool:
    """Whether any of its pictures had to be drawn, which then they are."""
    todo = _todo(task, overwrite=drawing.overwrite)
    if todo and not task.edit.request.blends and one.other is not None and task.edit.whole:
        console.note(f"the mask {one.other} leaves nothing as it was: all of {one.picture} is drawn anew")
    if todo:
        _draw(console, task, todo, what, drawing)
    return bool(todo)


def _todo(task: _Task, *, overwrite: bool) -> list[range]:
    """The batches of which a picture is not there yet. Refused where something else has its name."""
    from nirvana.generate.edits import edit_record
    from nirvana.generate.images import grid_record

    request, origin = task.edit.request, task.edit.origin
    missing = [
        i for i in range(request.n) if not _there(task, task.to.paths[i], edit_record(i, request, origin), overwrite)
    ]
    todo = [batch for batch in request.batches() if not set(batch).isdisjoint(missing)]
    if task.to.strip is not None:
        _there(task, task.to.strip, grid_record(request, origin), overwrite)
    # An animation says nothing of itself, and is made last, of pictures that are all there.
    if task.to.animation is not None and todo and task.to.animation.exists() and not overwrite:
        raise Refused(_otherwise(task.to.animation, "which an animation does not say"))
    return todo


def _there(task: _Task, path: Path, record: Mapping[str, Json], overwrite: bool) -> bool:
    """Whether `path` has this record. Refused where something else has its name, unless it may be overwritten."""
    from nirvana.generate.again import difference
    from nirvana.modality.png import read_png_metadata

    if not path.exists():
        return False
    try:
        other = difference(read_png_metadata(path), record, own=task.to.own, exact=overwrite and not task.to.own)
    except Refused:
        other = "not by nirvana"
    if other is not None and not overwrite:
        raise Refused(_otherwise(path, other))
    return other is None


def _otherwise(path: Path, difference: str) -> str:
    return f"{path} is there and was made otherwise ({difference}); choose another --out, or add --overwrite"


def _draw(console: Console, task: _Task, todo: Sequence[range], what: str, drawing: Drawing) -> None:
    """Draw the batches that are to do; each picture is written, whole, when its batch is done."""
    from nirvana.files import explained, remove_abandoned, write_bytes
    from nirvana.generate.editing import EditPreview
    from nirvana.generate.edits import edit_record

    edit, folder, done = task.edit, task.to.paths[0].parent, 0
    batches, origin = iter(todo), edit.origin
    remove_abandoned(folder / "*")
    with console.progress(what, edit.steps(todo), "steps", preview=not drawing.no_preview) as bar:
        for event in edit.run(todo):
            if isinstance(event, EditPreview):
                done += 1
                bar.update(done, show=lambda now=event: now.pictures)
                continue
            with explained(folder, "make room, or choose another --out"):
                folder.mkdir(parents=True, exist_ok=True)
                for i, photo in zip(next(batches), event, strict=True):
                    write_bytes(task.to.paths[i], photo.png(edit_record(i, edit.request, origin)))


def _summary(task: _Task) -> list[Path]:
    """Write all pictures side by side, and one after the other, where the task has such files."""
    from nirvana.edit import read_photo
    from nirvana.files import explained, write_bytes
    from nirvana.generate.animate import there_and_back
    from nirvana.generate.edits import Edited
    from nirvana.modality import save_animation

    if task.to.strip is None:
        return []
    result = Edited([read_photo(path) for path in task.to.paths], task.edit.request, task.edit.origin)
    with explained(task.to.strip.parent, "make room, or choose another --out"):
        write_bytes(task.to.strip, result.grid_png())
        if task.to.animation is not None:
            save_animation(there_and_back(result.array), task.to.animation)
    return [task.to.strip, *([] if task.to.animation is None else [task.to.animation])]
