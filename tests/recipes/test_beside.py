"""Learned inpainting and pairs in training: what is seen, that it is used, how runs go on and start from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nirvana.recipes.image as image
from gaussian_pairs import task_with, trained_losses
from nirvana import load
from nirvana.condition import Concat
from nirvana.condition.masks import NUMBERS, hidden
from nirvana.data import open_data, open_pairs
from nirvana.diffusion import sample_rng
from nirvana.diffusion.level import Level
from nirvana.errors import Refused
from nirvana.generate.spec import ModelParts
from nirvana.recipes import planner, recipe
from nirvana.recipes.image import Training, prepare
from nirvana.recipes.order import Order
from nirvana.recipes.recipe import Facts
from nirvana.recipes.task import DiffusionTask, PictureBatches, Pictures
from nirvana.train.checkpoint import load_weights
from nirvana.train.run import RunFolder
from nirvana.train.task import Position

Unchecked = Callable[..., Any]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow networks and short sampling."""
    monkeypatch.setattr(planner, "WIDTHS", ((8, 0),))
    monkeypatch.setattr(recipe, "VECTOR", 8)

    def quick(name: str) -> Any:
        def made(facts: Facts) -> recipe.Recipe:
            full = recipe.RECIPES[name](facts)
            best: Any = {**dict(full.model["recommended"]), "steps": 2}  # type: ignore[call-overload]
            return replace(full, model={**full.model, "recommended": best}, batch=8)

        return made

    monkeypatch.setattr(image, "RECIPES", {name: quick(name) for name in recipe.RECIPES})


def slot_of(task: DiffusionTask, batch: Pictures, indices: range) -> torch.Tensor:
    """What the network is given while it learns from these samples."""
    given: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, args: Any) -> None:
        given.append(args[2]["concat"])

    with task.parts.denoiser.net.register_forward_pre_hook(keep), torch.no_grad():
        task.loss(task.phases[0], batch, Position(3, indices, 0))
    return given[0]


def test_a_part_of_each_picture_is_seen_by_its_own_numbers() -> None:
    task, indices = task_with(Concat("masked", 1, drop=0.2)), range(40, 80)
    batch = PictureBatches(open_data("digits"), 3, flip=False).batch(indices)
    slot = slot_of(task, batch, indices)
    nothing = 0
    for row, index in enumerate(indices):
        u = torch.rand(1 + NUMBERS, generator=sample_rng(3, index, "concat"))
        shown = ~hidden(u[None, 1:], (8, 8))[0, 0] & (u[0] >= 0.2)
        nothing += not shown.any()
        assert torch.equal(slot[row, 0], shown.float())
        assert torch.equal(slot[row, 1], shown * (batch.x0[row, 0].float() / 127.5 - 1))
    assert 2 <= nothing <= 16
    # Nothing else of the batch decides: its parts see what the whole saw.
    parts = [PictureBatches(open_data("digits"), 3, flip=False).batch(part) for part in (range(40, 47), range(47, 80))]
    halves = [slot_of(task, part, span) for part, span in zip(parts, (range(40, 47), range(47, 80)), strict=True)]
    assert torch.equal(torch.cat(halves), slot)


def arrays(folder: Path, count: int = 24, side: int = 8) -> tuple[str, str]:
    """Coloured pictures, and their grey as what is wanted."""
    rng = np.random.default_rng(1)
    shown = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    np.save(folder / "in.npy", shown)
    np.save(folder / "out.npy", shown[..., 1])
    return str(folder / "in.npy"), str(folder / "out.npy")


def test_pairs_are_shown_together_and_mirrored_together(tmp_path: Path) -> None:
    data, indices = open_pairs(*arrays(tmp_path)), range(5, 45)
    plain, flipped = (PictureBatches(data, 7, flip=flip).batch(indices) for flip in (False, True))
    for batch in (plain, flipped):
        assert batch.inputs is not None and torch.equal(batch.inputs[:, 1:2], batch.x0)
    turned = [not torch.equal(a, b) for a, b in zip(plain.x0, flipped.x0, strict=True)]
    assert 8 < sum(turned) < 32
    slot = slot_of(task_with(Concat("paired", 3, drop=0.0)), flipped, indices)
    assert flipped.inputs is not None
    assert torch.equal(slot[:, 1:], flipped.inputs.float() / 127.5 - 1) and slot[:, 0].eq(1).all()


def test_on_gaussian_pairs_the_loss_comes_near_the_best_that_uses_the_input(unchecked: Unchecked) -> None:
    losses = unchecked(trained_losses, 40)
    best, blind = losses["best"], losses["blind"]
    assert best < losses["found"] < best + 0.25 * (blind - best)
    assert losses["swapped"] > 1.5 * blind


