"""Trainings of equal minutes beside each other: the transformer and the U-Net; a shipped model as a start, and nothing.

    python benchmarks/equal_minutes.py backbones --runs DIR [--minutes 10]
    python benchmarks/equal_minutes.py finetuning --runs DIR [--minutes 10] [--start emoji]

What `nirvana train --minutes M` would do is planned for each row first, in turn and several times, and the largest plan
is kept: so many images, which are then trained however busy the machine is. Goes on where it was stopped; plans,
pictures, runs and samples are kept in --runs. Writes a section of docs/benchmarks.md. Plan on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measure import publish, table
from trainings import larger, planned, say, trained

from nirvana import load
from nirvana.data import open_data
from nirvana.data.emoji import family
from nirvana.evaluate.evaluation import Plan, evaluate
from nirvana.evaluate.report import number
from nirvana.evaluate.scores import FILE, Evaluation
from nirvana.files import new_folder, write_bytes, write_json, write_text
from nirvana.modality import to_png_bytes
from nirvana.recipes.order import Order

ROUNDS = 3
"""A row is planned so often; the neighbours on a machine only ever slow."""
SAMPLES = 2_000
SCORES = ("KID", "FD", "precision", "recall", "as asked", "alignment")
"""The beginnings of the names of the scores that are shown, where they were measured."""


@dataclass(frozen=True)
class Row:
    """A training, but for its length; against: real pictures that it was not trained on."""

    name: str
    order: Order
    against: str


@dataclass(frozen=True)
class Asked:
    """The command line."""

    study: str
    runs: Path
    minutes: float
    start: str

    @property
    def command(self) -> str:
        """What reproduces the section."""
        start = f" --start {self.start}" if self.study == "finetuning" else ""
        return f"python benchmarks/equal_minutes.py {self.study} --runs DIR --minutes {self.minutes:g}{start}"


def backbones(asked: Asked) -> list[Row]:
    """Two sets of pictures, one told by class and one by text, each by both networks."""
    del asked
    sources = {"fashion-mnist": "fashion-mnist:test", "shapes": "shapes:heldout"}
    recipes = {"U-Net": "flow", "transformer": "dit"}
    return [
        Row(f"{source}, {name}", Order(source, recipe=recipe), against)
        for source, against in sources.items()
        for name, recipe in recipes.items()
    ]


def finetuning(asked: Asked) -> list[Row]:
    """Half of the concepts that the shipped model has not seen, with their captions; the other half is held out."""
    mine, rest = asked.runs / "pictures", asked.runs / "unseen"
    if not rest.is_dir():
        write_halves(mine, rest)
    size = load(asked.start).parts.shape[1]
    scratch = Order(str(mine), size=size, condition="captions", encoder="minilm")
    started = replace(scratch, start=asked.start)
    orders = {
        "from nothing": scratch,
        f"--from {asked.start}": started,
        f"--from {asked.start} --freeze network": replace(started, freeze=("network",)),
    }
    return [Row(name, order, str(rest)) for name, order in orders.items()]


def write_halves(mine: Path, rest: Path) -> None:
    """Every other family of held-out concepts of `emoji` as pictures with a text file each, in two folders."""
    data = open_data("emoji:test", size=64)
    captions, attributes = data.captions, data.attributes
    if captions is None or attributes is None:
        raise SystemExit("emoji:test has no captions")
    families = [family(str(one["code"])) for one in attributes]
    place = {name: i for i, name in enumerate(dict.fromkeys(families))}
    for half, path in enumerate((mine, rest)):
        with new_folder(path, replace=True) as folder:
            for i, picture in enumerate(data.images):
                if place[families[i]] % 2 == half:
                    write_bytes(folder / f"{i:04}.png", to_png_bytes(picture))
                    write_text(folder / f"{i:04}.txt", "\n".join(captions[i]) + "\n")


STUDIES: Mapping[str, tuple[str, Callable[[Asked], list[Row]]]] = {
    "backbones": ("A transformer and the U-Net at equal time", backbones),
    "finetuning": ("Fine-tuning, and training from nothing, at equal time", finetuning),
}


def plans(asked: Asked, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Name of a row -> what a training of so many minutes is; measured once, then read from --runs."""
    path = asked.runs / f"{asked.study}-{asked.minutes:g}.json"
    if path.is_file():
        return json.loads(path.read_text())
    best: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):
        for row in rows:
            found = planned(replace(row.order, minutes=asked.minutes))
            say(f"{row.name}: {found}")
            best[row.name] = larger(found, best.get(row.name))
    write_json(path, best)
    return best


def run_of(asked: Asked, row: Row, number: int, plan: Mapping[str, Any]) -> Path:
    """The finished run of a row, begun or continued."""
    # A run that is continued has the width of the one it began with.
    width = None if row.order.start is not None else plan["width"]
    order = replace(row.order, images=plan["images"], width=width, size=plan["size"])
    return trained(order, asked.runs / f"{asked.study}-{asked.minutes:g}-{number}", asked.command)


def measured(run: Path, row: Row) -> Evaluation:
    """The evaluation of a run, which is made where it is not there yet."""
    folder = run / "equal"
    if not (folder / FILE).is_file():
        say(f"{row.name}: measuring")
        outcome = evaluate(load(run), Plan(against=row.against, n=SAMPLES))
        folder.mkdir(parents=True, exist_ok=True)
        outcome.evaluation.write(folder)
    return Evaluation.read(folder)


def cells(evaluation: Evaluation) -> list[str]:
    """The scores with their intervals; nothing where one was not measured."""
    found: list[str] = []
    for start in SCORES:
        score = next((s for s in evaluation.scores if s.name.startswith(start)), None)
        if score is None:
            found.append("")
            continue
        span = "" if score.interval is None else f" ({number(score.interval.low)} to {number(score.interval.high)})"
        found.append(f"{number(score.value)}{span}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--runs", type=Path, required=True, help="where plans, pictures, runs and samples are kept")
    parser.add_argument("--minutes", type=float, default=10.0, help="training of each row")
    parser.add_argument("--start", default="emoji", help="the model that fine-tuning begins with")
    given = parser.parse_args()
    asked = Asked(given.study, given.runs.expanduser(), given.minutes, given.start)
    asked.runs.mkdir(parents=True, exist_ok=True)
    title, rows_of = STUDIES[asked.study]
    rows = rows_of(asked)
    plan, lines, values = plans(asked, rows), list[list[str]](), dict[str, Any]()
    for place, row in enumerate(rows):
        evaluation = measured(run_of(asked, row, place, plan[row.name]), row)
        about = plan[row.name]
        lines.append([row.name, f"{about['parameters'] / 1e6:.2f}", f"{about['images']:,}", *cells(evaluation)])
        values[row.name] = {**about, "scores": [score.to_json() for score in evaluation.scores]}
    head = ["", "million numbers", f"images in {asked.minutes:g} min", "KID x 1000", *SCORES[1:]]
    kept = [place for place in range(len(head)) if any(line[place] for line in lines)]
    text = table([head[place] for place in kept], [[line[place] for place in kept] for line in lines])
    text += (
        f"\n{SAMPLES:,} pictures of each as it recommends, against real ones that none was trained on; 95% intervals.\n"
    )
    publish(f"equal-minutes-{asked.study}", title, asked.command, text, values)


if __name__ == "__main__":
    main()
