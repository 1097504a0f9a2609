"""`nirvana inpaint`, `nirvana outpaint`, `nirvana vary` and `nirvana translate`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from nirvana.cli.console import Console, duration
from nirvana.cli.drawing import Drawing
from nirvana.errors import Refused
from nirvana.generate.changes import METHOD, TRANSLATED, Changes, Taken

if TYPE_CHECKING:
    from nirvana.generate.edits import Edit

UNREAD = Taken(None, "")
"""A picture that is still to be read: what else is wrong is refused before torch is imported."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


def inpaint(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    image: Annotated[Positional[str], arg(metavar="IMAGE")],
    mask: Annotated[Positional[str], arg(metavar="MASK")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    method: Annotated[str, arg(metavar="NAME[:KEY=X,...]", help_behavior_hint="")] = METHOD,
    strength: Annotated[float, arg(metavar="S")] = 1.0,
    invert: bool = False,
    fit: bool = False,
    feather: Annotated[int, arg(metavar="PX")] = 0,
    context: Annotated[int | None, arg(metavar="PX", help_behavior_hint="")] = None,
    drawing: OmitArgPrefixes[Drawing] = Drawing(),  # noqa: B008 - a frozen value
) -> None:
    """Fill a part of a picture: where the mask is white, new content is drawn that fits the rest.

    Every pixel that is black in the mask stays as it is, to the bit, with the depth and alpha of the picture. Grey is
    mixed. A picture larger than the model's canvas is edited window by window. With a folder for IMAGE (and one for
    MASK, or one mask for all) a run that was stopped goes on where it was.

    examples:
      nirvana inpaint runs/flowers photo.png mask.png
      nirvana inpaint runs/shapes scene.png hole.png "a large red circle" -n 4 --feather 2
      nirvana inpaint runs/flowers photos/ masks/ --out filled --method ddnm

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        image: a picture, or a folder of pictures
        mask: white is what changes; a picture, or a folder with a mask of the same name for each
        prompt: what the new part shows; a label model takes the name of a class
        method: how it comes to agree with the rest: learned (by a model trained with --inpaint), langevin, ddnm,
            repaint, replacement (learned where the model is, else langevin)
        strength: below 1 begins with what is there, under so much noise
        invert: black is what changes
        fit: stretch a mask of another size
        feather: pixels inside the mask over which the new fades in
        context: pixels of the rest that a window sees at least (a quarter of the canvas)
    """

    change = Changes(
        UNREAD, UNREAD, method=method, strength=strength, invert=invert, fit=fit, feather=feather, context=context or 0
    )
    _all(console, model, image, mask, prompt, change, context, drawing)


def outpaint(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    image: Annotated[Positional[str], arg(metavar="IMAGE")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    left: Annotated[int, arg(metavar="PX")] = 0,
    right: Annotated[int, arg(metavar="PX")] = 0,
    top: Annotated[int, arg(metavar="PX")] = 0,
    bottom: Annotated[int, arg(metavar="PX")] = 0,
    to: Annotated[str | None, arg(metavar="WxH", help_behavior_hint="")] = None,
    method: Annotated[str, arg(metavar="NAME[:KEY=X,...]", help_behavior_hint="")] = METHOD,
    context: Annotated[int | None, arg(metavar="PX", help_behavior_hint="")] = None,
    drawing: OmitArgPrefixes[Drawing] = Drawing(),  # noqa: B008 - a frozen value
) -> None:
    """Extend a picture beyond its border; all of the picture stays as it is.

    What exceeds the model's canvas is drawn window by window, each seeing what was drawn before.

    examples:
      nirvana outpaint runs/flowers photo.png --right 64
      nirvana outpaint runs/flowers photo.png --to 512x256 -n 4

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        image: a picture, or a folder of pictures
        prompt: what the new part shows; a label model takes the name of a class
        left: pixels to add there
        right: pixels to add there
        top: pixels to add there
        bottom: pixels to add there
        to: width and height of the whole, with the picture in the middle
        method: how it comes to agree with the rest: learned (by a model trained with --inpaint), langevin, ddnm,
            repaint, replacement (learned where the model is, else langevin)
        context: pixels of what is known that a window sees at least (a quarter of the canvas)
    """
    if (to is None) == (not any((left, right, top, bottom))):
        raise Refused("say how far: with --left, --right, --top, --bottom, or with --to WxH")
    size = None if to is None else _size(to)

    change = Changes(UNREAD, left=left, right=right, top=top, bottom=bottom, method=method, context=context or 0)
    _all(console, model, image, None, prompt, change, context, drawing, size)


def vary(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    image: Annotated[Positional[str], arg(metavar="IMAGE")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    strength: Annotated[float | None, arg(metavar="S", help_behavior_hint="")] = None,
    encode: bool = False,
    source: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None,
    context: Annotated[int | None, arg(metavar="PX", help_behavior_hint="")] = None,
    drawing: OmitArgPrefixes[Drawing] = Drawing(),  # noqa: B008 - a frozen value
) -> None:
    """Draw a picture again, changed: by noise up to a level and back, or by its own noise under another prompt.

    --strength is the level of noise, from 0 (nothing changes) to 1 (nothing stays); --steps are walked from there.
    --encode finds the noise that the picture is the picture of, and draws from it: the composition stays.

    examples:
      nirvana vary runs/flowers photo.png --strength 0.5 -n 8
      nirvana vary runs/shapes scene.png "a blue square" --encode --source "a red square"

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        image: a picture, or a folder of pictures
        prompt: what it becomes; a label model takes the name of a class
        strength: how much changes (0.6; with --encode 1)
        encode: draw from the picture's own noise
        source: with --encode, what the picture shows now (nothing said)
        context: pixels of its neighbours that a window sees at least (a quarter of the canvas)
    """
    level = (1.0 if encode else 0.6) if strength is None else strength

    change = Changes(UNREAD, strength=level, encode=encode, source=source, context=context or 0)
    _all(console, model, image, None, prompt, change, context, drawing)


def translate(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    image: Annotated[Positional[str], arg(metavar="IMAGE")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    drawing: OmitArgPrefixes[Drawing] = Drawing(),  # noqa: B008 - a frozen value
) -> None:
    """Make a picture of another one, by a model that was trained on pairs: nirvana train SOURCE --target DIR.

    The picture is fitted to the model's canvas as those of the training were: its centre square. With a folder for
    IMAGE a run that was stopped goes on where it was.

    examples:
      nirvana translate runs/edges drawing.png -n 4
      nirvana translate runs/edges drawings/ --out photos

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        image: a picture, or a folder of pictures
        prompt: what the new picture shows; a label model takes the name of a class
    """
    _all(console, model, image, None, prompt, Changes(UNREAD, method=TRANSLATED), None, drawing)


def _size(written: str) -> tuple[int, int]:
    width, _, height = written.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise Refused(f"--to takes a width and a height such as 512x256, got '{written}'")
    return int(width), int(height)


def _all(
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
    """Edit a picture, or all of a folder that are not edited yet."""
    from nirvana.generate.edits import prepare_edit
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load

    folder = check_folder(drawing.out)
    pairs = _pairs(image, mask)
    found = load(model, device=drawing.device)
    started, made, kept = time.perf_counter(), list[Path](), 0
    for number, (picture, hole) in enumerate(pairs):
        ask = partial(drawing.request, found, prompt)
        edit = prepare_edit(found, picture, hole, change=change, ask=ask, size=size, context=context)
        paths = _targets(folder, picture, drawing)
        todo = _todo(edit, paths, overwrite=drawing.overwrite)
        if todo:
            what = f"editing {number + 1} of {len(pairs)}" if len(pairs) > 1 else "editing"
            _draw(console, edit, paths, todo, what)
        else:
            kept += 1
        made += paths
    new = len(pairs) - kept
    took = duration(time.perf_counter() - started)
    already = f", {kept} were there already" if kept else ""
    console.result(
        f"{new} picture{'s' if new != 1 else ''} edited in {folder} ({took}){already}",
        {"out": str(folder), "files": [str(path) for path in made], "kept": kept},
    )


def _pairs(image: str, mask: str | None) -> list[tuple[Path, Path | None]]:
    """The pictures to edit, each with its mask. Refused where there is none, or a mask is missing."""
    at, hole = Path(image).expanduser(), None if mask is None else Path(mask).expanduser()
    if not at.is_dir():
        if hole is not None and hole.is_dir():
            raise Refused(f"{hole} is a folder and {at} a picture; name one mask")
        return [(at, hole)]
    pictures = sorted(path for path in at.iterdir() if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise Refused(f"{at} has no pictures ({', '.join(SUFFIXES)}); name a folder that has, or a picture")
    if hole is None or not hole.is_dir():
        return [(picture, hole) for picture in pictures]
    masks = {path.stem: path for path in sorted(hole.iterdir()) if path.suffix.lower() in SUFFIXES}
    lacking = [picture.name for picture in pictures if picture.stem not in masks]
    if lacking:
        raise Refused(f"{hole} has no mask for {lacking[0]} ({len(lacking)} lack one); give it the name of its picture")
    return [(picture, masks[picture.stem]) for picture in pictures]


def _targets(folder: Path, picture: Path, drawing: Drawing) -> list[Path]:
    """Where the variants of a picture go. Refused where that is the picture itself, unless it may be overwritten."""
    digits = max(3, len(str(drawing.n - 1)))
    names = [picture.stem] if drawing.n == 1 else [f"{picture.stem}-{i:0{digits}d}" for i in range(drawing.n)]
    paths = [folder / f"{name}.png" for name in names]
    for path in paths:
        if path.exists() and path.samefile(picture) and not drawing.overwrite:
            raise Refused(f"{path} is the picture that is edited; choose another --out, or add --overwrite")
    return paths


def _todo(edit: Edit, paths: Sequence[Path], *, overwrite: bool) -> list[range]:
    """The batches of which a picture is not there yet. Refused where something else has its name."""
    from nirvana.generate.edits import edit_record
    from nirvana.modality.png import read_png_metadata

    missing, origin = list[range](), edit.origin
    for batch in edit.request.batches():
        found = [i for i in batch if paths[i].exists()]
        for i in () if overwrite else found:
            try:
                same = read_png_metadata(paths[i]) == edit_record(i, edit.request, origin)
            except Refused:
                same = False
            if not same:
                raise Refused(f"{paths[i]} is there and was made otherwise; choose another --out, or add --overwrite")
        if overwrite or len(found) < len(batch):
            missing.append(batch)
    return missing


def _draw(console: Console, edit: Edit, paths: Sequence[Path], todo: Sequence[range], what: str) -> None:
    """Draw the batches that are to do; each picture is written, whole, when its batch is done."""
    from nirvana.files import explained, write_bytes
    from nirvana.generate.editing import EditPreview
    from nirvana.generate.edits import edit_record

    batches, origin, done = iter(todo), edit.origin, 0
    with console.progress(what, edit.steps(todo), "steps") as bar:
        for event in edit.run(todo):
            if isinstance(event, EditPreview):
                done += 1
                bar.update(done)
                continue
            with explained(paths[0].parent, "make room, or choose another --out"):
                paths[0].parent.mkdir(parents=True, exist_ok=True)
                for i, photo in zip(next(batches), event, strict=True):
                    write_bytes(paths[i], photo.png(edit_record(i, edit.request, origin)))
