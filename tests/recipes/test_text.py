"""Training on captions: what a model is told, that a run goes on with the same words, and starting from another run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nirvana.recipes.image as image
from nirvana import load
from nirvana.condition import TextConditioner, has_minilm
from nirvana.data import Wording, open_data
from nirvana.errors import Refused
from nirvana.recipes import planner, recipe, subject
from nirvana.recipes.image import Training, prepare
from nirvana.recipes.order import CONDITIONS, Order
from nirvana.recipes.profile import facts_in
from nirvana.recipes.task import PictureBatches
from nirvana.train.checkpoint import load_weights
from nirvana.train.run import RunFolder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow networks, a small encoder and short sampling: what is tested here does not depend on them."""
    monkeypatch.setattr(planner, "WIDTHS", ((8, 0),))
    monkeypatch.setattr(recipe, "VECTOR", 8)
    monkeypatch.setattr("nirvana.condition.encoder.WIDTH", 8)
    monkeypatch.setattr("nirvana.condition.encoder.DEPTH", 1)

    def quick(name: str) -> Any:
        def made(facts: recipe.Facts) -> recipe.Recipe:
            found = recipe.RECIPES[name](facts)
            best: Any = {**dict(found.model["recommended"]), "steps": 2}  # type: ignore[call-overload]
            return replace(found, model={**found.model, "recommended": best}, batch=8)

        return made

    monkeypatch.setattr(image, "RECIPES", {name: quick(name) for name in ("flow", "dit")})


def joint(source: str, images: int = 8, **more: Any) -> Order:
    """An order with the encoder that learns."""
    return Order(source, images=images, encoder="joint", **more)


def run(training: Training) -> RunFolder:
    for _ in training.events():
        pass
    return training.run


WORDS = {"cat": ("a cat, grey", "one cat, asleep"), "dog": ("a dog, brown",)}


def captioned(folder: Path, captions: dict[str, tuple[str, ...]] | None = None, mode: str = "L") -> str:
    """Three pictures of each class, in a folder of its name, each with its captions beside it."""
    rng = np.random.default_rng(0)
    for name, texts in (WORDS if captions is None else captions).items():
        (folder / name).mkdir(parents=True)
        for number in range(3):
            shape = (8, 8) if mode == "L" else (8, 8, 3)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{number}.png")
            if texts:
                (folder / name / f"{number}.txt").write_text("\n".join(texts))
    return str(folder)


def test_captions_are_learnt_from_the_labels_beside_them_on_request(tmp_path: Path) -> None:
    source = captioned(tmp_path / "pets")
    made = {
        name: prepare(Order(source, images=8, condition=name, encoder=encoder), tmp_path / name)
        for name in CONDITIONS
        for encoder in ["auto" if name in ("labels", "none") else "joint"]
    }
    kinds = {name: training.run.model_spec["conditioner"]["kind"] for name, training in made.items()}  # type: ignore[call-overload, index]
    expected = {"auto": "text", "captions": "text", "labels": "labels", "both": "label+text", "none": "none"}
    assert kinds == expected
    both = load(run(made["both"]).path)
    assert both.labels == ("cat", "dog") and both.request().prompts == ("a cat, grey", "a dog, brown")
    requests = [both.request("a cat"), both.request("a dog"), both.request(label="cat"), both.request(label="dog")]
    vectors = [both.sampler().steering(request).conditioned(range(1))[1]["vector"] for request in requests]
    assert all((a != b).any() for a, b in itertools.combinations(vectors, 2))
    assert load(run(made["captions"]).path).labels == ()


