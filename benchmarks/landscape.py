"""The three families at equal training time on the same pictures: diffusion, a GAN, a VAE. Writes docs/landscape.md.

What `nirvana train --minutes M` would do is planned for each family first, in turn and several times, and the plan of
the quickest time is kept: so many images through such a width. Then every run trains that number of images, however
busy the machine is by then. All of it goes on where it was stopped when the command is given again; plans, runs and
samples are kept in --runs. Plan on a quiet machine; training may run beside other work.

python benchmarks/landscape.py --runs ~/landscape [--minutes 10] [--seeds 3] [-n 5000] [--out docs]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import DOCS, machine, table
from trainings import larger, planned, say, trained

from nirvana import load
from nirvana.evaluate.evaluation import Plan, evaluate
from nirvana.evaluate.report import number, write_report
from nirvana.evaluate.scores import FILE, Evaluation, Score
from nirvana.files import write_bytes, write_json, write_text
from nirvana.generate.model import Model
from nirvana.modality import grid, to_png_bytes
from nirvana.recipes.order import Order

FAMILIES = {"flow": "diffusion (flow)", "gan": "GAN", "vae": "VAE"}
ROUNDS = 3
"""A family is planned so often; the neighbours on a machine only ever slow."""
QUIET = 0.5
"""A load of the machine above this is said: plans made then are of a slower machine."""
_DRAWN = 1_000


@dataclass(frozen=True)
class Asked:
    """The command line."""

    source: str
    runs: Path
    out: Path
    minutes: float
    seeds: int
    n: int
    space: str

    @property
    def command(self) -> str:
        """What reproduces the page."""
        return (
            f"python benchmarks/landscape.py --runs RUNS --source {self.source} --minutes {self.minutes:g}"
            f" --seeds {self.seeds} -n {self.n} --space {self.space}"
        )


@dataclass(frozen=True)
class Setting:
    """A row of the page: a family, and how it is sampled where there is a choice."""

    family: str
    title: str
    folder: str = "evaluation"
    guidance: float | None = None


SETTINGS = (
    Setting("flow", "diffusion, as recommended"),
    Setting("flow", "diffusion, guidance 1", "unguided", 1.0),
    Setting("gan", "GAN"),
    Setting("vae", "VAE"),
)


# Plans


def plans(asked: Asked) -> dict[str, dict[str, Any]]:
    """family -> width, images and batch of a training of so many minutes; measured once, then read from --runs."""
    path = asked.runs / "plans.json"
    wanted = {"source": asked.source, "minutes": asked.minutes}
    if path.is_file():
        kept = json.loads(path.read_text())
        if {name: kept.get(name) for name in wanted} == wanted:
            return kept["plans"]
    load_before = os.getloadavg()[0]
    if load_before > QUIET:
        say(
            f"the load of this machine is {load_before:.1f}: what is planned now is for a busier machine than it may be"
        )
    best: dict[str, dict[str, Any]] = {}
    for _ in range(ROUNDS):
        for family in FAMILIES:
            found = planned(Order(asked.source, minutes=asked.minutes, recipe=family))
            say(f"{family}: {found}")
            best[family] = larger(found, best.get(family))
    write_json(path, {**wanted, "load": load_before, "machine": machine(), "plans": best})
    return best


# Runs


def run_path(asked: Asked, family: str, seed: int) -> Path:
    return asked.runs / f"{family}-{seed}"


def train(asked: Asked, family: str, seed: int, plan: Mapping[str, Any]) -> None:
    """The run of a seed, begun or continued."""
    order = Order(asked.source, recipe=family, seed=seed, images=plan["images"], width=plan["width"], size=plan["size"])
    trained(order, run_path(asked, family, seed), asked.command)


def evaluated(asked: Asked, setting: Setting, seed: int) -> Evaluation:
    """The evaluation of a run in a setting, which is made where it is not there yet."""
    path = run_path(asked, setting.family, seed)
    folder = path / "landscape" / setting.folder
    model = load(path)
    plan = Plan(
        against=held_out(asked.source),
        n=asked.n,
        guidance=setting.guidance,
        space=asked.space,
        bits=setting.family != "gan" and setting.guidance is None,
        seed=10**6 * (seed + 1),
    )
    sha256 = model.info()["weights_sha256"]
    if (folder / FILE).is_file():
        kept = Evaluation.read(folder)
        if (kept.about["sha256"], kept.about["request"]["n"]) == (sha256, asked.n):  # type: ignore[index, call-overload]
            return kept
    say(f"{path.name}: measuring {setting.title}")
    outcome = evaluate(model, plan)
    folder.mkdir(parents=True, exist_ok=True)
    outcome.evaluation.write(folder)
    write_report(outcome, folder)
    return outcome.evaluation


def held_out(source: str) -> str:
    """The part that was not trained on: what the samples are held against."""
    return f"{source}:test" if ":" not in source else f"{source}-test"


# The page


def values(evaluations: Sequence[Evaluation], name: str) -> list[Score]:
    """The first score whose name begins so, of each seed that has it."""
    found = (next((score for score in one.scores if score.name.startswith(name)), None) for one in evaluations)
    return [score for score in found if score is not None]


def cell(scores: Sequence[Score]) -> str:
    """The mean over seeds, and from the lowest end of an interval to the highest."""
    if not scores:
        return ""
    ends = [end for score in scores if score.interval is not None for end in score.interval]
    span = f" ({number(min(ends))} to {number(max(ends))})" if ends else ""
    return f"{number(statistics.mean(score.value for score in scores))}{span}"


COLUMNS = {
    "KID x 1000": "KID",
    "FD": "FD",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "class as asked": "as asked",
    "bits/dim": "bits",
    "p of no copies": "p of",
}


def summary(found: Mapping[Setting, Sequence[Evaluation]]) -> str:
    rows = [
        [setting.title, *(cell(values(some, start)) for start in COLUMNS.values())] for setting, some in found.items()
    ]
    first = next(iter(found.values()))
    floors = [next((s.floor for s in values(first, start) if s.floor is not None), None) for start in COLUMNS.values()]
    rows.append(["real against real", *("" if floor is None else number(floor) for floor in floors)])
    return table(["", *COLUMNS], rows)


def per_seed(found: Mapping[Setting, Sequence[Evaluation]]) -> str:
    """Every seed's own figures, and how far seeds lie apart beside what one seed's interval says."""
    rows: list[list[str]] = []
    for setting, some in found.items():
        kids = values(some, "KID")
        spread = statistics.stdev(score.value for score in kids) if len(kids) > 1 else float("nan")
        own = statistics.mean((s.interval.high - s.interval.low) / 3.92 for s in kids if s.interval is not None)
        each = [
            f"{number(s.value)} ({number(s.interval.low)} to {number(s.interval.high)})" for s in kids if s.interval
        ]
        recalls = ", ".join(number(score.value) for score in values(some, "recall"))
        rows.append([setting.title, "; ".join(each), f"{spread:.2g}", f"{own:.2g}", recalls])
    return table(["", "KID x 1000 by seed", "std over seeds", "error of one", "recall by seed"], rows)


def shares(found: Mapping[Setting, Sequence[Evaluation]]) -> str:
    """Every class's share of the samples, mean over the seeds, and the smallest of any."""
    tables = {setting: [one.details.get("shares") for one in some] for setting, some in found.items()}
    known: Any = next(iter(tables.values()))[0]
    if known is None:
        return ""
    names = [row["class"] for row in known["classes"]]
    lines: list[list[str]] = []
    for place, name in enumerate(names):
        row = [name, f"{known['classes'][place]['real']:.1%}"]
        for several in tables.values():
            parts = [one["classes"][place]["share"] for one in several]  # type: ignore[index, call-overload]
            row.append(f"{statistics.mean(parts):.1%} ({min(parts):.1%} to {max(parts):.1%})")
        lines.append(row)
    return f"Named by: {known['by']}.\n\n" + table(["class", "real", *(s.title for s in found)], lines)


