"""`nirvana generate`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from nirvana.cli.console import Console, duration
from nirvana.cli.reading import note_readings
from nirvana.cli.stopwatch import Stopwatch
from nirvana.errors import Refused
from nirvana.files import Json, explained
from nirvana.generate.asked import end_of
from nirvana.generate.named import taken
from nirvana.generate.request import SampleRequest, interval

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from nirvana.generate.images import Images
    from nirvana.generate.model import Model

ANIMATION = "animation.webp"


def generate(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    prompt: Annotated[Positional[str | None], arg(metavar="[PROMPT]", help_behavior_hint="")] = None,
    *,
    label: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME[:W][+...]", help_behavior_hint="")] = (),
    n: Annotated[int, arg(aliases=["-n"], metavar="N")] = 1,
    steps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    solver: Annotated[str | None, arg(metavar="NAME[:KEY=X,...]", help_behavior_hint="")] = None,
    guidance: Annotated[float | None, arg(metavar="W", help_behavior_hint="")] = None,
    seed: Annotated[int, arg(metavar="S")] = 0,
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
    batch: Annotated[int | None, arg(metavar="B", help_behavior_hint="")] = None,
    grid: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    weights: Annotated[str, arg(metavar="ema|raw")] = "ema",
    guidance_interval: Annotated[str | None, arg(metavar="LOW,HIGH", help_behavior_hint="")] = None,
    rule: Annotated[str, arg(metavar="NAME[:KEY=X,...]")] = "cfg",
    negative: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None,
    to: Annotated[str | None, arg(metavar="[TEXT] [seed:S]", help_behavior_hint="")] = None,
    strict: bool = False,
    autoguidance: Annotated[str | None, arg(metavar="FRACTION|IMAGES", help_behavior_hint="")] = None,
    classifier: Annotated[str | None, arg(metavar="NAME[:scale=X]", help_behavior_hint="")] = None,
    precision: Annotated[str, arg(metavar="float32|bfloat16")] = "float32",
    engine: Annotated[str, arg(metavar="NAME")] = "torch",
    compile: bool = False,
    animate: bool = False,
    no_preview: bool = False,
    verbose: bool = False,
    device: Annotated[str, arg(metavar="NAME")] = "auto",
) -> None:
    """Make new pictures with a trained model: DIR/000.png, 001.png, ... and grid.png.

    Picture i has seed S+i and is the same alone and in any batch. Every file says how it was made.

    examples:
      nirvana generate runs/flowers -n 16 --seed 7
      nirvana generate runs/shapes "a red circle in the centre" -n 4 --negative "a blue square"
      nirvana generate runs/shapes "a large red circle" --to "a large blue square" -n 8 --animate
      nirvana generate runs/flowers --label tulip --label rose -n 8 --guidance 3
      nirvana generate runs/flowers --label tulip:1.5+rose:0.5 --rule apg:eta=0 --guidance 4
      nirvana generate runs/flowers --steps 50 --animate --out pictures
      nirvana generate runs/flowers --label tulip --to "rose seed:9" -n 8

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        prompt: what the pictures are of, or several with weights ("a cat:1.5 + a dog:0.5"); "" asks for nothing; left
            out, examples of captions; a label model takes the name of a class
        label: class of the pictures, or several with weights; repeat it for some that take turns (all of them)
        n: how many pictures
        steps: denoising steps (what the run recommends)
        solver: how a step is made (what the run recommends)
        guidance: 0 ignores the prompt or label, 1 follows it, more exaggerates it (what the run recommends)
        seed: seed of the first picture
        out: folder for the pictures (generated/RUN-SEED)
        batch: pictures computed at once (by their size)
        grid: where the noise levels lie: a name, searched (the best for this model, found at the first use), or a
            list such as ratios:80,5,1,0.3,0 (what the run recommends)
        weights: averaged or last weights
        guidance_interval: guide only between these noise levels sigma/alpha (everywhere)
        rule: how guidance is applied: cfg, cfg++, rescale, apg, threshold
        negative: prompt or class to lead away from, in place of none
        to: go from the prompt (or label) and seed to these in N pictures: TEXT, seed:S, or both ("a cat seed:9")
        strict: refuse a prompt that is too long to be read at once, rather than reading it in pieces
        autoguidance: lead away from the model as it was at this moment of its training, such as 1/8
        classifier: also steer by the gradient of a classifier: fashion
        precision: what the network computes in
        engine: torch, or one that `nirvana export` wrote: openvino, onnx, aoti
        compile: compile the network first, which takes minutes and pays off on a GPU
        animate: also write animation.webp, from noise to pictures; with --to, from the one to the other
        no_preview: show no pictures in the terminal while they are drawn
        verbose: say where the time went: imports, model, texts, sampling, writing
        device: auto, cpu, cuda, cuda:1 or mps
    """
    # What needs no model is refused before torch is imported.
    end, end_seed = end_of(to)
    ratios = None if guidance_interval is None else interval(guidance_interval)
    SampleRequest(
        n=n,
        steps=1 if steps is None else steps,
        guidance=1.0 if guidance is None else guidance,
        seed=seed,
        batch=1 if batch is None else batch,
        weights=weights,
        guidance_interval=ratios,
        precision=precision,
        engine=engine,
        solver="ddim" if solver is None else solver,
        rule=taken("rule", rule, "w")[0],
        negative=negative,
        autoguidance=autoguidance,
        classifier=classifier,
        to=end,
        to_seed=end_seed,
    )
    if compile and engine != "torch":
        raise Refused(f"the engine '{engine}' was compiled at its export; leave --compile out")
    from nirvana.evaluate import CLASSIFIERS
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load
    from nirvana.modality import save_animation

    watch = Stopwatch(console.started)
    watch.lap("imports")
    found = load(model, device=device, compile=compile, classifiers=CLASSIFIERS)
    watch.lap("model")
    request = found.request(
        prompt,
        label=label or None,
        n=n,
        steps=steps,
        solver=solver,
        guidance=guidance,
        seed=seed,
        batch=batch,
        grid=grid,
        weights=weights,
        guidance_interval=ratios,
        precision=precision,
        engine=engine,
        rule=rule,
        negative=negative,
        autoguidance=autoguidance,
        classifier=classifier,
        to=to,
        strict=strict,
    )
    if animate and found.family != "diffusion" and not request.way:
        raise Refused(
            f"{found.called} draws in one call, with no way from noise to show; leave --animate out, or give --to"
        )
    folder = check_folder(out if out is not None else Path("generated") / f"{found.run.path.resolve().name}-{seed}")
    note_prompts(console, found, request, prompt)
    _note_cost(console, found, request)
    request = settled(console, found, request)
    watch.lap("texts")
    started = time.perf_counter()
    with watch.apart(found.parts.conditioner, "texts"):
        images, frames = run(console, found, request, animate, preview=not no_preview)
    seconds = time.perf_counter() - started
    watch.lap("sampling")
    paths = images.save(folder)
    if frames:
        with explained(folder, "make room, or choose another --out"):
            save_animation(frames, folder / ANIMATION)
        paths.append(folder / ANIMATION)
    watch.lap("writing")
    if verbose:
        console.note(str(watch))
    console.result(
        f"{n} picture{'s' if n > 1 else ''} in {folder} ({_way(found, request)}, {duration(seconds)})",
        {
            "out": str(folder),
            "files": [str(path) for path in paths],
            "seconds": round(seconds, 3),
            **({"spent": {name: round(value, 3) for name, value in watch.seconds.items()}} if verbose else {}),
            "request": request.to_json(),
            **readings_json(found, request),
        },
    )


def _way(model: Model, request: SampleRequest) -> str:
    """How the pictures were drawn, for people."""
    if model.family != "diffusion":
        return f"one call of a {model.family.upper()}"
    return f"{request.steps} steps of {request.solver}{_guidance(request)}"


def note_prompts(console: Console, model: Model, request: SampleRequest, prompt: str | None) -> None:
    """Say what is made of the prompt, wherever that is not plain."""
    if prompt is not None and not request.prompts:
        console.note(f"'{prompt}' is one of the model's labels: making pictures of that class")
    if prompt is None and any(request.prompts):
        console.note(f"no prompt: drawing {len(request.prompts)} of the captions the model was trained on in turn")
    note_readings(console, model.sampler(request.weights).readings(request))


def readings_json(model: Model, request: SampleRequest) -> dict[str, Json]:
    """How every text was read, for --json; nothing for a model without texts."""
    readings = model.sampler(request.weights).readings(request)
    return {"read": {reading.text: reading.to_json() for reading in readings}} if readings else {}


def _guidance(request: SampleRequest) -> str:
    """What guided the pictures, for people."""
    conditional = request.labels or request.prompts or request.autoguidance
    by = {
        "guidance": f"{request.guidance:g}" if conditional else None,
        "rule": None if request.rule == "cfg" else request.rule,
        "negative": request.negative,
        "autoguidance": request.autoguidance,
        "classifier": request.classifier,
    }
    return "".join(f", {name} {value}" for name, value in by.items() if value is not None)


def _note_cost(console: Console, model: Model, request: SampleRequest) -> None:
    """Say what was asked for to save time and costs it here."""
    from nirvana.train.device import has_bfloat16

    if request.precision == "bfloat16" and not has_bfloat16(model.device):
        console.note(f"this {model.device.type} only emulates bfloat16: float32 is faster here")
    if model.compiled and model.device.type == "cpu":
        console.note("compiling for the CPU takes minutes before the first step, and rarely gains them back")


def settled(console: Console, model: Model, request: SampleRequest) -> SampleRequest:
    """The request with a searched grid written out, with a progress bar where it has to be searched."""
    from nirvana.generate.grids import SEARCHED

    if request.grid != SEARCHED:
        return request
    with console.progress("searching the grid", 1, "evaluations") as bar:
        return model.settled(request, lambda done, total: bar.update(done, total=total))


def run(
    console: Console, model: Model, request: SampleRequest, animate: bool, preview: bool
) -> tuple[Images, list[Picture]]:
    """The pictures, with a progress bar and a `preview`, and the frames of the animation where it is asked for."""
    from nirvana.generate.animate import Recorder, there_and_back
    from nirvana.generate.model import Preview

    recorder = Recorder(request) if animate and not request.way else None
    batches = len(request.batches())
    with console.progress("generating", batches * request.steps, "steps", preview=preview) as bar:

        def watched(now: Preview) -> Preview:
            bar.update(now.batch.start // request.batch * request.steps + now.step, show=lambda: now.pictures)
            if recorder is not None:
                recorder.add(now)
            return now

        images = model.gather(request, map(watched, model.stream(request)))
    if animate and request.way:
        return images, there_and_back(images.array)
    return images, [] if recorder is None else recorder.frames()
