"""`nirvana evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Bar, Console
from nirvana.errors import Refused

if TYPE_CHECKING:
    from nirvana.evaluate.evaluation import Outcome, Plan
    from nirvana.evaluate.scores import Score
    from nirvana.generate.model import Model


def evaluate(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    *,
    against: Annotated[str | None, arg(metavar="SOURCE", help_behavior_hint="")] = None,
    inputs: Annotated[str | None, arg(metavar="SOURCE", help_behavior_hint="")] = None,
    n: Annotated[int | None, arg(aliases=["-n"], metavar="N", help_behavior_hint="")] = None,
    minutes: Annotated[float | None, arg(metavar="M", help_behavior_hint="")] = None,
    curves: bool = False,
    solvers: Annotated[tuple[str, ...], arg(metavar="NAME NAME...", help_behavior_hint="")] = (),
    bits: bool = False,
    guidance: Annotated[float | None, arg(metavar="W", help_behavior_hint="")] = None,
    steps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    solver: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    seed: Annotated[int, arg(metavar="S")] = 0,
    space: Annotated[str, arg(metavar="NAME")] = "efflite0",
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
    device: Annotated[str, arg(metavar="NAME")] = "auto",
) -> None:
    """Measure what a model draws: distances with intervals, precision and recall, classes, copies; and a report.

    Samples are kept in MODEL/evaluation: an interrupted evaluation goes on when the command is given again.

    examples:
      nirvana evaluate runs/flowers
      nirvana evaluate runs/flowers --against unseen_flowers/ --minutes 10 --curves
      nirvana evaluate runs/flowers --curves --solvers dpmpp-2m unipc-2
      nirvana evaluate runs/flowers --guidance 1 --out guidance-1
      nirvana evaluate runs/edges --against unseen/photos/ --inputs unseen/edges/

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        against: real pictures to compare with (the training data)
        inputs: what those of --against are to be made of, for a model that was trained on pairs
        n: how many pictures (what fits the time, at least 2,000)
        minutes: time to draw them in (5)
        curves: also quality against network calls, for several solvers, and against guidance
        solvers: those of the curves (the run's own and three others)
        bits: also bits per dimension of pictures that were not trained on (64 of them; not for a GAN)
        guidance: as for generate (what the run recommends)
        steps: denoising steps (what the run recommends)
        solver: how a step is made (what the run recommends)
        seed: seed of the first picture
        space: feature space: efflite0, efflite0:SIDE, inception:FILE or dinov2:FOLDER
        out: folder for the report (MODEL/evaluation)
        device: auto, cpu, cuda, cuda:1 or mps
    """
    from nirvana.evaluate.evaluation import Plan

    plan = Plan(against, n, minutes, curves, guidance, steps, solver, seed, space, bits, inputs, solvers)
    from nirvana.evaluate.report import write_report
    from nirvana.evaluate.scores import FOLDER
    from nirvana.files import explained
    from nirvana.generate.images import check_folder
    from nirvana.generate.model import load
    from nirvana.zoo import beside

    found = load(model, device=device)
    folder = check_folder(out) if out is not None else beside(found.run.path) / FOLDER
    outcome = _watched(console, found, plan)
    with explained(folder, "make room, or choose another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        outcome.evaluation.write(folder)
        report = write_report(outcome, folder)
    lines = [*table(outcome.evaluation.scores), "", *(f"note: {note}" for note in outcome.evaluation.notes)]
    console.result("\n".join([*lines, f"report: {report}"]), {**outcome.evaluation.to_json(), "report": str(report)})


def _watched(console: Console, model: Model, plan: Plan) -> Outcome:
    """Evaluate, with a bar for whatever is going on."""
    from nirvana.evaluate.evaluation import evaluate as run

    with console.progress("evaluating", 1, "") as bar:

        def progress(what: str, done: int, total: int) -> None:
            _show(bar, what, done, total)

        try:
            return run(model, plan, progress=progress, say=console.note)
        except ValueError as error:  # what the mathematics cannot do with these pictures
            raise Refused(str(error)) from error


def _show(bar: Bar, what: str, done: int, total: int) -> None:
    bar.update(done, what, total)


def table(scores: Sequence[Score]) -> list[str]:
    """The scores as lines of text."""
    from nirvana.evaluate.report import number

    head = ("score", "value", "95% interval", "real/real", "samples/real")
    rows: list[tuple[str, ...]] = [head]
    for s in scores:
        interval = "" if s.interval is None else f"{number(s.interval.low)} to {number(s.interval.high)}"
        sizes = f"{s.samples:,}/{s.references:,}" if s.references else f"{s.samples:,}"
        mark = {"lower": " (lower)", "higher": " (higher)"}.get(s.better, "")
        rows.append((s.name + mark, number(s.value), interval, "" if s.floor is None else number(s.floor), sizes))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, *(f"warning: {s.name}: {s.warning}" for s in scores if s.warning)]