def costs(asked: Asked, plan: Mapping[str, Mapping[str, Any]]) -> str:
    rows: list[list[str]] = []
    for family, title in FAMILIES.items():
        model = load(run_path(asked, family, 0))
        started = time.perf_counter()
        model.generate(n=_DRAWN)
        seconds = time.perf_counter() - started
        back = sum(
            event.get("event") == "rolled_back"
            for seed in range(asked.seeds)
            for event in load(run_path(asked, family, seed)).run.events()
        )
        one = plan[family]
        rows.append(
            [
                title,
                f"{one['parameters'] / 1e6:.2f} million",
                f"{one['width']}",
                f"{one['images']:,}",
                f"{model.parts.recommended.steps}",
                f"{seconds:.1f} s",
                f"{back}",
            ]
        )
    head = ["", "trained numbers", "width", f"images in {asked.minutes:g} min", "steps", f"{_DRAWN:,} pictures in"]
    return table([*head, "rollbacks"], rows)


def verdicts(found: Mapping[Setting, Sequence[Evaluation]]) -> Iterator[str]:
    """For each figure the best setting, and whether every seed of it beats every seed of the next."""
    for title, start in COLUMNS.items():
        means = {s.title: [score.value for score in values(some, start)] for s, some in found.items()}
        means = {name: several for name, several in means.items() if several}
        better = next((s.better for some in found.values() for s in values(some, start)), "")
        if len(means) < 2 or not better:
            continue
        ranked = sorted(means, key=lambda name: statistics.mean(means[name]), reverse=better == "higher")
        first, second = means[ranked[0]], means[ranked[1]]
        if statistics.mean(first) == statistics.mean(second):
            yield f"- {title}: {ranked[0]} and {ranked[1]} have the same ({number(first[0])})."
            continue
        clear = min(first) > max(second) if better == "higher" else max(first) < min(second)
        how = "every seed of it better than every seed of" if clear else "but its seeds overlap with those of"
        yield f"- {title}: best {ranked[0]} ({number(statistics.mean(first))}), {how} {ranked[1]}."


