"""Whether the planner chooses well: its plans against four fixed recipes, for the same time on the same folders.

    python benchmarks/planner.py pace  WORK FOLDER:HELD_OUT ...     on a quiet machine
    python benchmarks/planner.py train WORK                          goes on where it was stopped
    python benchmarks/planner.py page  WORK

`pace` lets the planner plan, and measures how many images a second each fixed recipe trains on; `train` trains each
on the images that fit into the same time at that pace, so that a busy machine changes no result; then 300 pictures of
the same seeds are drawn from each, and their kernel distance to held-out pictures is taken (nirvana.evaluate).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import DOCS, publish, table
from PIL import Image, ImageDraw

from nirvana.data import open_data
from nirvana.evaluate import kernel_distance, open_space
from nirvana.generate.model import load
from nirvana.modality import grid
from nirvana.recipes.image import Training, make_task, prepare
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts, Recipe, stem_of
from nirvana.recipes.rehearsal import rehearse
from nirvana.recipes.task import PictureBatches
from nirvana.train.allocator import keep_memory
from nirvana.train.run import RunFolder

MINUTES = (0.5, 2.0)
SHARE = 0.9
"""Of the budget that a fixed recipe spends on steps; the rest goes to what the planner's runs do beside them."""
FIXED = {
    "narrow": ("flow", 32, 1, 32),
    "wide": ("flow", 64, 1, 64),
    "fine": ("flow", 32, 2, 32),
    "edm": ("edm", 48, 1, 32),
}
"""name -> recipe, width, divisor of the stem's cells, batch."""
COMMAND = "; ".join(
    f"python benchmarks/planner.py {part}" for part in ("pace WORK FOLDER:HELD_OUT ...", "train WORK", "page WORK")
)
SHOWN = "planner.png"
PICTURES, HELD_OUT, SEED = 300, 600, 1000
CPU = torch.device("cpu")


