"""A run measured: the loop itself steps, the folder is only read, and what is gone is named."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import nirvana.recipes.profile as profile
import nirvana.train.device as devices
from nirvana.data import open_data
from nirvana.errors import Refused
from nirvana.generate.model import load
from nirvana.recipes.image import make_task
from nirvana.recipes.profile import RunProfile, profile_run
from nirvana.recipes.recipe import RECIPES, Facts
from nirvana.recipes.task import DiffusionTask, PictureBatches, Pictures
from nirvana.train.loop import train
from nirvana.train.operations import ATTENTION, CONVOLUTION, DATA, EMA, OPTIMISER
from nirvana.train.plan import TrainPlan
from nirvana.train.profile import WARM_UP, Memory, Row, StepProfile
from nirvana.train.run import RunFolder
from nirvana.train.task import Position
from tiny_run import make_run

SLOW, QUICK = 3e9, 7e9
"""Ceilings, which are not measured here."""
STEP = StepProfile(2.0, (1.0, 3.0), 3, (Row(CONVOLUTION, 2.0, 1, 10**9, 5),), Memory(9, 8), torch.float32)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step runs once and has the same profile."""

    def measure(step: Callable[[], object], *_: object, **__: object) -> StepProfile:
        step()
        return STEP

    monkeypatch.setattr(profile, "measure", measure)
    monkeypatch.setattr(profile, "convolution_ceiling", lambda *_: SLOW)


def begun(out: Path, source: str = "digits") -> tuple[RunFolder, DiffusionTask, PictureBatches]:
    """A run of the flow recipe with a narrow network, its task and its data; nothing is trained yet."""
    data = open_data(source)
    made = RECIPES["flow"](Facts(8, 1, data.names))
    network: Any = made.model["network"]
    spec = {**made.model, "network": {**network, "width": 16, "multipliers": [1, 1], "blocks": 1}}
    plan = TrainPlan(images=8, batch=8)
    run = RunFolder.create(out, {"recipe": "flow", "source": source}, plan, data.manifest.to_json(), spec, "")
    task = make_task(made, spec, plan, torch.device("cpu"))
    return run, task, PictureBatches(data, plan.seed, flip=made.flip)


def trained(out: Path, source: str = "digits") -> Path:
    run, task, batches = begun(out, source)
    for _ in train(task, batches, run.plan, run):
        pass
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("digits") / "run")


@dataclass
class Outcome:
    """A measured run, what the loop asked of its data, what was said, and what was changed or left behind."""

    found: RunProfile
    asked: list[range]
    said: list[str]
    changed: bool
    left: list[Path]