def pictures(asked: Asked, folder: Path) -> Iterator[str]:
    """Samples of fixed seeds of each setting, and the ways between pictures; written beside the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for setting in SETTINGS:
        model = load(run_path(asked, setting.family, 0))
        name = f"landscape-{setting.family}{'-unguided' if setting.guidance else ''}.png"
        count = 6 * max(1, len(model.labels) or 10)
        drawn = model.generate(n=count, guidance=setting.guidance).grid()
        write_bytes(folder / name, to_png_bytes(np.asarray(drawn)))  # without a record: it names folders
        yield f"![samples]({folder.name}/{name})\n\n{setting.title}, the first {count} seeds.\n"
    for family in FAMILIES:
        model = load(run_path(asked, family, 0))
        write_bytes(folder / f"landscape-{family}-walk.png", walk(model))
        yield f"![a way]({folder.name}/landscape-{family}-walk.png)\n\n{FAMILIES[family]}: ways between pictures.\n"


def walk(model: Model) -> bytes:
    """Four rows of ten steps, each to another seed and class (`nirvana generate --label A --to "B seed:S"`)."""
    names = model.labels or (None,)
    rows: list[np.ndarray] = []
    for row in range(4):
        begin, end = (names[place % len(names)] for place in (2 * row, 2 * row + 1))
        to = f"seed:{2 * row + 1}" if end is None else f"{end} seed:{2 * row + 1}"
        rows.append(model.generate(label=begin, n=10, seed=2 * row, to=to).array)
    return to_png_bytes(np.asarray(grid(np.concatenate(rows), 10)))


def page(asked: Asked, plan: Mapping[str, Mapping[str, Any]], found: Mapping[Setting, Sequence[Evaluation]]) -> str:
    kept = json.loads((asked.runs / "plans.json").read_text())
    about = next(iter(found.values()))[0].about
    return "\n".join(
        [
            "# The landscape: diffusion, a GAN and a VAE at equal training time\n",
            f"`{asked.command}`, planned on {kept['machine']} at a load of {kept['load']:.1f}.\n",
            f"Each family trained {asked.seeds} seeds on {asked.source} for as many images as {asked.minutes:g} minutes"
            f" hold of it; {asked.n:,} samples of each are held against {about['against']} in {about['space']}. What"
            " the figures mean: [evaluation.md](evaluation.md). Means over seeds; in brackets from the lowest end of a"
            " 95% interval of any seed to the highest.\n",
            summary(found),
            *verdicts(found),
            "\nPrecision is sharpness: the share of samples among real pictures; recall and coverage say how much of"
            " the real pictures samples reach.\n",
            "## Cost\n",
            costs(asked, plan),
            "## Stability over seeds\n",
            per_seed(found),
            "## Every class's share of the samples\n",
            shares(found),
            "## Samples\n",
            *pictures(asked, asked.out / "images"),
        ]
    )


def arguments() -> Asked:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="where plans, runs and samples are kept")
    parser.add_argument("--out", type=Path, default=DOCS, help="where the page goes")
    parser.add_argument("--source", default="fashion-mnist")
    parser.add_argument("--minutes", type=float, default=10.0, help="training of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", type=int, default=5_000, help="samples of each run")
    parser.add_argument("--space", default="efflite0", help="feature space, as for nirvana evaluate")
    given = parser.parse_args()
    runs = given.runs.expanduser()
    return Asked(given.source, runs, given.out, given.minutes, given.seeds, given.n, given.space)


def main() -> None:
    asked = arguments()
    asked.runs.mkdir(parents=True, exist_ok=True)
    plan = plans(asked)
    for seed in range(asked.seeds):
        for family in FAMILIES:
            train(asked, family, seed, plan[family])
    found = {s: [evaluated(asked, s, seed) for seed in range(asked.seeds)] for s in SETTINGS}
    asked.out.mkdir(parents=True, exist_ok=True)
    text = page(asked, plan, found)
    write_text(asked.out / "landscape.md", text)
    say(f"wrote {asked.out / 'landscape.md'}")


if __name__ == "__main__":
    main()