def fixed(name: str, size: int, channels: int, names: tuple[str, ...]) -> Recipe:
    """A fixed recipe for pictures of `size`."""
    kind, width, divisor, batch = FIXED[name]
    stem = max(1, stem_of(size) // divisor)
    return replace(RECIPES[kind](Facts(size, channels, names, width=width, stem=stem)), batch=batch)


def pace(work: Path, folders: list[str]) -> None:
    """Write plans.json: for each folder, budget and recipe what is to be trained."""
    plans: list[dict[str, Any]] = []
    for pair in folders:
        folder, held_out = pair.split(":")
        data = open_data(folder)
        names = data.names if data.labels is not None else ()
        speeds: dict[str, float] = {}
        for name in FIXED:
            recipe = fixed(name, data.images.shape[1], data.images.shape[3], names)
            plan = plan_of(recipe, recipe.batch, Order(folder))
            task = make_task(recipe, recipe.model, plan, CPU)
            batches = PictureBatches(data, 0, flip=False)
            speeds[name] = recipe.batch / rehearse(task, batches, plan, recipe.model, lambda _: 0.0, seconds=4).step
            print(Path(folder).name, name, f"{speeds[name]:.0f} images/s", flush=True)
        for minutes in MINUTES:
            entry: dict[str, Any] = {"folder": folder, "held_out": held_out, "minutes": minutes}
            plans += [
                {**entry, "recipe": name, "images": int(speed * 60 * minutes * SHARE)} for name, speed in speeds.items()
            ]
            planned = prepare(Order(folder, minutes=minutes), work / "plan", fresh=True)
            spec: Any = planned.run.model_spec
            plans.append(
                {
                    **entry,
                    "recipe": "planner",
                    "images": planned.run.plan.images,
                    "batch": planned.run.plan.batch,
                    "size": spec["shape"][-1],
                    "width": spec["network"]["width"],
                    "stem": spec["network"]["stem"],
                    "forecast": planned.forecast.seconds if planned.forecast else None,
                }
            )
            print(plans[-1], flush=True)
    (work / "plans.json").write_text(json.dumps(plans, indent=1))


def trained(work: Path, item: dict[str, Any]) -> Path:
    """Train one of the plans, without grids on the way; the run folder."""
    size = item.get("size")
    data = open_data(item["folder"], size=size)
    names = data.names if data.labels is not None else ()
    size, channels = data.images.shape[1], data.images.shape[3]
    if item["recipe"] == "planner":
        facts = Facts(size, channels, names, width=item["width"], stem=item["stem"])
        recipe = replace(RECIPES["flow"](facts), batch=item["batch"])
    else:
        recipe = fixed(item["recipe"], size, channels, names)
    order = Order(item["folder"], images=item["images"])
    plan = replace(plan_of(recipe, item["images"], order), sample_every=None, checkpoint_every=None)
    task = make_task(recipe, recipe.model, plan, CPU)
    out = work / f"{Path(item['folder']).name}-{item['minutes']}-{item['recipe']}"
    run = RunFolder.open_or_create(out, order.to_json(), plan, data.manifest.to_json(), recipe.model, "", fresh=True)
    for _ in Training(run, data, task, PictureBatches(data, 0, flip=recipe.flip), None).events():
        pass
    return out


def train(work: Path) -> None:
    """Train, draw and measure all plans that results.jsonl does not have."""
    keep_memory()
    results = work / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for item in json.loads((work / "plans.json").read_text()):
        if any(all(line[key] == item[key] for key in ("folder", "minutes", "recipe", "images")) for line in done):
            continue
        started = time.time()
        out = trained(work, item)
        pictures = load(out).generate(n=PICTURES, seed=SEED, guidance=1.0, batch=50).array
        grid(pictures[:40], columns=10).save(out.with_name(f"{out.name}.png"))
        native = open_data(item["held_out"]).manifest.native_side
        real = open_data(item["held_out"], size=native).images[:HELD_OUT]
        space = open_space()
        distance = kernel_distance(space(pictures), space(np.asarray(real))).value
        line = {**item, "distance": distance, "seconds": time.time() - started}
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def side_by_side(work: Path, pairs: list[tuple[str, str]]) -> Image.Image:
    """The first row of the grid of each run, one below the other, named."""
    rows: list[tuple[str, Image.Image]] = []
    for name, title in pairs:
        with Image.open(work / f"{name}.png") as drawn:
            rows.append((title, drawn.convert("RGB").crop((0, 0, drawn.width, drawn.height // 4))))
    height, width = max(row.height for _, row in rows) + 16, max(row.width for _, row in rows)
    sheet = Image.new("RGB", (width, height * len(rows)), "white")
    for place, (title, row) in enumerate(rows):
        ImageDraw.Draw(sheet).text((4, height * place + 2), title, "black")
        sheet.paste(row, (0, height * place + 16))
    return sheet


def page(work: Path) -> None:
    """The table: distance of every recipe, and the planner's over the best of the fixed ones."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    plans = json.loads((work / "plans.json").read_text())
    rows: list[list[str]] = []
    cells = sorted({(line["folder"], line["minutes"]) for line in plans})
    pairs: list[tuple[str, str]] = []
    for folder, minutes in cells:
        found = {line["recipe"]: line for line in lines if (line["folder"], line["minutes"]) == (folder, minutes)}
        if found.keys() < {*FIXED, "planner"}:
            continue
        ours, winner = found["planner"], min(FIXED, key=lambda name: found[name]["distance"])
        best = found[winner]["distance"]
        pairs += (
            [
                (f"{Path(folder).name}-{minutes}-{name}", f"{Path(folder).name}, {minutes:g} min, {name}")
                for name in ("planner", winner)
            ]
            if minutes == MINUTES[-1]
            else []
        )
        plan = f"{ours['size']} px, width {ours['width']}, stem {ours['stem']}, {ours['images']} images"
        distances = [found[name]["distance"] for name in (*FIXED, "planner")]
        cells_of_row = [f"{distance:.3f}" for distance in distances]
        rows.append([Path(folder).name, f"{minutes:g}", *cells_of_row, f"{ours['distance'] / best:.2f}", plan])
    head = ["folder", "minutes", *FIXED, "planner", "planner / best", "its plan"]
    what = ", ".join(f"{name}: {k}, width {w}, batch {b}" for name, (k, w, _, b) in FIXED.items())
    text = table(head, rows) + (
        f"\nKernel distance in the features of EfficientNet-Lite0 of {PICTURES} pictures (guidance 1, seeds from"
        f" {SEED}) to held-out ones, lower is better; one seed each. {what}; fine has a stem of half the cells.\n"
        "\nThe lower distance is not always the better picture of so short a training: noise that is left over counts"
        " as texture in these features. First row of each: what the planner's run draws; second: that of the fixed"
        f" recipe with the lowest distance, both after {MINUTES[-1]:g} minutes.\n\n![drawn](images/{SHOWN})\n"
    )
    side_by_side(work, pairs).save(DOCS / "images" / SHOWN)
    named = [{**line, "folder": Path(line["folder"]).name, "held_out": Path(line["held_out"]).name} for line in lines]
    publish("planner", "The planner against fixed recipes", COMMAND, text, named)


if __name__ == "__main__":
    command, place, *rest = sys.argv[1:]
    Path(place).mkdir(parents=True, exist_ok=True)
    {"pace": lambda: pace(Path(place), rest), "train": lambda: train(Path(place)), "page": lambda: page(Path(place))}[
        command
    ]()
