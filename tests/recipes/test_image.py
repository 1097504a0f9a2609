"""From data to a run folder: planning, going on, starting from another run, and what is refused."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nirvana.recipes.image as image
from nirvana import load
from nirvana.data.decisions import read_decisions, stored
from nirvana.data.doctor import diagnose
from nirvana.errors import Refused
from nirvana.recipes import planner, recipe
from nirvana.recipes.image import Training, prepare
from nirvana.recipes.order import Order
from nirvana.train.checkpoint import load_weights
from nirvana.train.run import RunFolder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow networks and short sampling: what is tested here does not depend on them."""
    monkeypatch.setattr(planner, "WIDTHS", ((8, 0),))
    monkeypatch.setattr(recipe, "VECTOR", 8)
    flow = recipe.RECIPES["flow"]

    def quick(facts: recipe.Facts) -> recipe.Recipe:
        made = flow(facts)
        best: Any = {**dict(made.model["recommended"]), "steps": 2}  # type: ignore[call-overload]
        return replace(made, model={**made.model, "recommended": best}, batch=8)

    monkeypatch.setattr(image, "RECIPES", {**recipe.RECIPES, "flow": quick})


def run(training: Training) -> RunFolder:
    for _ in training.events():
        pass
    return training.run


def pictures(folder: Path, names: tuple[str, ...], size: int = 8, mode: str = "L") -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            shape = (size, size) if mode == "L" else (size, size, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_a_training_ends_in_a_run_that_describes_itself_and_draws(tmp_path: Path) -> None:
    out = tmp_path / "run"
    training = prepare(Order("digits", images=50), out)
    assert (len(training.data), training.run.plan.images, training.run.plan.batch) == (1438, 50, 8)
    assert training.passes == 50 / 1438 and training.forecast is not None
    assert run(training).finished
    model = load(out)
    assert model.labels == tuple("0123456789")
    images = model.generate(label="7", n=2, seed=3)
    assert images.array.shape == (2, 8, 8, 1)
    assert len(list((out / "samples").glob("*.png"))) >= 3
    assert "<svg" in (out / "index.html").read_text()
    assert json.loads((out / "run.json").read_text())["config"]["images"] == 50


def test_interrupted_and_given_again_it_ends_the_same(tmp_path: Path) -> None:
    order = Order("digits", images=60, seed=4)
    whole = load_weights(run(prepare(order, tmp_path / "whole")), "raw")
    events = prepare(order, tmp_path / "parts").events()
    for _ in range(5):
        next(events)
    events.close()  # type: ignore[attr-defined]
    assert not RunFolder.open(tmp_path / "parts").finished
    parts = load_weights(run(prepare(order, tmp_path / "parts")), "raw")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    other = load_weights(run(prepare(replace(order, seed=5), tmp_path / "other")), "raw")
    assert not torch.equal(whole["denoiser.net.stem.weight"], other["denoiser.net.stem.weight"])


def test_a_manifest_is_obeyed_stored_and_needed_once(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pets", ("cat", "dog"))
    (folder / "cat" / "again.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    manifest = tmp_path / "manifest.json"
    diagnose(str(folder)).decisions.write(manifest)
    order = Order(str(folder), images=16, manifest=str(manifest))
    training = prepare(order, tmp_path / "run")
    assert len(training.data) == 6
    held = training.run.data
    assert held["left_out"] == [{"path": "cat/again.png", "reason": "manifest: the same as cat/0.png"}]
    assert stored(held) == read_decisions(manifest)
    manifest.unlink()
    assert len(prepare(order, tmp_path / "run").data) == 6
    with pytest.raises(Refused, match=r"manifest\.json is missing"):
        prepare(order, tmp_path / "other")
    with pytest.raises(Refused, match="its manifest is"):
        prepare(replace(order, manifest=None), tmp_path / "run")


def test_another_command_in_the_same_folder_is_refused_unless_fresh(tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare(Order("digits", images=16), out)
    for other in (Order("digits", images=24), Order("digits", images=16, recipe="ddpm")):
        with pytest.raises(Refused, match="another command"):
            prepare(other, out)
    assert prepare(Order("digits", images=24), out, fresh=True).run.plan.images == 24


def test_a_plan_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order("digits", minutes=0.3)  # enough on a busy machine too
    begun = prepare(order, tmp_path / "run")
    assert begun.run.plan.images % 8 == 0 and begun.forecast is not None

    def again(*_: object, **__: object) -> int:
        raise AssertionError("a run was measured twice")

    monkeypatch.setattr(planner, "rehearse", again)
    resumed = prepare(order, tmp_path / "run")
    assert resumed.run.plan == begun.run.plan and resumed.forecast is None


def large(folder: Path, side: int) -> str:
    folder.mkdir()
    for number in range(2):
        Image.new("RGB", (side + number, side), (number, 9, 9)).save(folder / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize(("native", "images", "size"), [(70, 10, 32), (70, 50_000, 64), (130, 2_000_000, 128)])
def test_the_size_of_the_pictures_follows_the_files_and_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: int, images: int, size: int
) -> None:
    monkeypatch.setattr(planner.Planner, "_images", lambda *_: images)
    source = large(tmp_path / "large", native)
    assert prepare(Order(source, minutes=1.0), tmp_path / "run").data.images.shape[1] == size
    resumed = prepare(Order(source, minutes=1.0), tmp_path / "run")
    assert resumed.data.images.shape[1] == size
    own = prepare(Order(source, minutes=1.0, size=24), tmp_path / "own")
    assert own.data.images.shape[1] == 24


def test_from_a_run_known_names_keep_their_rows_and_new_ones_begin_at_the_null_class(tmp_path: Path) -> None:
    parent = run(prepare(Order(str(pictures(tmp_path / "a", ("cat", "dog"))), images=32), tmp_path / "parent"))
    before = load_weights(parent)
    source = str(pictures(tmp_path / "b", ("dog", "emu", "fox")))
    child = prepare(Order(source, images=16, start=str(parent.path)), tmp_path / "child")
    after = child.task.state_dict()
    table, old = after["conditioner.embedding.weight"], before["conditioner.embedding.weight"]
    assert child.task.parts.conditioner.names == ("dog", "emu", "fox")
    for row, origin in enumerate((1, 2, 2, 2)):
        assert torch.equal(table[row], old[origin])
    others = [name for name in after if name != "conditioner.embedding.weight"]
    assert all(torch.equal(after[name], before[name]) for name in others)
    finished = run(child)
    assert not torch.equal(load_weights(finished)["denoiser.net.stem.weight"], before["denoiser.net.stem.weight"])


def test_from_a_run_the_child_can_go_on_without_its_parent(tmp_path: Path) -> None:
    source = str(pictures(tmp_path / "a", ("cat", "dog")))
    parent = run(prepare(Order(source, images=16), tmp_path / "parent"))
    order = Order(source, images=32, start=str(parent.path))
    events = prepare(order, tmp_path / "child").events()
    next(events), next(events)
    events.close()  # type: ignore[attr-defined]
    parent.path.rename(tmp_path / "gone")
    assert run(prepare(order, tmp_path / "child")).finished


@pytest.mark.parametrize("recipe", ["ddpm", "vae"])
def test_a_child_has_the_recipe_of_its_parent_also_when_it_goes_on_without_it(tmp_path: Path, recipe: str) -> None:
    source = str(pictures(tmp_path / "a", ("cat", "dog")))
    parent = run(prepare(Order(source, images=16, recipe=recipe), tmp_path / "parent"))
    order = Order(source, images=32, start=str(parent.path))
    events = prepare(order, tmp_path / "child").events()
    next(events), next(events)
    events.close()  # type: ignore[attr-defined]
    parent.path.rename(tmp_path / "gone")
    child = run(prepare(order, tmp_path / "child"))
    assert child.finished and child.config["recipe"] == recipe
    assert prepare(Order(source, images=8), tmp_path / "new").run.config["recipe"] == "flow"


def test_from_a_run_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    parent = run(prepare(Order(str(pictures(tmp_path / "a", ("cat", "dog"))), images=16), tmp_path / "parent"))
    colour = str(pictures(tmp_path / "b", ("cat", "dog"), mode="RGB"))
    with pytest.raises(Refused, match="channels"):
        prepare(Order(colour, images=16, start=str(parent.path)), tmp_path / "child")
    with pytest.raises(Refused, match="recipe"):
        prepare(Order(str(tmp_path / "a"), images=16, recipe="ddpm", start=str(parent.path)), tmp_path / "child")
    with pytest.raises(Refused, match="has a unet, and the recipe a dit"):
        prepare(Order(str(tmp_path / "a"), images=16, recipe="dit", start=str(parent.path)), tmp_path / "child")
    with pytest.raises(Refused, match="not there"):
        prepare(Order("digits", images=16, start=str(tmp_path / "nowhere")), tmp_path / "child")
    assert not (tmp_path / "child").exists()


def test_an_unknown_recipe_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="did you mean 'flow'"):
        prepare(Order("nowhere", recipe="flwo"), tmp_path / "run")


def test_unlabelled_pictures_make_an_unconditional_model(tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    pictures(folder, ("only",))
    model = load(run(prepare(Order(str(folder / "only"), images=8), tmp_path / "run")).path)
    assert model.labels == () and model.generate(n=1).array.shape == (1, 8, 8, 1)


def test_captions_go_with_the_data_of_a_run_and_a_changed_one_is_other_data(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pets", ("cat", "dog"))
    (folder / "captions.csv").write_text("file_name,text\ncat/0.png,a cat\ndog/1.png,a dog\n")
    source, out = str(tmp_path / "pets.tar.gz"), tmp_path / "run"

    def pack() -> None:
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, "pets")

    pack()
    order = Order(source, images=24)
    begun = prepare(order, out)
    assert begun.data.manifest.captioned == 2
    stored = begun.run.data
    assert (stored["captioned"], stored["captions"]) == (2, begun.data.manifest.captions)
    assert run(prepare(order, out)).finished
    assert load(out).labels == ("cat", "dog")
    (folder / "captions.csv").write_text("file_name,text\ncat/0.png,a cat\ndog/1.png,a wolf\n")
    pack()
    with pytest.raises(Refused, match="its data have changed"):
        prepare(order, out)


def test_sets_with_captions_train_with_them_or_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nirvana.data.shapes.source.TRAIN", 30)
    shapes = prepare(Order("shapes", images=8, size=24), tmp_path / "shapes")
    assert shapes.data.labels is None and run(shapes).finished
    assert load(shapes.run.path).request().prompts[0].startswith("a ")
    emoji = prepare(Order("emoji:test", images=8, size=8, condition="labels"), tmp_path / "emoji")
    assert len(emoji.data.names) == 7 and run(emoji).finished
    assert load(emoji.run.path).labels == emoji.data.names
