"""A packed run makes the same pictures, and says what it lacks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nirvana.cli.main import main
from nirvana.errors import Refused
from nirvana.generate.model import load
from nirvana.train.checkpoint import load_weights
from nirvana.train.pack import half, pack
from nirvana.train.run import RunFolder
from tiny_families import make_run as make_family
from tiny_run import make_run, spec, weights


def test_it_holds_the_averaged_weights_rounded_once(tmp_path: Path) -> None:
    run = RunFolder.open(make_run(tmp_path / "run", seed=3))
    packed = pack(run, tmp_path / "packed")
    for name, tensor in weights(spec(), 3).items():
        found = load_weights(packed)[name]
        assert found.dtype == torch.float32
        assert torch.equal(found, tensor.half().float() if tensor.ndim > 1 else tensor)
    assert packed.model_spec == run.model_spec and packed.data == run.data and packed.finished
    assert run.info["command"] and packed.info["command"] == "", "it names folders of this machine"
    files = sorted(str(file.relative_to(packed.path)) for file in packed.path.rglob("*") if file.is_file())
    assert [file.rsplit("/")[-1] for file in files] == ["state.json", "task.safetensors", "data.json", "run.json"]


def test_it_makes_the_pictures_of_the_run(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    pack(RunFolder.open(path), tmp_path / "packed")
    of_run, of_copy = (load(p).generate(n=3, seed=5).array.astype(int) for p in (path, tmp_path / "packed"))
    assert np.abs(of_run - of_copy).max() <= 2
    with pytest.raises(Refused, match="packed, with its averaged weights alone"):
        load(tmp_path / "packed").sampler("raw")


def test_what_cannot_be_packed_leaves_nothing(tmp_path: Path) -> None:
    run = RunFolder.open(make_run(tmp_path / "run"))
    (tmp_path / "there").mkdir()
    with pytest.raises(Refused, match="is there already"):
        pack(run, tmp_path / "there")
    with pytest.raises(Refused, match=r"'big' .* beyond 16 bits"):
        half(torch.full((2, 2), 1e5), "big", run.path)
    next(run.path.glob("checkpoints/*/ema0.safetensors")).write_bytes(b"damaged")
    with pytest.raises(Refused, match="damaged"):
        pack(run, tmp_path / "packed")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run", "there"]


def test_a_damaged_copy_is_refused(tmp_path: Path) -> None:
    packed = pack(RunFolder.open(make_run(tmp_path / "run")), tmp_path / "packed")
    file = next(packed.path.glob("checkpoints/*/task.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(Refused, match="sha256 does not fit"):
        load(packed.path)


def test_a_copy_may_recommend_to_be_drawn_in_another_way(tmp_path: Path) -> None:
    run, copy = make_run(tmp_path / "run"), tmp_path / "copy"
    chosen = ["--solver", "dpmpp-2m", "--steps", "7", "--grid", "karras", "--guidance", "1.5"]
    assert main(["pack", str(run), "--out", str(copy), *chosen]) == 0
    before, after = load(run), load(copy)
    request = after.request("cat")
    assert (request.solver, request.steps, request.grid, request.guidance) == ("dpmpp-2m", 7, "karras", 1.5)
    assert replace(after.parts.recommended, **asdict(before.parts.recommended)) == before.parts.recommended
    assert before.request("cat").steps != 7, "the run itself stays as it was"
    drawn = before.generate("cat", solver="dpmpp-2m", steps=7, grid="karras", guidance=1.5).array.astype(int)
    assert np.abs(after.generate("cat").array.astype(int) - drawn).max() <= 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--solver", "dpmpp-2n"], "unknown solver 'dpmpp-2n'"),
        (["--steps", "0"], "the recommended steps must be"),
        (["--grid", "straight"], "unknown grid 'straight'"),
        (["--guidance", "nan"], "the recommended guidance must be"),
    ],
)
def test_what_cannot_be_recommended_leaves_nothing(
    asked: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert main(["pack", str(run), "--out", str(tmp_path / "copy"), *asked]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "copy").exists()


def test_a_gan_has_nothing_to_recommend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_family(tmp_path / "run", "gan")
    assert main(["pack", str(run), "--out", str(tmp_path / "copy"), "--steps", "3"]) == 2
    assert "is a GAN, which has no solver" in capsys.readouterr().err
