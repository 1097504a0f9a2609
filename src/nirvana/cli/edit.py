"""`nirvana inpaint`, `nirvana outpaint`, `nirvana vary`, `nirvana blend` and `nirvana translate`."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from nirvana.cli import editing
from nirvana.cli.console import Console
from nirvana.cli.drawing import Drawing
from nirvana.errors import Refused
from nirvana.generate.changes import METHOD, TRANSLATED, UNREAD, Changes, blending, check_extent, varying


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
        prompt: what the new part shows (nothing in particular); a label model takes the name of a class
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
    editing.edit(console, model, image, mask, prompt, change, context, drawing)


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
        prompt: what the new part shows (nothing in particular); a label model takes the name of a class
        left: pixels to add there
        right: pixels to add there
        top: pixels to add there
        bottom: pixels to add there
        to: width and height of the whole, with the picture in the middle
        method: how it comes to agree with the rest: learned (by a model trained with --inpaint), langevin, ddnm,
            repaint, replacement (learned where the model is, else langevin)
        context: pixels of what is known that a window sees at least (a quarter of the canvas)
    """
    size = None if to is None else _size(to)
    check_extent((left, right, top, bottom), size)
    change = Changes(UNREAD, left=left, right=right, top=top, bottom=bottom, method=method, context=context or 0)
    editing.edit(console, model, image, None, prompt, change, context, drawing, size)


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

    --strength is the level of noise, from above 0 (little changes) to 1 (nothing stays); --steps are walked from there.
    --encode finds the noise that the picture is the picture of, and draws from it: the composition stays.

    examples:
      nirvana vary runs/flowers photo.png --strength 0.5 -n 8
      nirvana vary runs/shapes scene.png "a blue square" --encode --source "a red square"

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        image: a picture, or a folder of pictures
        prompt: what it becomes (as --source, or nothing in particular); a label model takes the name of a class
        strength: how much changes (0.6; with --encode 1)
        encode: draw from the picture's own noise
        source: with --encode, what the picture shows now (nothing said)
        context: pixels of its neighbours that a window sees at least (a quarter of the canvas)
    """
    change = varying(strength, encode=encode, source=source)
    editing.edit(console, model, image, None, prompt, change, context, drawing)


def blend(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    first: Annotated[Positional[str], arg(metavar="A")],
    last: Annotated[Positional[str], arg(metavar="B")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    source: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT", help_behavior_hint="")] = (),
    fit: bool = False,
    animate: bool = False,
    context: Annotated[int | None, arg(metavar="PX", help_behavior_hint="")] = None,
    drawing: OmitArgPrefixes[Drawing] = Drawing(n=8),  # noqa: B008 - a frozen value
) -> None:
    """Go from one picture to another in N pictures, through the noises that the two are the pictures of.

    Both are encoded along the flow backwards, and what lies between their noises is drawn: each picture on the way is
    one the model may draw, and the ends are A and B, up to the error of the solver (more --steps bring them nearer) and
    while --guidance is 1, as it is here where something is said of them. Writes DIR/A-B-000.png, ..., A-B-grid.png.
    A and B may be folders: of pictures of the same names, or one of them a picture that goes with all of the other.

    examples:
      nirvana blend runs/flowers a.png b.png
      nirvana blend runs/shapes a.png b.png --source "a red square" --source "a blue circle" -n 12 --animate
      nirvana blend runs/flowers a.png b.png --steps 100

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        first: the picture to begin with, or a folder of them
        last: the picture to end with, or a folder of them
        prompt: what all of them show (as --source, so that the ends are A and B); a label model takes a class
        source: what A and B show, for both, or twice, for each its own (nothing said)
        fit: scale and crop B to the size of A
        animate: also write A-B-animation.webp, from the one to the other and back
        context: pixels of its neighbours that a window sees at least (a quarter of the canvas)
    """
    editing.edit(console, model, first, last, prompt, blending(source, fit=fit), context, drawing, animate=animate)


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
        prompt: what the new picture shows (nothing in particular); a label model takes the name of a class
    """
    editing.edit(console, model, image, None, prompt, Changes(UNREAD, method=TRANSLATED), None, drawing)


def _size(written: str) -> tuple[int, int]:
    width, _, height = written.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise Refused(f"--to takes a width and a height such as 512x256, got '{written}'")
    return int(width), int(height)
