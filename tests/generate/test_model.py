from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nirvana
from nirvana.diffusion.noise import SeededNoise
from nirvana.errors import Refused
from nirvana.generate import SampleRequest
from nirvana.generate.model import Model, load
from tiny_run import make_run, spec


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "pets")


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return nirvana.load(run)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(make_run(tmp_path_factory.mktemp("model") / "plain", spec(names=(), channels=3)))


@pytest.fixture
def calls(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The condition of every network call."""
    seen: list[torch.Tensor] = []
    handle = model.parts.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(args[2]["vector"]))
    yield seen
    handle.remove()


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return int(np.abs(a.astype(int) - b.astype(int)).max()) <= 1


def test_pictures_have_the_shape_and_differ_by_seed_and_label(model: Model) -> None:
    array = model.generate(n=6, seed=3).array
    assert array.shape == (6, 8, 8, 1)
    assert array.dtype == np.uint8
    assert len({picture.tobytes() for picture in array}) == 6
    same_seed = [model.generate(label=name, seed=3).array for name in model.labels]
    assert not np.array_equal(same_seed[0], same_seed[1])


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_picture_i_is_the_same_alone_and_in_any_batch(model: Model, solver: str) -> None:
    together = model.generate(label="dog", n=3, seed=7, solver=solver, steps=2).array
    split = model.generate(label="dog", n=3, seed=7, solver=solver, steps=2, batch=2).array
    assert close(together, split)
    for i in range(3):
        assert close(together[i], model.generate(label="dog", seed=7 + i, solver=solver, steps=2).array[0])


def test_it_starts_from_the_noise_of_its_seed_and_ends_at_the_network_s_answer(model: Model) -> None:
    previews = list(model.stream(model.request(label="cat", n=2, seed=5, steps=3)))
    assert torch.equal(previews[0].before, SeededNoise([5, 6], (1, 8, 8)).initial())
    assert torch.equal(previews[1].before, previews[0].x)
    assert torch.allclose(previews[-1].x, previews[-1].x0, atol=1e-6)
    assert np.array_equal(previews[-1].pictures, model.generate(label="cat", n=2, seed=5, steps=3).array)


def test_labels_take_turns_and_are_the_ones_asked_for(model: Model) -> None:
    assert model.request(n=4).labels == model.labels
    mixed = model.generate(label=["otter", "cat"], n=4, seed=1).array
    alone = [model.generate(label=name, seed=1 + i).array[0] for i, name in enumerate(["otter", "cat"] * 2)]
    assert all(close(a, b) for a, b in zip(mixed, alone, strict=True))


def test_a_prompt_that_is_a_label_is_that_label(model: Model) -> None:
    assert model.request("otter").labels == ("otter",)
    with pytest.raises(Refused, match=r"knows labels, not prompts; 'an oter' is none.*did you mean 'otter'"):
        model.request("an oter")
    with pytest.raises(Refused, match="give one of them"):
        model.request("otter", label="otter")


def test_what_is_not_said_is_what_the_run_recommends(model: Model, plain: Model) -> None:
    request = model.request()
    assert (request.steps, request.solver, request.guidance, request.seed, request.n) == (3, "ddim", 2.0, 0, 1)
    assert plain.request().guidance == 1.0
    assert model.request().batch == 64
    assert model.request(batch=7).batch == 7


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_calls_the_branches_it_needs(model: Model, calls: list[torch.Tensor], guidance: float) -> None:
    table = model.parts.conditioner.embedding.weight  # pyright: ignore[reportAttributeAccessIssue]
    model.generate(label="dog", n=2, guidance=guidance)
    rows = {0.0: [3, 3], 1.0: [1, 1], 2.5: [1, 1, 3, 3]}[guidance]
    assert len(calls) == 3
    assert all(torch.equal(vector, table[rows]) for vector in calls)


def test_stopping_the_iteration_stops_the_network(model: Model, calls: list[torch.Tensor]) -> None:
    stream = model.stream(model.request(n=4, batch=2, steps=3))
    assert calls == []
    for expected in (1, 2, 3, 4):
        preview = next(stream)
        assert len(calls) == expected
    assert (preview.batch, preview.step, preview.done) == (range(2, 4), 1, False)
    del stream
    assert len(calls) == 4


def test_nothing_leaks_between_the_steps(model: Model) -> None:
    for _ in model.stream(model.request(steps=2)):
        assert not torch.is_inference_mode_enabled()


def test_clipping_keeps_every_x0_in_the_range_of_the_data_also_after_guidance(model: Model) -> None:
    free, kept = (
        [float(p.x0.abs().max()) for p in model.stream(model.request(n=3, guidance=9.0, clip=clip))]
        for clip in (None, True)
    )
    assert max(free) > 1.0 and max(kept) == 1.0
    assert not model.request().clip


def test_raw_and_averaged_weights_differ(model: Model) -> None:
    arrays = [model.gather(r, model.stream(r)).array for r in (model.request(weights=w) for w in ("ema", "raw"))]
    assert not np.array_equal(*arrays)


@pytest.mark.parametrize("name", ["cosine", "chain"])
def test_other_schedules_and_grids_sample(tmp_path: Path, name: str) -> None:
    schedule: dict[str, Any] = {"kind": name} | ({"betas": "linear", "T": 20} if name == "chain" else {})
    model = load(make_run(tmp_path / name, spec(schedule=schedule, native="unit", parameterization="v")))
    for grid in ("uniform", "karras", "trailing", "linspace", "quadratic"):
        request = model.request(grid=grid, solver="ddpm")
        assert model.gather(request, model.stream(request)).array.shape == (1, 8, 8, 1)
    if name == "chain":
        with pytest.raises(Refused, match="grid 'trailing' cannot have 21 steps"):
            model.request(grid="trailing", steps=21)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "oter"}, "unknown label 'oter'; did you mean 'otter'"),
        ({"label": ["cat", "dgo"]}, "did you mean 'dog'"),
        ({"label": []}, "empty list of labels"),
        ({"solver": "dim"}, "unknown solver 'dim'; did you mean 'ddim'"),
        ({"grid": "kerras"}, "did you mean 'karras'"),
        ({"solver": "ddpm-learned"}, "has not learned a variance"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"guidance": -1.0}, "guidance"),
        ({"weights": "rae"}, "did you mean 'raw'"),
    ],
)
def test_what_the_model_cannot_do_is_refused(model: Model, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        model.request(**changes)


def test_an_unconditional_model_takes_no_label_prompt_or_guidance(plain: Model) -> None:
    assert plain.generate(n=2).array.shape == (2, 8, 8, 3)
    with pytest.raises(Refused, match="nothing to guide"):
        plain.generate(guidance=2.0)
    with pytest.raises(Refused, match="without labels"):
        plain.generate(label="cat")
    with pytest.raises(Refused, match="without labels or captions"):
        plain.generate("a cat")


def test_a_request_from_elsewhere_is_checked_before_the_first_call(model: Model, calls: list[torch.Tensor]) -> None:
    for request in (SampleRequest(), SampleRequest(labels=("cow",)), SampleRequest(labels=("cat",), solver="x")):
        with pytest.raises(Refused):
            model.stream(request)
    assert calls == []


def test_numbers_that_are_not_finite_are_said(tmp_path: Path) -> None:
    model = load(make_run(tmp_path / "broken"))
    with torch.no_grad():
        next(model.parts.denoiser.net.parameters()).fill_(torch.nan)
    with pytest.raises(Refused, match="not finite"):
        model.generate()


def test_info_is_json_and_knows_the_run(model: Model, run: Path) -> None:
    info = json.loads(json.dumps(model.info(), allow_nan=False))
    assert info["labels"] == ["cat", "dog", "otter"]
    assert (info["path"], info["source"], info["pictures"], info["rejected"]) == (str(run), "pets", 100, 1)
    assert info["parameters"] == sum(p.numel() for p in model.parts.modules().parameters())
    assert info["recommended"] == {"steps": 3, "solver": "ddim", "grid": "uniform", "guidance": 2.0, "clip": False}
    assert (info["trained_images"], info["finished"]) == (100, True)


def test_a_run_is_found_by_its_name(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pets").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    assert load("pets").labels == ("cat", "dog", "otter")
    with pytest.raises(Refused, match="did you mean 'runs/pets'"):
        load("runs/petz")
    with pytest.raises(Refused, match="did you mean 'runs/pets'"):
        load("petz")
    with pytest.raises(Refused, match="no run folder"):
        load(tmp_path)


def test_damaged_runs_are_refused(tmp_path: Path) -> None:
    for name, damage in {
        "truncated": lambda run: _cut(next(run.rglob("ema0.safetensors"))),
        "missing": lambda run: next(run.rglob("ema0.safetensors")).unlink(),
        "edited": lambda run: _edit(run / "run.json"),
    }.items():
        run = make_run(tmp_path / name)
        damage(run)
        with pytest.raises(Refused, match=r"damaged|missing|edited"):
            load(run)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"flow"', '"eps"'))
