"""Prompt-following and alignment, on planted good and bad pictures; texts as vectors of words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from nirvana import load
from nirvana.condition import TextConditioner
from nirvana.condition.encoder import JointEncoder
from nirvana.condition.tokens import learn
from nirvana.data import open_data
from nirvana.data.shapes import captions, render, scene
from nirvana.evaluate.evaluation import Outcome, Plan, evaluate
from nirvana.evaluate.prompts import shapes_shown, text_alignment
from nirvana.evaluate.report import page
from nirvana.evaluate.samples import Drawn
from nirvana.evaluate.space import ModuleSpace
from nirvana.evaluate.words import Words
from nirvana.generate.spec import network_spec
from nirvana.nn import UNetConfig
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from tiny_run import save, spec

TRAIN, SIDE, N = 80, 32, 40


def colours() -> ModuleSpace:
    """The colours of 3 x 3 places: enough to tell what a scene is of."""
    from torch import Tensor, nn

    class Places(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 3).flatten(1)

    return ModuleSpace("places", 27, Places(), side=SIDE, prepare=lambda x: x / 255)


def described() -> dict[str, Any]:
    """A tiny model of shapes that takes texts."""
    encoder = JointEncoder(learn(("a red circle", "a red square"), 100), width=8, depth=1, places=6)
    text = TextConditioner(encoder, 8, 0.1, ("a red circle",)).config()
    network = UNetConfig(
        3, 3, width=4, multipliers=(1,), attention=(), blocks=1, stem=8, group_width=4, vector_dim=8, token_dim=8
    )
    return {**spec((), 3, shape=[3, SIDE, SIDE]), "network": network_spec(network), "conditioner": text}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nirvana.data.shapes.source.TRAIN", TRAIN)
        data = open_data("shapes")
        path = tmp_path_factory.mktemp("shapes") / "run"
        description = described()
        made = RunFolder.create(
            path, {"recipe": "tiny"}, TrainPlan(images=100, batch=10), data.manifest.to_json(), description, "train"
        )
        save(made, description, 1)
        yield path


def evaluated(run: Path, monkeypatch: pytest.MonkeyPatch, pictures: np.ndarray, texts: list[str]) -> Outcome:
    """What is found where the model drew `pictures` for `texts`."""
    monkeypatch.setattr(Drawn, "chunks", lambda _: iter([pictures]))
    monkeypatch.setattr("nirvana.evaluate.evaluation.prompts_of", lambda _: tuple(texts))
    measures = (shapes_shown, text_alignment)
    return evaluate(load(run), Plan(n=len(pictures), steps=1), measures=measures, space=colours())


@pytest.fixture
def asked() -> tuple[np.ndarray, list[str]]:
    scenes = [scene(0, i) for i in range(N)]
    return np.stack([render(one, SIDE) for one in scenes]), [captions(one)[i % 4] for i, one in enumerate(scenes)]


def scores(outcome: Outcome) -> dict[str, float]:
    return {score.name: score.value for score in outcome.evaluation.scores}


def test_pictures_of_their_captions_pass_and_pictures_of_others_do_not(
    run: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[np.ndarray, list[str]]
) -> None:
    pictures, texts = asked
    good = evaluated(run, monkeypatch, pictures, texts)
    bad = evaluated(run, monkeypatch, pictures, texts[1:] + texts[:1])
    assert scores(good)["as asked (shapes checker)"] > 0.97 and scores(bad)["as asked (shapes checker)"] < 0.05
    name = "alignment (places, words)"
    assert scores(good)[name] > scores(bad)[name] + 0.1
    (aligned,) = (score for score in good.evaluation.scores if score.name == name)
    assert aligned.interval is not None and aligned.interval.low < aligned.value < aligned.interval.high
    assert aligned.floor is not None and aligned.floor < aligned.value  # these were fitted on
    details: Any = good.evaluation.details
    assert details["alignment"]["with_other_texts"] == pytest.approx(scores(bad)[name], abs=0.1)
    assert {row["attribute"]: row["right"] > 0.97 for row in details["attributes"]} == dict.fromkeys(
        ("count", "shapes", "colours", "sizes", "relations", "place"), True
    )
    assert "attribute by attribute" in page(good)


def test_a_planted_defect_shows_in_its_attribute_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[np.ndarray, list[str]]
) -> None:
    pictures, texts = asked
    swapped = np.ascontiguousarray(pictures[..., ::-1])  # red and blue change places; shapes and sizes stay
    details: Any = evaluated(run, monkeypatch, swapped, texts).evaluation.details
    right = {row["attribute"]: row["right"] for row in details["attributes"]}
    assert right["colours"] < 0.5 < right["shapes"] and right["count"] > 0.8
    noise = np.random.default_rng(0).integers(0, 256, pictures.shape, dtype=np.uint8)
    assert scores(evaluated(run, monkeypatch, noise, texts))["as asked (shapes checker)"] == 0


def test_texts_that_no_scene_has_are_said_and_samples_without_texts_are_left_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[np.ndarray, list[str]]
) -> None:
    pictures, texts = asked
    mixed = evaluated(run, monkeypatch, pictures, [*texts[:30], *["a horse"] * 10])
    assert mixed.evaluation.scores[0].samples == 30
    assert "10 samples were asked for what no scene of shapes is: not checked" in mixed.evaluation.notes
    monkeypatch.setattr(Drawn, "chunks", lambda _: iter([pictures]))
    monkeypatch.setattr("nirvana.evaluate.evaluation.prompts_of", lambda _: ("",))
    plain = evaluate(load(run), Plan(n=N, steps=1), measures=(shapes_shown, text_alignment), space=colours())
    assert not plain.evaluation.scores


def test_too_few_captions_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nirvana.evaluate.prompts.LEAST_PAIRS", 10_000)
    monkeypatch.setattr("nirvana.data.shapes.source.TRAIN", 40)
    data = open_data("shapes")
    description = described()
    manifest = data.manifest.to_json()
    made = RunFolder.create(tmp_path / "r", {}, TrainPlan(images=100, batch=10), manifest, description, "train")
    save(made, description, 1)
    found = evaluated(tmp_path / "r", monkeypatch, data.images[:40], [said[0] for said in data.captions or ()])
    assert any("no alignment: 40 real pictures with captions" in note for note in found.evaluation.notes)


def test_words_are_weighed_as_scikit_learn_does() -> None:
    texts = ["a red cat", "A blue cat!", "a red dog", "one lonely horse", "a red, red fish"]
    words = Words.of(texts)
    assert set(words.places) == {"a", "red", "cat"}
    other = TfidfVectorizer(vocabulary=list(words.places), token_pattern=r"(?u)\w+", binary=True, smooth_idf=False).fit(
        texts
    )
    # scikit-learn adds 1 to every weight, so that words of all texts count
    np.testing.assert_allclose(words.weights, other.idf_ - 1)
    row = words(["red cat"])[0]
    np.testing.assert_allclose(row / row[words.places["red"]], [0, 1, np.log(5 / 2) / np.log(5 / 3)])
    assert not words(["a zebra"])[0][words.places["red"]] and np.linalg.norm(words(["zebra"])) == 0
    with pytest.raises(ValueError, match="share no word"):
        Words.of(["one", "two"])
