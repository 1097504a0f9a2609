"""What a learned variance is worth: the held-out variational bound, at equal images, against the fixed variances.

Two models of the cosine chain (T = 1000) with the same network, data, order, levels and noise: one is trained on
L_simple, the other on the hybrid L_simple + 0.001 L_vlb. The bound of test pictures is summed term by term, x0 clipped.
Run: python benchmarks/learned_variance.py [IMAGES] [PICTURES] (about 6 minutes on two cores)
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from measure import publish, table
from torch import Tensor

from nirvana.data import Dataset, open_data
from nirvana.diffusion import Clipped, sample_rng
from nirvana.diffusion.markov import Bound, Chain, Variance
from nirvana.recipes.image import make_task
from nirvana.recipes.order import Order
from nirvana.recipes.planner import plan_of
from nirvana.recipes.recipe import Facts, Recipe, ddpm, improved_ddpm
from nirvana.recipes.task import DiffusionTask, PictureBatches
from nirvana.train.checkpoint import load_weights
from nirvana.train.loop import train
from nirvana.train.run import RunFolder


def trained(recipe: Recipe, data: Dataset, images: int) -> DiffusionTask:
    """The task of `recipe` after `images` images, with its averaged weights."""
    plan = replace(plan_of(recipe, images, Order("fashion-mnist")), sample_every=None)
    task = make_task(recipe, recipe.model, plan, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", {}, plan, data.manifest.to_json(), recipe.model, "")
        for _ in train(task, PictureBatches(data, 0, flip=False), plan, run):
            pass
        task.load_state_dict(load_weights(run))
    return task


def bound(task: DiffusionTask, chain: Chain, test: Dataset, pictures: int, variance: Variance) -> Bound:
    """The bound of the first test pictures, each with its own class; every model meets the same noise."""
    chosen = PictureBatches(test, 0, flip=False).batch(range(pictures))
    x0 = task.parts.codec.encode(chosen.x0)

    def noise(step: int) -> Tensor:
        return torch.randn(x0.shape, generator=sample_rng(0, step, "bound"))

    with torch.no_grad():
        cond = task.parts.conditioner(chosen.labels)
        return chain.vlb(Clipped(task.parts.denoiser), x0, noise, cond, variance)


def main() -> None:
    images, pictures = (int(value) for value in [*sys.argv[1:], *["24000", "32"][len(sys.argv) - 1 :]])
    data, test = open_data("fashion-mnist"), open_data("fashion-mnist:test")
    facts = Facts(28, 1, data.names)
    hybrid = improved_ddpm(facts)
    plain = ddpm(facts)
    plain = replace(plain, model={**plain.model, "schedule": hybrid.model["schedule"]})
    cases: list[tuple[str, Recipe, list[Variance]]] = [
        ("L_simple", plain, ["small", "large"]),
        ("hybrid", hybrid, ["learned", "small", "large"]),
    ]
    rows, values = [], {}
    for loss, recipe, variances in cases:
        task = trained(recipe, data, images)
        chain = task.parts.chain
        if chain is None:
            raise ValueError("both recipes have a chain")
        for variance in variances:
            found = bound(task, chain, test, pictures, variance)
            total = found.total
            first = found.terms[:, 0]
            error = total.std().item() / pictures**0.5
            rows.append([loss, variance, f"{total.mean():.3f} +- {error:.3f}", f"{first.mean():.3f}"])
            values[f"{loss}, {variance}"] = {"bits": total.tolist(), "terms": found.terms.mean(0).tolist()}
            print(rows[-1], flush=True)
    text = table(["trained on", "variance", "bound, bits per dimension", "of it the decoder"], rows)
    notes = f"\n{images} training images each, {pictures} test pictures, +- one standard error over pictures.\n"
    command = f"python benchmarks/learned_variance.py {images} {pictures}"
    publish("learned-variance", "What a learned variance is worth", command, text + notes, values)


if __name__ == "__main__":
    main()
