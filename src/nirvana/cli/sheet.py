"""`nirvana sheet`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.cli.reading import note_readings
from nirvana.errors import Refused
from nirvana.generate.named import taken
from nirvana.generate.request import SampleRequest, interval


def sheet(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    x: Annotated[str, arg(metavar="FIELD=A,B,...")],
    y: Annotated[str | None, arg(metavar="FIELD=A,B,...", help_behavior_hint="")] = None,
    label: Annotated[str | None, arg(metavar="NAME[:W][+...]", help_behavior_hint="")] = None,
    n: Annotated[int, arg(aliases=["-n"], metavar="N")] = 1,
    steps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    solver: Annotated[str | None, arg(metavar="NAME[:KEY=X,...]", help_behavior_hint="")] = None,
    guidance: Annotated[float | None, arg(metavar="W", help_behavior_hint="")] = None,
    seed: Annotated[int, arg(metavar="S")] = 0,
    guidance_interval: Annotated[str | None, arg(metavar="LOW,HIGH", help_behavior_hint="")] = None,
    rule: Annotated[str, arg(metavar="NAME[:KEY=X,...]")] = "cfg",
    negative: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None,
    autoguidance: Annotated[str | None, arg(metavar="FRACTION|IMAGES", help_behavior_hint="")] = None,
    classifier: Annotated[str | None, arg(metavar="NAME[:scale=X]", help_behavior_hint="")] = None,
    precision: Annotated[str, arg(metavar="float32|bfloat16")] = "float32",
    engine: Annotated[str, arg(metavar="NAME")] = "torch",
    strict: bool = False,
    out: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None,
    device: Annotated[str, arg(metavar="NAME")] = "auto",
) -> None:
    """Compare settings on one labelled page: columns vary one field, rows another.

    Fields: steps, guidance, seed, label, prompt, solver, grid, weights, precision, engine, rule (its w is the
    guidance), and these, which may be none: guidance_interval (LOW:HIGH), negative, autoguidance, classifier. Values
    stand between commas, or between bars where one of them has a comma: "prompt=a cat, asleep|a dog".

    examples:
      nirvana sheet runs/flowers --x steps=4,8,16 --y guidance=1,2,4
      nirvana sheet emoji "a red heart, flat emoji" --x guidance=1,2,4 --y seed=0,1,2
      nirvana sheet runs/flowers --x seed=0,1,2,3 --y label=rose,tulip --out sheet.png
      nirvana sheet runs/shapes --x guidance=1,2,4,7 --y "prompt=a red circle|two blue squares"
      nirvana sheet runs/flowers --x rule=cfg:w=4,rescale:w=4,apg:w=4,eta=0,cfg++:w=0.3 --y label=rose,tulip

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        prompt: what the pictures are of (examples of captions in turn)
        x: what the columns vary
        y: what the rows vary
        label: class of the pictures (all in turn)
        n: pictures in each place
        steps: denoising steps where no axis varies them
        solver: how a step is made where no axis varies it
        guidance: guidance where no axis varies it
        seed: seed of the first picture in each place
        guidance_interval: noise levels sigma/alpha to guide between where no axis varies them (everywhere)
        rule: how guidance is applied where no axis varies it: cfg, cfg++, rescale, apg, threshold
        negative: prompt or class to lead away from where no axis varies it
        autoguidance: moment of the training to lead away from where no axis varies it, such as 1/8
        classifier: what also steers where no axis varies it: fashion
        precision: what the network computes in where no axis varies it
        engine: what runs the network where no axis varies it: torch, openvino, onnx, aoti
        strict: refuse a prompt that is too long to be read at once
        out: the PNG file (generated/RUN-sheet.png)
        device: auto, cpu, cuda, cuda:1 or mps
    """
    ratios = None if guidance_interval is None else interval(guidance_interval)
    SampleRequest(
        n=n,
        steps=1 if steps is None else steps,
        guidance=1.0 if guidance is None else guidance,
        seed=seed,
        guidance_interval=ratios,
        precision=precision,
        engine=engine,
        solver="ddim" if solver is None else solver,
        rule=taken("rule", rule, "w")[0],
        negative=negative,
        autoguidance=autoguidance,
        classifier=classifier,
    )
    from nirvana.evaluate import CLASSIFIERS
    from nirvana.generate import sheet as sheets
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load
    from nirvana.generate.wanted import check_whole

    across, down = sheets.axis(x), None if y is None else sheets.axis(y)
    found = load(model, device=device, classifiers=CLASSIFIERS)
    target = Path(f"generated/{found.run.path.resolve().name}-sheet.png" if out is None else out).expanduser()
    if target.suffix.lower() != ".png" or target.is_dir():
        raise Refused(f"{target}: a sheet is a PNG file; name one with --out, such as sheet.png")
    check_folder(target.parent)
    base = found.request(
        prompt,
        label=label,
        n=n,
        steps=steps,
        solver=solver,
        guidance=guidance,
        seed=seed,
        guidance_interval=ratios,
        precision=precision,
        engine=engine,
        rule=rule,
        negative=negative,
        autoguidance=autoguidance,
        classifier=classifier,
    )
    with console.progress("searching the grids", 1, "evaluations") as bar:
        cells = sheets.requests(found, base, across, down, lambda done, total: bar.update(done, total=total))
    every = [request for row in cells for request in row]
    for request in every if strict else ():
        check_whole(found.parts.conditioner, found.called, request)
    note_readings(console, [one for request in every for one in found.sampler(request.weights).readings(request)])
    total = sum(request.steps * len(request.batches()) for request in every)
    with console.progress("drawing", total, "steps") as bar:
        made = sheets.sheet(found, base, across, down, lambda done, _: bar.update(done))
    path = made.save(target)
    rows, columns = made.array.shape[:2]
    console.result(f"{rows} x {columns} settings in {path}", {"out": str(path), "rows": rows, "columns": columns})
