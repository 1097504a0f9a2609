"""Bits per dimension as a part of an evaluation, and evaluations of GANs and VAEs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nirvana import load
from nirvana.data import open_data, order
from nirvana.errors import Refused
from nirvana.evaluate.evaluation import Plan, evaluate
from nirvana.evaluate.report import page
from nirvana.generate.likelihood_request import LikelihoodRequest
from tiny_evaluation import digits_run, space
from tiny_families import DIGITS, make_run


def older_run(path: Path, family: str) -> Path:
    return make_run(path, family, DIGITS, {**open_data("digits").manifest.to_json(), "source": "digits"})


def test_it_is_the_likelihood_of_unseen_pictures_of_their_own_classes(tmp_path: Path) -> None:
    model = load(older_run(tmp_path / "vae", "vae"))
    found = evaluate(model, Plan(n=100, bits=True, seed=3), space=space())
    (score,) = (score for score in found.evaluation.scores if score.name == "bits per dimension")
    test = open_data("digits:test")
    chosen = order(3, len(test), range(64)).tolist()
    labels = [test.names[int(test.labels[i])] for i in chosen]  # type: ignore[index]
    request = LikelihoodRequest(method="bound", seed=3)
    parts = list(model.evaluation(request).run(test.images[chosen], labels))
    assert score.value == pytest.approx(float(np.concatenate([part.bits for part in parts]).mean()))
    assert (score.samples, score.warning) == (64, "") and score.interval is not None
    assert score.interval.low < score.value < score.interval.high
    assert "bits per dimension" in page(found) and "one call" in page(found)
    names = {one.name for one in found.evaluation.scores}
    assert {"KID-coarse x 1000", "precision-coarse", "p of no copies"} <= names


def test_a_diffusion_model_is_measured_by_its_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nirvana.evaluate.bits.PICTURES", 4)
    monkeypatch.setitem(__import__("nirvana.generate.likelihood_request", fromlist=["STEPS"]).STEPS, "ode", 2)
    model = load(digits_run(tmp_path / "run"))
    found = evaluate(model, Plan(n=100, steps=1, bits=True), space=space(), measures=())
    assert [score.name for score in found.evaluation.scores] == ["bits per dimension"]
    against = evaluate(model, Plan(n=100, steps=1, bits=True, against="digits:test"), space=space(), measures=())
    assert against.evaluation.scores == found.evaluation.scores  # both take the unseen pictures


def test_what_a_gan_does_not_have_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    model = load(older_run(tmp_path / "gan", "gan"))
    with pytest.raises(Refused, match="gives pictures no probability"):
        evaluate(model, Plan(n=100, bits=True), space=space())
    with pytest.raises(Refused, match="no curves against network calls"):
        evaluate(model, Plan(n=100, curves=True), space=space())
    with pytest.raises(Refused, match="leave 'steps' out"):
        evaluate(model, Plan(n=100, steps=3), space=space())
    assert not (model.run.path / "evaluation" / "samples").exists()
    found = evaluate(model, Plan(n=100), space=space())
    assert any(score.name.startswith("as asked") for score in found.evaluation.scores)
