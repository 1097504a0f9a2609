"""What texts cost in training: the same network, batch and pictures with captions, with labels, and with nothing.

They take turns in one process, so that what else the machine does meets them all; the ratio is of the medians.

Run: make bench, or python benchmarks/bench_text.py
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from statistics import median

import torch
from measure import options, publish, table

from nirvana.condition import has_minilm
from nirvana.data import open_data
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import RECIPES, Facts
from nirvana.recipes.subject import remember, subject_of
from nirvana.recipes.task import DiffusionTask, PictureBatches
from nirvana.train.optimizer import PhaseOptimizer
from nirvana.train.task import Position

WIDTH, STEPS = 64, 12
MOST = 1.15
"""So many times of a step without a condition may one with texts take."""
CASES = (
    ("shapes", 32, {"joint": ("captions", "joint")}),
    ("emoji", 64, {"labels": ("labels", "auto"), "minilm": ("captions", "minilm")}),
)
"""Source, size, and what the model is told, as it is chosen for the captions of that source."""


class Trained:
    """A training whose steps can be timed."""

    def __init__(self, source: str, size: int, condition: str, encoder: str, recipe: str, width: int) -> None:
        order = Order(source, size=size, condition=condition, encoder=encoder, recipe=recipe, width=width)
        data = open_data(source, size=size)
        subject = subject_of(order, data)
        remember(subject, data, lambda _done, _total: None)
        facts = Facts(size, 3, subject.names, width=width, encoder=subject.encoder, examples=subject.examples)
        made = dataclasses.replace(RECIPES[recipe](facts), batch=64)
        plan = plan_of(made, 10**6, order)
        self.task: DiffusionTask = make_task(made, made.model, plan, torch.device("cpu"))
        self.batches = PictureBatches(data, 0, flip=False, wording=subject.wording)
        self.optimizer = PhaseOptimizer(self.task.phases[0], plan)
        self.images = 0

    def step(self) -> float:
        """Seconds of a step of 64 pictures."""
        started = time.perf_counter()
        indices = range(self.images, self.images + 64)
        self.optimizer.clear()
        loss = self.task.loss(self.task.phases[0], self.batches.batch(indices), Position(0, indices, self.images))
        self.optimizer.backward(loss.total)
        self.optimizer.step(1e-4)
        self.images += 64
        return time.perf_counter() - started


def main() -> None:
    asked = options(__doc__ or "", rounds=5)
    width, steps = (16, 1) if asked.quick else (WIDTH, STEPS)
    found: dict[str, dict[str, float]] = {}
    for recipe, (source, size, told) in itertools.product(("flow", "dit"), CASES):
        kinds = {"nothing": ("none", "auto"), **told}
        if "minilm" in kinds and not has_minilm():
            continue
        made = {
            name: Trained(source, size, condition, encoder, recipe, width)
            for name, (condition, encoder) in kinds.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for one in made.values():
            one.step()
        for _ in range(asked.rounds):
            for name, one in made.items():
                seconds[name] += [one.step() for _ in range(steps)]
        base = median(seconds["nothing"])
        found[f"{recipe}, {source}"] = {name: round(median(times) / base, 3) for name, times in seconds.items()}
        for name, times in seconds.items():
            print(
                f"{recipe:<5}{source:<7}{name:<9}{64 / median(times):7.1f} images/s  {median(times) / base:.3f}",
                flush=True,
            )
    rows = [
        [case, name, f"{ratio:.2f}", "" if name == "labels" else ("met" if ratio <= MOST else "missed")]
        for case, ratios in found.items()
        for name, ratio in ratios.items()
        if name != "nothing"
    ]
    text = table(["network, pictures", "told by", "time of a step", f"<= {MOST} with texts"], rows)
    text += (
        f"\nIn times of a step that is told nothing; batch 64, width {width}, encodings of `minilm` from the cache.\n"
    )
    publish("text", "What texts cost in training", asked.command("bench_text.py"), text, found, asked.docs)


if __name__ == "__main__":
    main()