@pytest.fixture(scope="module")
def outcome(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    asked: list[range] = []
    said: list[str] = []
    take, ceilings = PictureBatches.batch, iter((SLOW, QUICK))
    temporary = tmp_path_factory.mktemp("temporary")

    def watched(self: PictureBatches, indices: range) -> Pictures:
        asked.append(indices)
        return take(self, indices)

    # A training under way holds the lock.
    with pytest.MonkeyPatch.context() as monkeypatch, RunFolder.open(digits).lock():
        monkeypatch.setattr(PictureBatches, "batch", watched)
        monkeypatch.setattr(profile, "convolution_ceiling", lambda *_: next(ceilings))
        monkeypatch.setattr(devices, "bfloat16_pays", lambda _: False)  # both halves in float32, on every processor
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        before = contents(digits)
        found = profile_run(str(digits), batch=4, device="cpu", budget=0.0, say=said.append)
        return Outcome(found, asked, said, contents(digits) != before, list(temporary.iterdir()))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and its bytes, and every folder with its time."""
    paths = (folder, *folder.rglob("*"))
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in paths}


def test_both_halves_add_up_and_the_run_is_only_read(outcome: Outcome, digits: Path) -> None:
    assert not outcome.changed and outcome.left == []
    found = outcome.found
    assert found.missing == {} and (found.path, found.shape, found.device) == (digits, (1, 8, 8), "cpu")
    assert found.training is not None and found.sampling is not None
    for half in (found.training, found.sampling):
        step = half.step
        assert half.batch == 4
        assert sum(row.seconds for row in step.rows) == pytest.approx(step.seconds, rel=1e-9)
        assert all(step.row(kind).seconds > 0 and step.row(kind).flops > 0 for kind in (CONVOLUTION, ATTENTION))
        assert half.ceiling == QUICK  # whatever slowed the other measurement was no limit of the machine
        assert half.of_ceiling() == pytest.approx(step.total.flops / step.seconds / QUICK)
    step = found.training.step
    assert all(step.row(kind).seconds > 0 for kind in (DATA, OPTIMISER, EMA)) and 0 < step.waiting < 1
    assert found.sampling.step.row(OPTIMISER).calls == found.sampling.step.row(DATA).seconds == 0
    best = load(digits, device="cpu").request()
    assert (found.sampling.steps, found.sampling.how) == (best.steps, f"{best.solver}, guidance {best.guidance:g}")
    assert any("sampling" in line for line in outcome.said) and any("training" in line for line in outcome.said)


def test_flops_are_those_of_torchs_counter(outcome: Outcome, digits: Path, tmp_path: Path) -> None:
    found = outcome.found
    assert found.training is not None and found.sampling is not None
    _, task, batches = begun(tmp_path / "run")
    phase, indices = task.phases[0], range(4)
    with FlopCounterMode(display=False) as counter:
        loss = task.loss(phase, batches.batch(indices), Position(0, indices, 0))
        torch.autograd.backward(loss.total, inputs=list(phase.parameters.values()))
    assert found.training.step.total.flops == counter.get_total_flops() > 0
    model = load(digits, device="cpu")
    with FlopCounterMode(display=False) as counter:
        model.generate(n=4, batch=4, steps=2)
    # All steps of a request cost the same, with both branches of guidance.
    assert 2 * found.sampling.step.total.flops == counter.get_total_flops() > 0


def test_sizes_are_those_of_the_tensors(outcome: Outcome, digits: Path) -> None:
    found = outcome.found
    assert found.training is not None and found.training.sizes is not None
    sizes, tensors = found.training.sizes, len(dict(load(digits).parts.modules().named_parameters()))
    assert sizes.weights == sizes.gradients == 4 * found.parameters
    assert sizes.optimiser == 2 * sizes.weights + 4 * tensors  # two moments, and the number of steps
    assert sizes.averages == 2 * sizes.weights


def test_the_loop_itself_steps_over_the_data(outcome: Outcome) -> None:
    assert outcome.found.training is not None
    # Every step, the counted and the profiled one included, takes the batch after the one before.
    assert outcome.asked == [range(4 * i, 4 * i + 4) for i in range(len(outcome.asked))]
    assert len(outcome.asked) >= WARM_UP + outcome.found.training.step.timed + 2


@pytest.mark.usefixtures("unmeasured")
def test_without_a_number_the_batches_are_those_of_the_plan_and_of_sampling(digits: Path) -> None:
    found = profile_run(str(digits), device="cpu")
    assert found.training is not None and found.sampling is not None
    assert (found.training.batch, found.sampling.batch) == (RunFolder.open(digits).plan.batch, profile.PICTURES)
    assert found.training.pictures_per_second == found.training.batch / 2
    assert found.sampling.pictures_per_second == profile.PICTURES / 2 / found.sampling.steps


@pytest.mark.usefixtures("unmeasured")
def test_without_its_data_a_run_is_still_sampled(tmp_path: Path) -> None:
    rng, source = np.random.default_rng(0), tmp_path / "pets"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        for number in range(2):
            picture = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(picture).save(source / name / f"{number}.png")
    run = str(trained(tmp_path / "run", str(source)))
    assert profile_run(run, batch=1).missing == {}
    source.rename(tmp_path / "moved")
    found = profile_run(run, batch=1)
    assert found.training is None and found.sampling is not None
    assert str(source) in found.missing["training"] and "\n" not in found.missing["training"]
    (tmp_path / "moved").rename(source)
    (source / "dog").rename(source / "emu")
    assert "changed" in profile_run(run, batch=1).missing["training"]


@pytest.mark.usefixtures("unmeasured")
def test_before_the_first_checkpoint_a_run_is_only_trained(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")[0].path
    found = profile_run(str(run), batch=2)
    assert found.sampling is None and found.training is not None
    assert "no checkpoint yet" in found.missing["sampling"]


@pytest.mark.usefixtures("unmeasured")
def test_what_cannot_be_measured_is_refused(tmp_path: Path, digits: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, batch, reason in (
        (tmp_path / "folder", 1, "no run folder"),
        (tmp_path / "nowhere", 1, "not there"),
        (digits, 0, "at least 1"),
    ):
        with pytest.raises(Refused, match=reason):
            profile_run(str(name), batch=batch)
    run = make_run(tmp_path / "tiny")
    assert "does not say what it was trained on" in profile_run(str(run), batch=1).missing["training"]
    next(run.rglob("ema0.safetensors")).unlink()
    with pytest.raises(Refused, match=r"does not say what.*; and .*ema0\.safetensors is missing"):
        profile_run(str(run), batch=1)
