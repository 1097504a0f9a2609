"""Evaluating a model of pairs: what each sample is drawn from, and how far it is from its partner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.condition import Concat
from nirvana.data import open_pairs
from nirvana.errors import Refused
from nirvana.evaluate.data import data_of
from nirvana.evaluate.evaluation import Plan, evaluate
from nirvana.evaluate.pairs import MOST_ASKED, Asked, partner_distance
from nirvana.evaluate.scores import Findings
from nirvana.evaluate.subject import Subject
from nirvana.generate.model import Model, load
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from tiny_evaluation import digits_run, space
from tiny_run import NAMES, save, spec

N = 40
"""Pairs of a source."""


def pairs(folder: Path, seed: int) -> tuple[str, str]:
    """Coloured inputs, and their grey as partners, with labels."""
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    np.save(folder / f"in{seed}.npy", shown)
    np.savez(folder / f"out{seed}.npz", images=shown[..., 0], labels=np.array([NAMES[i % 3] for i in range(N)]))
    return str(folder / f"in{seed}.npy"), str(folder / f"out{seed}.npz")


def made(folder: Path, names: tuple[str, ...] = ()) -> Model:
    source, target = pairs(folder, 0)
    description, data = spec(names, concat=Concat("paired", 3)), open_pairs(source, target)
    config: Any = {"recipe": "tiny", "source": source, "target": target}
    run = RunFolder.create(
        folder / "run", config, TrainPlan(images=100, batch=10), data.manifest.to_json(), description, ""
    )
    save(run, description, 1)
    return load(folder / "run", device="cpu")


def test_each_sample_is_drawn_from_an_input_and_held_against_its_partner(tmp_path: Path) -> None:
    model = made(tmp_path)
    source, target = pairs(tmp_path, 1)
    caught: list[Subject] = []

    def watching(subject: Subject) -> Findings:
        caught.append(subject)
        return partner_distance(subject)

    plan = Plan(target, n=50, steps=1, inputs=source)
    outcome = evaluate(model, plan, measures=(watching,), space=space())
    (subject,) = caught
    unseen = open_pairs(source, target)
    assert unseen.inputs is not None and subject.partners is not None
    assert subject.partners.tolist() == [i % N for i in range(50)]
    inputs = torch.from_numpy(np.array(unseen.inputs.images)).permute(0, 3, 1, 2)
    sampler, request = model.diffusion("ema", "pairs"), model.request(n=50, steps=1)
    drawn = np.concatenate([sampler.finished(p) for p in sampler.translated(request, inputs) if p.done])
    assert np.abs(subject.pictures.astype(int) - drawn).max() <= 1
    own, other = outcome.evaluation.scores
    by_hand = np.sqrt(np.square(drawn / 255.0 - unseen.images[np.arange(50) % N] / 255.0).mean((1, 2, 3))).mean()
    assert own.value == pytest.approx(by_hand, abs=2e-3) and own.samples == 50 and own.references == N
    assert own.interval is not None and own.interval.low < own.value < own.interval.high
    perfect = replace(subject, pictures=subject.real.images[subject.partners])
    zero, apart = partner_distance(perfect).scores
    assert zero.value == 0 and apart.value > 0.2 and other.name == apart.name
    assert outcome.evaluation.about["inputs"] == source
    assert list(outcome.pictures) == ["Samples", "Inputs, samples and partners"]


def test_other_inputs_are_other_samples_on_the_disk(tmp_path: Path) -> None:
    model = made(tmp_path)
    for plan in (Plan(n=20, steps=1), Plan(pairs(tmp_path, 1)[1], n=20, steps=1, inputs=pairs(tmp_path, 1)[0])):
        evaluate(model, plan, measures=(partner_distance,), space=space())
    assert len(list((tmp_path / "run" / "evaluation" / "samples").iterdir())) == 2


def test_an_input_comes_with_its_own_label(tmp_path: Path) -> None:
    model = made(tmp_path, NAMES)
    data = data_of(model, None).real
    asked = Asked.of(model.request(), data)
    assert data.labels is not None
    assert asked.request.labels == tuple(NAMES[i % 3] for i in range(N)) and len(asked.inputs) == N <= MOST_ASKED


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = made(tmp_path)
    source, target = pairs(tmp_path, 1)
    for plan in (Plan(target, n=20), Plan(inputs=source, n=20)):
        with pytest.raises(Refused, match="name both: --against"):
            evaluate(model, plan, space=space())
    with pytest.raises(Refused, match=r"pictures of 1 channels, and .* makes pictures of those with 3"):
        evaluate(model, Plan(target, n=20, inputs=target), space=space())
    with pytest.raises(Refused, match="--bits of a model of pairs"):
        evaluate(model, Plan(n=20, bits=True), space=space())
    with pytest.raises(Refused, match="--inputs are for a model of pairs"):
        evaluate(load(digits_run(tmp_path / "digits")), Plan(n=20, inputs=source), space=space())
