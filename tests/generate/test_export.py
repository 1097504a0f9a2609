"""An exported engine is compared before it is kept, replaced in one step, and refused when it is out of date."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.engine import ENGINES
from nirvana.errors import Refused
from nirvana.files import sealed, write_json
from nirvana.generate import export as module
from nirvana.generate import request
from nirvana.generate.export import Exported, export_run, load_engine
from nirvana.generate.model import load
from nirvana.generate.parity import Deviation, fresh_calls
from nirvana.generate.sampler import Sampler
from nirvana.generate.spec import network_spec
from nirvana.nn import UNetConfig
from nirvana.train.run import RunFolder
from planted_engine import Change, Kept
from tiny_run import make_run, save, spec

TINY = UNetConfig(1, 1, width=4, multipliers=(1,), blocks=1, attention=(), group_width=4, vector_dim=8)
DESCRIPTION = {**spec(), "network": network_spec(TINY), "recommended": {"steps": 2, "guidance": 2.0}}
EDM = {
    "native": "ratio",
    "c_in": "edm",
    "c_noise": "edm",
    "parameterization": "edm",
    "recommended": {"steps": 1, "grid": "karras"},
}


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Kept:
    kept = Kept()
    monkeypatch.setattr(module, "ENGINES", {"kept": kept})
    return kept


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.open(make_run(tmp_path / "pets", DESCRIPTION))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sha256(run: RunFolder) -> str:
    return str(load(run.path).info()["weights_sha256"])


def largest(run: RunFolder) -> float:
    """The largest magnitude that the network of `run` gives on the inputs of the report."""
    return max(float(output.abs().max()) for output in fresh_calls(load(run.path).parts).float64)


def test_the_same_network_deviates_by_nothing_and_draws_the_same_pictures(run: RunFolder, engine: Kept) -> None:
    made = export_run(run, "kept")
    assert made.network["float32"] == Deviation(0.0, 0.0)
    assert made.network["float64"] == made.network["torch"]
    assert 0 < made.network["torch"].relative < 1e-5
    assert (made.pictures.largest, made.pictures.largest_byte, made.pictures.mean) == (0.0, 0, 0.0)
    net = load_engine(run, "kept", sha256(run))
    model = load(run.path)
    driven = Sampler(replace(model.parts, denoiser=model.parts.denoiser.around(net)), torch.device("cpu"), "here")
    wanted = model.request(n=3, seed=4)
    assert np.array_equal(driven.pictures(wanted), model.sampler().pictures(wanted))


def test_requests_know_the_engines_that_there_are() -> None:
    assert ("torch", *ENGINES) == request.ENGINES


def test_the_averaged_weights_are_the_ones_written(run: RunFolder, engine: Kept) -> None:
    export_run(run, "kept")
    x, noise, cond = fresh_calls(load(run.path).parts).inputs[1]
    output = load_engine(run, "kept", sha256(run))(x, noise, cond)
    model = load(run.path)
    assert torch.equal(output, model.sampler("ema").parts.denoiser.net(x, noise, cond))
    assert not torch.allclose(output, model.sampler("raw").parts.denoiser.net(x, noise, cond), atol=0.1)


def test_a_planted_deviation_is_reported_exactly(run: RunFolder, engine: Kept) -> None:
    planted = 2.0**-12
    engine.change = lambda output: (output.double() + planted).float()
    made = export_run(run, "kept")
    for reference in ("float32", "float64"):
        assert made.network[reference].absolute == pytest.approx(planted, rel=0.02)
        assert made.network[reference].relative == pytest.approx(planted / largest(run), rel=0.02)
    # Rectified flow from pure noise to data: a constant offset of u adds up to itself, less what the network corrects.
    assert planted / 4 < made.pictures.mean <= made.pictures.largest < 4 * planted
    written = json.loads((run.path / "engines" / "kept" / "engine.json").read_text())
    assert written["parity"] == made.to_json()["parity"]
    assert written["weights_sha256"] == made.weights_sha256 == sha256(run)


def test_bytes_of_the_pictures_are_compared(run: RunFolder, engine: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.BOUNDS, torch.float32, 1.0)
    engine.change = lambda output: output + 4 / 255
    made = export_run(run, "kept")
    assert made.pictures.largest_byte in (2, 3)
    assert 0 < made.pictures.mean_byte <= 3


def relative(change: float) -> Change:
    return lambda output: output + change


@pytest.mark.parametrize(
    ("precision", "share", "kept"),
    [("float32", 0.9e-3, True), ("float32", 1.1e-3, False), ("bfloat16", 0.09, True), ("bfloat16", 0.11, False)],
)
def test_more_deviation_than_the_bound_is_not_kept(
    run: RunFolder, engine: Kept, monkeypatch: pytest.MonkeyPatch, precision: str, share: float, kept: bool
) -> None:
    monkeypatch.setattr(module, "pick_precision", lambda name, device: getattr(torch, name))
    engine.change = relative(share * largest(run))
    if kept:
        made = export_run(run, "kept", precision)
        assert made.precision == precision
        assert made.network["float64"].relative == pytest.approx(share, rel=0.01)
    else:
        with pytest.raises(
            Refused, match=rf"deviates from PyTorch in float32 by {share:.2g}.*allowed in {precision}; nothing"
        ):
            export_run(run, "kept", precision)
        assert contents(run.path / "engines") == {}


def at_batch(size: int, value: float) -> Change:
    return lambda output: torch.full_like(output, value) if len(output) == size else output


@pytest.mark.parametrize(("size", "value"), [(1, 0.0), (3, float("nan")), (16, float("inf"))])
def test_an_engine_that_fails_at_one_batch_size_is_not_kept(
    run: RunFolder, engine: Kept, size: int, value: float
) -> None:
    before = export_run(run, "kept")
    files = contents(before.folder)
    engine.change = at_batch(size, value)
    with pytest.raises(Refused, match="deviates from PyTorch in float32 by"):
        export_run(run, "kept")
    assert contents(run.path / "engines") == {f"kept/{name}": data for name, data in files.items()}


def test_the_calls_cover_the_trained_levels_the_classes_and_the_null_class(run: RunFolder) -> None:
    parts = load(run.path).parts
    calls = fresh_calls(parts)
    assert [len(x) for x, _, _ in calls.inputs] == [1, 3, 16]
    # c_noise = 1000 sigma/(alpha + sigma) = 1000 sigmoid(-lam), lam from -5 to 5.
    lam = -torch.logit(torch.cat([noise for _, noise, _ in calls.inputs]) / 1000).sort().values
    assert torch.allclose(lam.flip(0), torch.linspace(-5, 5, 20), atol=1e-3)
    table = parts.conditioner.embedding.weight  # pyright: ignore[reportAttributeAccessIssue]
    rows = torch.cat([cond["vector"] for _, _, cond in calls.inputs])
    assert {int(torch.eq(table, row).all(dim=1).nonzero()) for row in rows} == {0, 1, 2, 3}
    assert all(output.dtype == torch.float64 for output in calls.float64)
    others = fresh_calls(parts, seed=1)
    assert not torch.equal(others.inputs[0][0], calls.inputs[0][0])


@pytest.mark.parametrize(
    ("description", "sizes"),
    [
        (spec(names=(), channels=3), {}),
        (spec(channels=2, learned_variance=True), {"vector": [8]}),
        ({**DESCRIPTION, **EDM}, {"vector": [8]}),
    ],
    ids=["unconditional", "learned variance", "edm"],
)
def test_every_kind_of_model_is_compared(
    tmp_path: Path, engine: Kept, description: dict[str, Any], sizes: dict[str, Any]
) -> None:
    run = RunFolder.open(make_run(tmp_path / "run", description))
    made = export_run(run, "kept")
    assert made.network["float32"].absolute == 0
    record = json.loads((made.folder / "engine.json").read_text())
    assert record["inputs"] == {"x": description["shape"], "cond": sizes}


def test_weights_that_changed_since_are_refused(run: RunFolder, engine: Kept) -> None:
    export_run(run, "kept")
    save(run, DESCRIPTION, seed=5)
    with pytest.raises(Refused, match=r"made of other weights.*run `nirvana export .*pets --engine kept` again"):
        load_engine(run, "kept", sha256(run))
    export_run(run, "kept")
    load_engine(run, "kept", sha256(run))


def test_what_was_not_exported_names_the_command(run: RunFolder, engine: Kept) -> None:
    with pytest.raises(Refused, match=r"no engine 'kept' yet; run `nirvana export .*pets --engine kept`"):
        load_engine(run, "kept", sha256(run))
    for call in (lambda: load_engine(run, "ketp", "0"), lambda: export_run(run, "ketp")):
        with pytest.raises(Refused, match="unknown engine 'ketp'; did you mean 'kept'"):
            call()


def test_another_version_or_processor_is_refused(run: RunFolder, engine: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run, "kept")
    monkeypatch.setattr(module, "_processor", lambda: "another one")
    load_engine(run, "kept", sha256(run))
    engine.native = True
    with pytest.raises(Refused, match=r"machine code for another processor .*export .* again"):
        load_engine(run, "kept", sha256(run))
    engine.made_by = "2.0"
    with pytest.raises(Refused, match=r"made by its version 1\.0, this is 2\.0; run"):
        load_engine(run, "kept", sha256(run))


def test_damage_and_edits_are_refused(run: RunFolder, engine: Kept) -> None:
    folder = export_run(run, "kept").folder
    weights = sha256(run)
    (folder / "network").write_text("1")
    with pytest.raises(Refused, match=r"is damaged \(network does not fit its sha256\); run .* again"):
        load_engine(run, "kept", weights)
    (folder / "network").unlink()
    with pytest.raises(Refused, match="is damaged"):
        load_engine(run, "kept", weights)
    export_run(run, "kept")
    record = json.loads((folder / "engine.json").read_text())
    write_json(folder / "engine.json", {**record, "weights_sha256": "0"})
    with pytest.raises(Refused, match=r"damaged or was edited.*run `nirvana export"):
        load_engine(run, "kept", "0")
    del record["digest"]
    write_json(folder / "engine.json", sealed({**record, "format_version": 2}))
    with pytest.raises(Refused, match="update nirvana"):
        load_engine(run, "kept", weights)


@pytest.mark.parametrize(
    ("moment", "error", "seen", "message"),
    [
        ("export", OSError(errno.ENOSPC, "No space left on device"), Refused, "no space left on the disk"),
        ("load", RuntimeError("odd"), RuntimeError, "odd"),
        ("pictures", KeyboardInterrupt("now"), KeyboardInterrupt, "now"),
    ],
    ids=["full", "bug", "ctrl-c"],
)
def test_a_failure_at_any_moment_leaves_the_old_export(
    run: RunFolder,
    engine: Kept,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    error: BaseException,
    seen: type[BaseException],
    message: str,
) -> None:
    export_run(run, "kept")
    before = contents(run.path)
    engine.fails[moment] = error

    def fail(*_: Any) -> Any:
        raise error

    if moment == "pictures":
        monkeypatch.setattr(module, "compare_pictures", fail)
    with pytest.raises(seen, match=message):
        export_run(run, "kept")
    assert contents(run.path) == before


def test_what_a_killed_export_left_is_removed(run: RunFolder, engine: Kept) -> None:
    leftover = run.path / "engines" / ".tmp-4194304-kept"  # no process has so high a number
    leftover.mkdir(parents=True)
    (leftover / "network").write_text("half")
    made = export_run(run, "kept")
    assert [path.name for path in made.folder.parent.iterdir()] == ["kept"]
    assert made.bytes == len("0")


def test_precisions_that_are_not_to_be_had_are_refused(
    run: RunFolder, engine: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Refused, match="unknown precision 'float31'; did you mean 'float32'"):
        export_run(run, "kept", "float31")
    monkeypatch.setattr(module, "pick_precision", lambda name, device: torch.bfloat16)
    assert export_run(run, "kept").precision == "bfloat16"
    engine.precisions = (torch.float32,)
    assert export_run(run, "kept").precision == "float32"
    with pytest.raises(Refused, match="'kept' does not compute in bfloat16; use the precision 'float32'"):
        export_run(run, "kept", "bfloat16")


def test_the_report_is_json(run: RunFolder, engine: Kept) -> None:
    made: Exported = export_run(run, "kept")
    value = json.loads(json.dumps(made.to_json()))
    assert value["folder"] == str(run.path / "engines" / "kept")
    assert value["parity"]["pictures"]["request"]["n"] == 4


def test_a_deviation_from_nothing() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    assert Deviation.of([(zero, zero)]) == Deviation(0.0, 0.0)
    assert Deviation.of([(one, zero)]) == Deviation(1.0, float("inf"))
    assert Deviation.of([(one, 4 * one), (3 * one, one)]) == Deviation(3.0, 0.75)
