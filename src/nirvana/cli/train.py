"""`nirvana train`."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from tyro.conf import Positional, UseAppendAction, arg

from nirvana.cli.console import Bar, Console, duration
from nirvana.cli.plan import tell, tell_memory
from nirvana.files import Json

if TYPE_CHECKING:
    from collections.abc import Generator

    from nirvana.train.events import Event, StepDone

JSON_STEPS = 10
"""With --json every so many-th step gives a line."""


def train(
    console: Console,
    source: Annotated[Positional[str], arg(metavar="SOURCE")],
    *,
    out: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")] = None,
    size: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    images: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    minutes: Annotated[float | None, arg(metavar="M", help_behavior_hint="")] = None,
    recipe: Annotated[str, arg(metavar="NAME")] = "auto",
    width: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    batch: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None,
    accumulate: Annotated[int, arg(metavar="N")] = 1,
    condition: Annotated[str, arg(metavar="NAME")] = "auto",
    encoder: Annotated[str, arg(metavar="NAME")] = "auto",
    inpaint: bool = False,
    target: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
    template: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT", help_behavior_hint="")] = (),
    shuffle_tags: bool = False,
    freeze: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="")] = (),
    from_run: Annotated[str | None, arg(name="from", metavar="RUN", help_behavior_hint="")] = None,
    seed: Annotated[int, arg(metavar="S")] = 0,
    device: Annotated[str, arg(metavar="NAME")] = "auto",
    precision: Annotated[str, arg(metavar="NAME")] = "auto",
    compile: bool = False,
    manifest: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None,
    fresh: bool = False,
    allow_bad: bool = False,
) -> None:
    """Train a model on pictures; the same command on an unfinished run goes on with it.

    Sub-folders of SOURCE are labels, texts beside the pictures captions (docs/text.md). With --minutes the size of the
    pictures, the network and the number of images are what this machine can do in that time. Nothing is lost: Ctrl-C
    saves, and so does a kill up to the last checkpoint.

    examples:
      nirvana train flowers/ --minutes 10
      nirvana train fashion-mnist --images 200000 --out runs/fashion --seed 1
      nirvana train shapes --minutes 30
      nirvana train roses/ --from runs/flowers --images 50000
      nirvana train flowers/ --inpaint --from runs/flowers
      nirvana train edges/ --target photos/

    Args:
        source: a folder, archive or array of pictures, or digits, fashion-mnist, shapes or emoji (docs/data.md)
        out: the run folder (runs/ and the name of SOURCE)
        size: side of the training pictures in pixels (by the pictures and the time)
        images: how many pictures to see, repetitions included
        minutes: how long the whole command may take (10, where neither is given)
        recipe: flow, dit (a transformer), edm, ddpm or improved-ddpm; gan and vae are the older families, as baselines
            (that of --from, or flow)
        width: channels of the network at its finest level (by the time)
        batch: pictures in a step (by the recipe)
        accumulate: parts a batch is computed in, to save memory
        condition: what the model is told: captions, labels, both or none (captions, else labels, where there are any)
        encoder: of the captions: joint, which learns with the network; minilm, which is a package (docs/text.md); or a
            folder or hf:NAME with a text model of transformers, #-2 behind it for the layer (by the captions)
        inpaint: learn to fill what is hidden of a picture, for `nirvana inpaint`
        target: learn to make the pictures there of those of the same name in SOURCE, for `nirvana translate`
        template: put captions into a text such as "a photo of {}"; repeat it for some that take turns
        shuffle_tags: show the parts of captions between commas in other orders too
        freeze: what keeps the weights of --from: encoder, or network (all but where conditions enter)
        from_run: start from the weights of that run, also with other labels or captions
        seed: of all randomness
        device: auto, cpu, cuda, cuda:1 or mps
        precision: auto, float32 or bfloat16
        compile: make kernels with torch.compile; minutes before the first step, worth it on a GPU
        manifest: which pictures to use, as `nirvana data check` wrote it (or its folder)
        fresh: replace the run that is there
        allow_bad: train although many files cannot be read
    """
    from nirvana.recipes.order import Order

    order = Order(
        source,
        size=size,
        images=images,
        minutes=minutes,
        recipe=recipe,
        width=width,
        batch=batch,
        accumulate=accumulate,
        condition=condition,
        encoder=encoder,
        inpaint=inpaint,
        target=target,
        templates=template,
        shuffle_tags=shuffle_tags,
        freeze=freeze,
        start=from_run,
        seed=seed,
        device=device,
        precision=precision,
        compile=compile,
        manifest=manifest,
    )
    run = Path(out).expanduser() if out is not None else Path("runs") / source_name(source)
    from nirvana.recipes.image import prepare

    with console.progress("reading", 0, "pictures") as bar:
        training = prepare(
            order,
            run,
            fresh=fresh,
            allow_bad=allow_bad,
            command=shlex.join(["nirvana", *sys.argv[1:]]),
            spent=time.perf_counter() - console.started,
            progress=lambda done, total: bar.update(done, total=total),
            encoding=lambda done, total: bar.update(done, "captions encoded", total=total),
            say=lambda what: bar.update(0, what),
        )
    tell(console, training, order)
    follow_all(console, training.events(), run, again())
    tell_memory(console, training)


def source_name(source: str) -> str:
    """The name of a run on `source`: the folder's own, or the built-in's."""
    name = re.sub(r"[^\w.-]+", "-", Path(source).expanduser().resolve().name).strip("-.")
    return name or "run"


def again() -> str:
    """The command as it was typed, to go on with: without `--fresh`, which would lose what was saved."""
    return shlex.join(["nirvana", *(arg for arg in sys.argv[1:] if arg != "--fresh")])


def follow_all(console: Console, events: Iterator[Event], run: Path, command: str) -> None:
    """Follow a training to its end; where Ctrl-C ends it, say that `command` goes on with it."""
    try:
        # Closing it saves a checkpoint, should Ctrl-C arrive while this function, not the training, is running.
        with closing(cast("Generator[Event]", events)):
            report(console, events, run)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted and saved in {run}; go on with: {command}") from None


def report(console: Console, events: Iterator[Event], run: Path) -> None:
    """Follow a training: a bar with the time left and notes, or with --json a line an event."""
    from nirvana.train.events import Finished

    first = next(events)
    with console.progress("training", getattr(first, "total", first.images), "images") as bar:
        for event in itertools.chain([first], events):
            follow(console, bar, event)
            if isinstance(event, Finished) and not console.json:
                already = "was finished already" if event.already else f"finished in {duration(event.seconds)}"
                print(f"{run} {already} after {event.images} images; see {run / 'index.html'}", flush=True)
                console.note(f"next: nirvana generate {shlex.quote(str(run))} -n 16")


def follow(console: Console, bar: Bar, event: Event) -> None:
    """Say what an event means."""
    from nirvana.train.device import has_bfloat16, pick_device
    from nirvana.train.events import RolledBack, SampleWritten, Saved, Started, StepDone

    if console.json:
        if not isinstance(event, StepDone) or event.step % JSON_STEPS == 0:
            console.emit(event_json(event))
    elif isinstance(event, Started):
        bar.update(event.images)
        begun = f"going on after {event.images} of" if event.images else "training on"
        console.note(f"{begun} {event.total} images ({event.device}, {event.precision})")
        if event.precision == "bfloat16" and not has_bfloat16(pick_device(event.device)):
            console.note(f"this {event.device} only emulates bfloat16, in which the training began: it is slower here")
    elif isinstance(event, StepDone):
        bar.update(event.images, beside(event))
    elif isinstance(event, Saved) and event.images:
        console.note(f"saved {event.path} after {event.images} images")
    elif isinstance(event, SampleWritten):
        console.note(f"drew {event.path}")
    elif isinstance(event, RolledBack):
        files = ", ".join((event.suspects or event.files)[:5])
        console.note(
            f"the loss was no number after {event.images} images: back to {event.to}, at {event.factor:g} of the rate"
            f" ({event.count} of 3); the files of that batch: {files}"
        )


def beside(event: StepDone) -> str:
    """What stands beside the bar: loss and speed."""
    losses = [value for value in (event.loss or {}).values() if value is not None]
    loss = f"loss {losses[0]:.4f}  " if losses else ""
    return f"{loss}{event.images_per_second:.0f} images/s"


def event_json(event: Event) -> dict[str, Json]:
    """An event as JSON, its kind under "event"."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    values = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(event).items()}
    return {"event": kind, **{name: _finite(value) for name, value in values.items()}}


def _finite(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