def run(training: Training) -> RunFolder:
    for _ in training.events():
        pass
    return training.run


@pytest.mark.usefixtures("tiny")
def test_interrupted_and_given_again_it_ends_the_same(tmp_path: Path) -> None:
    """Also where the network is narrower than usual, on which the recipe's choice of a loss depends."""
    order = Order(arrays(tmp_path)[0], images=24, seed=4, inpaint=True)
    whole = load_weights(run(prepare(order, tmp_path / "whole")), "raw")
    events = prepare(order, tmp_path / "parts").events()
    for _ in range(4):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert not RunFolder.open(tmp_path / "parts").finished
    parts = load_weights(run(prepare(order, tmp_path / "parts")), "raw")
    assert whole["denoiser.net.concat.weight"].any()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.usefixtures("tiny")
def test_a_run_of_pairs_says_what_it_was_made_of_and_translates(tmp_path: Path) -> None:
    source, target = arrays(tmp_path)
    order = Order(source, images=16, target=target)
    folder = run(prepare(order, tmp_path / "run"))
    assert folder.model_spec["concat"] == {"kind": "paired", "channels": 3, "drop": 0.1}
    assert folder.config["target"] == target and folder.data["source"] == target
    inputs: Any = folder.data["inputs"]
    assert inputs["source"] == source and inputs["pictures"] == 24
    with Image.open(next((folder.path / "samples").glob("*.png"))) as grid:
        assert grid.mode == "RGB"  # inputs and what is drawn, side by side
    shown = np.load(source)
    shown[3] = 255 - shown[3]
    np.save(source, shown)
    with pytest.raises(Refused, match="its data have changed"):
        prepare(order, tmp_path / "run")
    model = load(tmp_path / "run", device="cpu")
    assert model.info()["concat"] == folder.model_spec["concat"]
    assert model.generate(n=2).array.shape == (2, 8, 8, 1)


@pytest.mark.usefixtures("tiny")
def test_a_run_with_a_new_slot_begins_as_the_run_it_starts_from_bit_for_bit(tmp_path: Path) -> None:
    parent = run(prepare(Order("digits", images=16), tmp_path / "parent"))
    order = Order("digits", images=8, start=str(parent.path), inpaint=True)
    child = prepare(order, tmp_path / "child").task.parts
    before = load(parent.path, device="cpu").parts
    assert isinstance(child, ModelParts) and isinstance(before, ModelParts)
    rng = torch.Generator().manual_seed(0)
    x, labels = torch.randn(4, 1, 8, 8, generator=rng), torch.tensor([0, 3, 7, 9])
    seen = Concat("masked", 1).slot(x.clamp(-1, 1), torch.rand(4, 1, 8, 8, generator=rng) < 0.5)
    level = Level.from_lam(torch.linspace(-2, 2, 4, dtype=torch.float64))
    with torch.no_grad():
        old = before.denoiser(x, level, before.conditioner(labels)).x0
        child.modules().eval()
        assert torch.equal(child.denoiser(x, level, {**child.conditioner(labels), **seen}).x0, old)
    # And back: a child without the slot leaves it.
    grand = Order("digits", images=8, start=str(run(prepare(order, tmp_path / "child")).path))
    assert "concat" not in prepare(grand, tmp_path / "grand").run.model_spec


@pytest.mark.usefixtures("tiny")
def test_freezing_the_network_leaves_what_is_seen_to_learn(tmp_path: Path) -> None:
    source, _ = arrays(tmp_path)
    parent = run(prepare(Order(source, images=8), tmp_path / "parent"))
    order = Order(source, images=8, start=str(parent.path), inpaint=True, freeze=("network",))
    trained = [name for phase in prepare(order, tmp_path / "child").task.phases for name in phase.parameters]
    assert trained == ["denoiser.net.concat.weight", "denoiser.net.concat.bias"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inpaint": True, "target": "b"}, "give one of them"),
        ({"target": "b", "manifest": "m.json"}, "--manifest decides about the pictures of one source"),
    ],
)
def test_orders_that_exclude_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        Order("a", **changes)


@pytest.mark.parametrize("family", ["gan", "vae"])
@pytest.mark.parametrize("changes", [{"inpaint": True}, {"target": "digits"}])
def test_older_families_see_nothing_beside(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=f"'{family}' sees no picture beside its own"):
        prepare(Order("digits", recipe=family, images=8, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