@pytest.mark.parametrize(("name", "images"), [("flow", 600), ("dit", 900)])
def test_a_recipe_learns_what_captions_say(tmp_path: Path, name: str, images: int) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    for number in range(8):
        white = number % 2
        Image.fromarray(np.full((8, 8), 255 * white, np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("all of it is white" if white else "all of it is black")
    training = prepare(joint(str(folder), images, recipe=name, width=16, seed=1), tmp_path / "run")
    model = load(run(training).path)
    white, black = (
        model.generate(f"all of it is {word}", n=4, steps=8, guidance=2.0).array for word in ("white", "black")
    )
    assert white.mean() > 170 and black.mean() < 85


def test_interrupted_and_given_again_it_ends_the_same(tmp_path: Path) -> None:
    source = captioned(tmp_path / "pets")
    order = joint(source, 40, templates=("a photo of {}", "{}"), shuffle_tags=True)
    whole = run(prepare(order, tmp_path / "whole"))
    events = prepare(order, tmp_path / "cut").events()
    for event in events:
        if getattr(event, "images", 0) >= 24:
            break
    events.close()  # type: ignore[attr-defined]
    cut = run(prepare(order, tmp_path / "cut"))
    expected, found = load_weights(whole), load_weights(cut)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(Refused, match="another"):
        prepare(replace(order, shuffle_tags=False), tmp_path / "cut")
    facts = facts_in(cut.model_spec)
    assert image.RECIPES["flow"](facts).model["conditioner"] == cut.model_spec["conditioner"]


def test_batches_have_the_words_of_their_indices(tmp_path: Path) -> None:
    data = open_data(captioned(tmp_path / "pets"))
    wording = Wording(("a photo of {}",))
    batches = PictureBatches(data, 3, flip=False, wording=wording)
    whole = batches.batch(range(10, 40)).texts
    assert whole == batches.batch(range(10, 25)).texts + batches.batch(range(25, 40)).texts
    assert set(whole) == {f"a photo of {text}" for texts in WORDS.values() for text in texts}
    names = [file.split("/")[-2] for file in batches.files(range(10, 40))]
    assert all(name in text for name, text in zip(names, whole, strict=True))
    assert PictureBatches(data, 3, flip=False).batch(range(4)).texts == ()


def test_what_the_data_do_not_have_is_refused(tmp_path: Path) -> None:
    bare = captioned(tmp_path / "bare", {"cat": (), "dog": ()})
    with pytest.raises(Refused, match="no captions for its 6 pictures"):
        prepare(Order(bare, images=8, condition="captions"), tmp_path / "run")
    for number in range(4):
        (tmp_path / "bare" / "cat" / f"IMG_{number}.txt").write_text("a cat")
    with pytest.raises(
        Refused, match=r"first: cat/0.png\); 4 caption files belong to no picture \(first: cat/IMG_0.txt,"
    ):
        prepare(Order(bare, images=8, condition="captions"), tmp_path / "run")
    with pytest.raises(Refused, match="no labels to train on"):
        prepare(Order(captioned(tmp_path / "one", {"cat": ("a cat",)}), images=8, condition="both"), tmp_path / "run")
    order = Order(captioned(tmp_path / "pets"), images=8, encoder=str(tmp_path / "nothing"))
    with pytest.raises(Refused, match="nothing is not there; name a folder"):
        prepare(order, tmp_path / "run")
    with pytest.raises(Refused, match="layer of a text encoder"):
        prepare(replace(order, encoder="minilm#last"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for wrong in ({"condition": "words"}, {"freeze": ("all",)}, {"freeze": ("encoder",)}):
        with pytest.raises(Refused, match=r"condition|freeze"):
            Order("pets", **wrong)  # type: ignore[arg-type]


def test_a_picture_without_a_caption_is_shown_without_one(tmp_path: Path) -> None:
    source = captioned(tmp_path / "pets", {"cat": ("a cat",), "dog": ()})
    training = prepare(joint(source, 8, condition="captions"), tmp_path / "run")
    assert set(training.batches.batch(range(60)).texts) == {"a cat", ""}
    assert run(training).finished


def test_from_a_run_the_encoder_and_the_words_go_on(tmp_path: Path) -> None:
    parent = run(prepare(joint(captioned(tmp_path / "pets"), 24), tmp_path / "parent"))
    mine = captioned(tmp_path / "mine", {"cat": ("one cat, grey",), "dog": ("a dog, asleep",)})
    child = prepare(Order(mine, images=8, start=str(parent.path)), tmp_path / "child")
    before, now = load_weights(parent), child.task.state_dict()
    assert before.keys() == now.keys() and all(torch.equal(before[name], now[name]) for name in before)
    assert child.task.parts.conditioner.examples == ("one cat, grey", "a dog, asleep")
    assert run(child).finished
    labels = prepare(Order(mine, images=8, start=str(parent.path), condition="labels"), tmp_path / "labels")
    both = prepare(Order(mine, images=8, start=str(parent.path), condition="both"), tmp_path / "both")
    shared = "denoiser.net.stem.weight"
    assert torch.equal(labels.task.state_dict()[shared], before[shared])
    assert torch.equal(both.task.state_dict()["conditioner.text.nothing"], before["conditioner.nothing"])
    word = "encoder.network.tokens.weight"
    assert torch.equal(both.task.state_dict()[f"conditioner.text.{word}"], before[f"conditioner.{word}"])


@pytest.mark.parametrize("encoder", ["auto", "joint"])
def test_words_of_other_letters_get_tokens_beside_those_of_the_parent(tmp_path: Path, encoder: str) -> None:
    """Not one token for all that is unknown, by which two captions would read the same."""
    parent = run(prepare(joint(captioned(tmp_path / "pets"), 24), tmp_path / "parent"))
    mine = captioned(tmp_path / "mine", {"ж": ("zzq яблоко, a cat",), "ф": ("zzq " + "фрукт " * 9,)})
    order = Order(mine, images=16, start=str(parent.path), encoder=encoder)
    child = prepare(order, tmp_path / "child")
    before, now = load_weights(parent), child.task.state_dict()
    old, new = load(parent.path).parts.conditioner.encoder.tokens, child.task.parts.conditioner.encoder.tokens
    table = "conditioner.encoder.network.tokens.weight"
    assert torch.equal(now[table][: old.unknown], before[table][: old.unknown])
    assert torch.equal(now[table][new.unknown :], before[table][old.unknown :])
    left, right = new.merges[len(old.merges)]
    assert torch.equal(now[table][old.unknown], (now[table][left] + now[table][right]) / 2)
    places = "conditioner.encoder.network.places.weight"
    assert len(now[places]) > len(before[places]) and torch.equal(now[places][: len(before[places])], before[places])
    texts = ("zzq яблоко, a cat", "zzq " + "фрукт " * 9)
    assert all(new.unknown not in new.ids(text) for text in texts) and new.ids("a cat, grey") == old.ids("a cat, grey")
    assert all(child.task.parts.conditioner.read(text).whole for text in texts)
    model = load(run(child).path)
    apple, fruit = (model.sampler().steering(model.request(t)).conditioned(range(1))[1] for t in texts)
    assert (apple["vector"] != fruit["vector"]).any()
    kept = prepare(replace(order, freeze=("encoder",)), tmp_path / "kept")
    assert kept.task.parts.conditioner.encoder.tokens.merges == old.merges
    said = subject.hard_to_read(kept.task.parts.conditioner, texts)
    assert [line.partition(" (first")[0] for line in said] == [
        "2 of 2 captions are longer than what is read at once, and read in pieces that do not know of each other",
        "1 of 2 captions lose what is behind their last piece",
        "2 of 2 captions have tokens that the text encoder does not know",
    ]
    assert subject.hard_to_read(child.task.parts.conditioner, texts) == ()


def test_what_is_said_of_captions_that_nothing_is_learnt_from_is_refused(tmp_path: Path) -> None:
    source, bare = captioned(tmp_path / "pets"), captioned(tmp_path / "bare", {"cat": (), "dog": ()})
    for options, message in (
        ({"encoder": "joint"}, "--encoder is for captions, and the model is told labels"),
        ({"templates": ("a {}",)}, "--template is for captions"),
        ({"shuffle_tags": True}, "--shuffle-tags is for captions"),
    ):
        with pytest.raises(Refused, match=message + r".*\(.*bare has none\)|" + message):
            prepare(Order(bare, images=8, **options), tmp_path / "run")
        with pytest.raises(Refused, match=r"6 of 6 pictures have one\); choose --condition captions"):
            prepare(Order(source, images=8, condition="labels", **options), tmp_path / "run")
    parent = run(prepare(Order(source, images=8, condition="labels"), tmp_path / "parent"))
    with pytest.raises(Refused, match="--freeze encoder is for captions"):
        prepare(Order(bare, images=8, start=str(parent.path), freeze=("encoder",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_of_labels_can_learn_texts_and_begins_as_it_was(tmp_path: Path) -> None:
    source = captioned(tmp_path / "pets")
    parent = run(prepare(Order(source, images=24, condition="labels"), tmp_path / "parent"))
    child = prepare(joint(source, 8, start=str(parent.path), condition="captions"), tmp_path / "child")
    before, parts = load_weights(parent), child.task.parts
    assert isinstance(parts.conditioner, TextConditioner)
    same = [name for name in before if name.startswith("denoiser.")]
    assert all(torch.equal(child.task.state_dict()[name], before[name]) for name in same)


@pytest.mark.parametrize("frozen", ["encoder", "network"])
def test_what_is_frozen_keeps_its_weights(tmp_path: Path, frozen: str) -> None:
    source = captioned(tmp_path / "pets")
    parent = run(prepare(joint(source, 24), tmp_path / "parent"))
    order = joint(source, 48, start=str(parent.path), freeze=(frozen,), seed=2)
    before, after = load_weights(parent), load_weights(run(prepare(order, tmp_path / "child")))
    moved = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-6)}
    if frozen == "encoder":
        assert moved and not any(name.startswith("conditioner.encoder.") for name in moved)
        assert any(name.startswith("denoiser.net.stem") for name in moved)
    else:
        entries = (".tokens.", ".embedding.vector.", "conditioner.")
        assert moved and all(any(entry in name for entry in entries) for name in moved)


def test_from_a_run_of_other_channels_or_codec_is_refused(tmp_path: Path) -> None:
    parent = run(prepare(Order(captioned(tmp_path / "grey"), images=8), tmp_path / "parent"))
    colour = captioned(tmp_path / "colour", mode="RGB")
    with pytest.raises(Refused, match="makes pictures of 1 channels, and these have 3"):
        prepare(Order(colour, images=8, start=str(parent.path)), tmp_path / "child")
    facts = recipe.Facts(8, 1)
    other = replace(image.RECIPES["flow"](facts), model={**parent.model_spec, "codec": {"kind": "vae"}})
    with pytest.raises(Refused, match="trained with the codec"):
        image.descended(other, parent, facts)


@pytest.mark.skipif(not has_minilm(), reason="the packaged encoder is not installed")
def test_the_packaged_encoder_reads_captions_of_many_words_and_is_in_no_checkpoint(tmp_path: Path) -> None:
    source = captioned(tmp_path / "pets", {"cat": ("a tabby", "a tomcat"), "dog": ("a hound",)})
    said: list[tuple[int, int]] = []
    training = prepare(Order(source, images=8), tmp_path / "run", encoding=lambda *counts: said.append(counts))
    assert said == [(3, 3)]
    config: Any = training.run.model_spec["conditioner"]
    assert config["encoder"]["source"] == "minilm" and config["encoder"]["places"] == 5
    assert not any("conditioner.encoder" in name for name in training.task.state_dict())
    model = load(run(training).path)
    assert model.generate("a tabby kitten", n=1).array.shape == (1, 8, 8, 1)
    with pytest.raises(Refused, match="the text encoder minilm is never trained; leave --freeze encoder out"):
        prepare(Order(source, images=8, start=str(training.run.path), freeze=("encoder",)), tmp_path / "child")


def test_often_used_words_are_learnt_and_without_the_package_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "has_minilm", lambda: True)
    often = [f"a {colour} {shape} {n}" for n in range(9) for colour in ("red", "blue") for shape in ("cat", "dog")]
    assert subject.encoder_of("auto", often * 30)["kind"] == "joint"
    monkeypatch.setattr(subject, "has_minilm", lambda: False)
    assert subject.encoder_of("auto", [f"word{n} other{n}" for n in range(50)])["kind"] == "joint"


def test_examples_are_of_all_kinds_that_take_turns() -> None:
    styles = ("flat", "noto", "3d", "line")
    for period in (2, 3, 4):
        captions = tuple((f"thing {n}, {styles[n % period]}",) for n in range(3720))
        examples = subject.examples_of(Wording(), captions)
        assert len(set(examples)) == subject.EXAMPLES
        assert {text.split(", ")[1] for text in examples} == set(styles[:period])
        numbers = [int(text.split()[1].strip(",")) for text in examples]
        assert numbers == sorted(numbers) and max(np.diff([0, *numbers, 3720])) < 3720 / 4
