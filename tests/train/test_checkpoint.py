"""Tensors to the disk and back, bit for bit, and every kind of damage named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nirvana.errors import Refused
from nirvana.files import sealed, write_chunks
from nirvana.train.checkpoint import load_weights, prune
from nirvana.train.loop import Hooks
from nirvana.train.run import RunFolder
from nirvana.train.tensors import read_tensors, tensor_chunks
from train.tiny import PLAN, Linear, go, open_run, outcome

TENSORS = {
    "a.weight": torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).transpose(0, 2),
    "channels last": torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "half": torch.tensor([1.5, float("nan"), float("-inf")], dtype=torch.float16),
    "brain": torch.tensor([[1.5], [-2.0]], dtype=torch.bfloat16),
    "double": torch.tensor(1e-300, dtype=torch.float64),
    "count": torch.tensor([2**62], dtype=torch.int64),
    "bytes": torch.arange(7, dtype=torch.uint8),
    "mask": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 5),
}


@pytest.mark.parametrize("read", [load_file, lambda path: read_tensors(path, "")])
def test_tensors_round_trip(read: Callable[[Path], dict[str, torch.Tensor]], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    written = write_chunks(path, tensor_chunks(TENSORS))
    assert written.size == path.stat().st_size
    found = read(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_what_safetensors_cannot_hold() -> None:
    with pytest.raises(ValueError, match=r"'z' is torch\.complex64"):
        list(tensor_chunks({"z": torch.zeros(1, dtype=torch.complex64)}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    list(go(path))
    return path


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run stopped at 40 of 60 images, with checkpoints at 16, 32 and 40."""
    path = tmp_path / "run"
    events = go(path)
    for event in events:
        if getattr(event, "step", 0) == 5:
            break
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    return path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def newer(path: Path) -> None:
    state = json.loads(path.read_text())
    del state["digest"]
    path.write_text(json.dumps(sealed({**state, "format_version": 2})))


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"images": 40', '"images": 41'))


FILES = ("task.safetensors", "optimizer.safetensors", "ema0.safetensors", "ema1.safetensors")
DAMAGES = [(name, damage) for name in (*FILES, "state.json") for damage in (truncate, flip, Path.unlink)]


@pytest.mark.parametrize(("name", "damage"), [*DAMAGES, ("state.json", newer), ("state.json", edit)])
def test_damage_is_named_and_nothing_deleted(name: str, damage: Callable[[Path], None], stopped: Path) -> None:
    path = stopped / "checkpoints" / "000000040" / name
    damage(path)
    before = sorted((stopped / "checkpoints").rglob("*"))
    way_out = "update nirvana" if damage is newer else f"delete the folder {path.parent}"
    with pytest.raises(Refused, match=name) as refusal:
        list(go(stopped))
    assert str(path) in str(refusal.value) and way_out in str(refusal.value) and "\n" not in str(refusal.value)
    assert sorted((stopped / "checkpoints").rglob("*")) == before
    if name in ("task.safetensors", "ema0.safetensors", "state.json"):
        with pytest.raises(Refused, match=name):
            load_weights(RunFolder.open(stopped))


def test_the_way_out_works(stopped: Path, finished: Path) -> None:
    shutil.rmtree(stopped / "checkpoints" / "000000040")
    list(go(stopped))
    assert outcome(stopped) == outcome(finished)


def test_keeps_what_may_be_needed(stopped: Path) -> None:
    run = RunFolder.open(stopped)
    assert [(c.images, c.scheduled) for c in run.checkpoints()] == [(40, False), (32, True), (16, True)]
    prune(run)
    assert [c.images for c in run.checkpoints()] == [40, 32, 16]
    list(go(stopped))
    assert [c.images for c in run.checkpoints()] == [60, 48]


def test_load_weights(finished: Path) -> None:
    run = RunFolder.open(finished)
    newest = finished / "checkpoints" / "000000060"
    raw, ema0, ema1 = (load_file(newest / f"{name}.safetensors") for name in ("task", "ema0", "ema1"))
    for found, wanted in (
        (load_weights(run, "raw"), raw),
        (load_weights(run), ema0),
        (load_weights(run, sigma_rel=0.05), ema1),
    ):
        assert all(torch.equal(found[name], wanted[name]) for name in ("w", "b"))
    assert not torch.equal(ema0["w"], raw["w"])


def test_load_weights_of_another_length(finished: Path, tmp_path: Path) -> None:
    list(go(tmp_path / "direct", plan=dataclasses.replace(PLAN, ema=(0.075,))))
    direct = load_weights(RunFolder.open(tmp_path / "direct"))["w"]
    run = RunFolder.open(finished)
    error = (load_weights(run, sigma_rel=0.075)["w"] - direct).norm()
    assert error < 0.2 * min((load_weights(run, sigma_rel=width)["w"] - direct).norm() for width in (0.05, 0.1))
    with pytest.raises(Refused, match=r"0\.4"):
        load_weights(run, sigma_rel=0.4)


def test_weights_that_are_not_averaged_are_the_trained_ones(tmp_path: Path) -> None:
    class Half(Linear):
        def ema_parameters(self) -> dict[str, torch.Tensor]:
            return {"w": self.w.detach()}

    list(go(tmp_path / "run", Half(), hooks=Hooks()))
    run = RunFolder.open(tmp_path / "run")
    assert torch.equal(load_weights(run)["b"], load_weights(run, "raw")["b"])
    assert not torch.equal(load_weights(run)["w"], load_weights(run, "raw")["w"])


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no checkpoint yet"):
        load_weights(open_run(tmp_path / "run"))
