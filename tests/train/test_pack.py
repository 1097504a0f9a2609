"""A packed run makes the same pictures, and says what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nirvana.errors import Refused
from nirvana.generate.model import load
from nirvana.train.checkpoint import load_weights
from nirvana.train.pack import half, pack
from nirvana.train.run import RunFolder
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
