"""A model of the zoo from its order to its folder in the package. Every part goes on where it was stopped."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nirvana import load, zoo
from nirvana.data import open_data
from nirvana.errors import Refused
from nirvana.evaluate.evaluation import Outcome, Plan, evaluate
from nirvana.files import Json, json_text, new_folder, write_chunks
from nirvana.generate.family import recommending
from nirvana.generate.model import Model
from nirvana.modality import to_png_bytes
from nirvana.recipes.image import prepare
from nirvana.train.checkpoint import newest
from nirvana.train.events import StepDone
from nirvana.train.pack import pack
from nirvana.train.run import CHECKPOINTS, DATA, RUN, RunFolder
from zoo.card import Section, curves, scores
from zoo.models import Shipped

SAMPLES = 2_000
SHOWN = 40
"""Pictures on the card: those of the first seeds, whatever they are."""
_REPORT = 30.0
_NEAREST = "Nearest training pictures"


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def build(name: str, model: Shipped, runs: Path, home: Path) -> Path:
    """Train in `runs`/NAME, measure a packed copy beside it, and put that with its card into `home`/NAME."""
    run = train(name, model, runs / name)
    packed = runs / f"{name}-packed"
    if not packed.is_dir():
        pack(run, packed, recommending(run.model_spec, str(run.path), model.recommended))
    plan = Plan(against=model.against, n=SAMPLES, curves=True, solvers=model.solvers)
    outcome = evaluate(load(packed), plan, progress=_Said(name), say=say)
    extra = model.measure(load(packed), load(run.path))
    return ship(name, model, packed, outcome, extra, home)


class _Said:
    """Progress of an evaluation, told now and then."""

    def __init__(self, name: str) -> None:
        self.name, self.at = name, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.at > _REPORT:
            self.at = time.monotonic()
            say(f"{self.name}: {what}, {done} of {total}")


def train(name: str, model: Shipped, path: Path) -> RunFolder:
    """The finished run at `path`, begun or continued."""
    told, there = _Said(name), len(open_data(model.order.source))
    if there < model.pictures:
        raise Refused(
            f"{name} is trained on {model.pictures:,} pictures, and {model.order.source} has {there:,} here; install"
            " the whole set (docs/data.md)"
        )
    for event in prepare(model.order, path, command=f"make zoo MODEL={name}", say=say).events():
        if isinstance(event, StepDone):
            told(f"training, {event.seconds_left / 60:.0f} min left", event.images, event.total)
    return RunFolder.open(path)


def ship(name: str, model: Shipped, packed: Path, outcome: Outcome, extra: Sequence[Section], home: Path) -> Path:
    """The folder of the model in the package, which appears whole; one from before is replaced."""
    loaded, sections = load(packed), [*extra, scores(outcome), *curves(outcome)]
    files = {
        zoo.CARD: json_text(said(model, loaded, sections)).encode(),
        zoo.TEXT: page(name, model, loaded, sections).encode(),
        "samples.png": to_png_bytes(np.asarray(loaded.generate(n=SHOWN).grid())),
        "nearest.png": to_png_bytes(np.asarray(outcome.pictures[_NEAREST])),
        **{file: data for section in sections for file, data in section.files.items()},
    }
    with new_folder(home / name, replace=True) as folder:
        for part in (RUN, DATA):
            write_chunks(folder / part, [(packed / part).read_bytes()])
        shutil.copytree(packed / CHECKPOINTS, folder / CHECKPOINTS)
        for file, data in files.items():
            write_chunks(folder / file, [data])
    return home / name


def said(model: Shipped, loaded: Model, sections: Sequence[Section]) -> dict[str, Json]:
    """What card.json holds: a line for `nirvana zoo`, and every figure of the card."""
    figures = {key: value for section in sections for key, value in section.figures.items()}
    return {
        "draws": model.draws,
        "size": "x".join(str(side) for side in loaded.parts.shape[1:]),
        "prompt": model.prompt,
        "needs": model.needs,
        "licence": model.licence,
        "trained": trained(loaded),
        "figures": figures,
    }


def trained(loaded: Model) -> str:
    """Images seen and time taken, in a line."""
    return f"{newest(loaded.run).images:,} images, {took(loaded)}"


def took(loaded: Model) -> str:
    """The time that the training took, by the clock."""
    hours, minutes = divmod(round(newest(loaded.run).seconds / 60), 60)
    return f"{f'{hours} h ' if hours else ''}{minutes} min"


def page(name: str, model: Shipped, loaded: Model, sections: Sequence[Section]) -> str:
    """The text of card.md."""
    best = loaded.parts.recommended
    quality = "\n\n".join(f"### {section.title}\n\n{section.text.rstrip()}" for section in sections)
    return f"""# {name}: {model.draws}

```
nirvana generate {name} {shlex.quote(model.prompt)} -n 4
```

![samples](samples.png)

The pictures of the first {SHOWN} seeds, drawn as the model recommends: {best.steps} steps of {best.solver}, guidance \
{best.guidance:g}.

## Data

{model.data}

## Training

{_training(loaded)}

## Quality

{quality}

### Nearest training pictures

![nearest](nearest.png)

Below, the samples that are most suspicious of being copies; above each, the training picture nearest to it.

## Limits

{model.limits}

## Rebuild

```
make zoo MODEL={name}
```

trains, measures and writes all of this again; it goes on where it was stopped.
""".replace(" \\\n", " ")


def gflop(loaded: Model) -> float:
    """10^9 operations of the network for a training image: those of a call, and twice as many backwards."""
    parts = loaded.parts
    with torch.no_grad():
        cond = parts.conditioner(torch.zeros(1, dtype=torch.int64), None, ("a",))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        parts.denoiser.net(torch.zeros(1, *parts.shape), torch.zeros(1), cond)
        return 3 * counter.get_total_flops() / 1e9


def _training(loaded: Model) -> str:
    info = loaded.info()
    plan, versions = cast("Mapping[str, Any]", info["plan"]), cast("Mapping[str, Any]", info["versions"])
    config, spec = cast("Mapping[str, Any]", info["config"]), cast("Mapping[str, Any]", info["model"])
    return (
        f"Recipe `{config['recipe']}`: {cast(int, info['parameters']) / 1e6:.2f} million numbers, width"
        f" {spec['network']['width']}, {plan['images']:,} images in batches of {plan['batch']}, seed {plan['seed']},"
        f" {plan['precision']}, {gflop(loaded):.1f} GFLOP an image forward and backward. Averaged weights, stored in 16"
        f" bits. It took {took(loaded)} by the clock, on a CPU ({versions['machine']}, two cores) beside other work."
        f" Versions: nirvana {versions['nirvana']}, torch {versions['torch']}."
    )
