"""`nirvana demo`."""

from __future__ import annotations

import resource
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from nirvana.cli.console import Console, duration
from nirvana.cli.plan import tell
from nirvana.cli.train import again, follow_all
from nirvana.errors import Refused

if TYPE_CHECKING:
    from nirvana.recipes.demo import Outcome


def demo(
    console: Console,
    *,
    out: Annotated[str, arg(metavar="RUN")] = "runs/demo",
    seed: Annotated[int, arg(metavar="S")] = 0,
    fresh: bool = False,
) -> None:
    """From noise to pictures: draw with the models that ship, train a small one on real pictures, and measure it.

    examples:
      nirvana demo
      nirvana demo --out /tmp/demo --seed 1

    Args:
        out: the run folder; an unfinished demo goes on there
        seed: of all randomness
        fresh: start anew
    """
    from nirvana.generate.model import load
    from nirvana.recipes import demo as recipe
    from nirvana.recipes.image import prepare

    order, run = recipe.order(seed), Path(out).expanduser()
    _greet(console, seed)
    console.note("2. training a small model on real pictures of clothes")
    training = prepare(order, run, fresh=fresh, command="nirvana demo")
    tell(console, training, order)
    follow_all(console, training.events(), run, again())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    model = load(run)
    outcome: Outcome | None = None
    steps = model.request().steps
    console.note(f"3. from noise to {recipe.PICTURES} pictures, in {steps} steps")
    with console.progress("drawing", steps, "steps", preview=True) as bar:
        for event in recipe.show(model, seed):
            if isinstance(event, recipe.Outcome):
                outcome = event
            else:
                bar.update(event.step, show=lambda now=event: now.pictures)
    if outcome is not None:
        _tell(console, run, outcome, memory)


def _greet(console: Console, seed: int) -> None:
    """Pictures of the models that ship, where `nirvana generate` puts them; what lacks an extra is left out."""
    from nirvana import zoo
    from nirvana.recipes.demo import greet

    none = "" if zoo.names() else ": none does yet"
    console.note(f"1. from a prompt to pictures, by the models that ship{none}")
    for name in zoo.names():
        try:
            grid, animation = greet(name, Path("generated") / f"{name}-{seed}", seed)
        except Refused as refused:
            console.note(f"     {name} is left out: {refused}")
        else:
            console.note(f"     {zoo.card(name).example}\n       {grid}\n       {animation}")


def _tell(console: Console, run: Path, outcome: Outcome, memory: int) -> None:
    low, high = (round(100 * edge) for edge in outcome.interval)
    name = shlex.quote(str(run))
    made = "\n".join(f"     {path}" for path in outcome.files)
    text = f"""\
4. measured
     {outcome.right} of {len(outcome.images)} pictures are named as asked, by a classifier (95%: {low} to {high})
     to the nearest training picture: {outcome.copy_ratio:.2f} of the distance of real unseen pictures (copies: 0)
     drawn in {duration(outcome.seconds)}; peak memory of the training {memory / 2**30:.2f} GiB
5. look at
{made}
     {run / "index.html"}
6. try next
     nirvana generate {name} --label sneaker -n 16 --seed 7
     nirvana sheet {name} --x steps=4,8,16 --y guidance=1,2,4
     nirvana train FOLDER_OF_PICTURES --minutes 10"""
    console.result(text, {**outcome.to_json(), "files": [str(path) for path in outcome.files]})
