"""`nirvana export`, from a run folder to an engine that draws the same pictures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import nirvana.generate.export as module
from nirvana.cli.main import main
from nirvana.generate.export import load_engine
from nirvana.generate.model import load
from nirvana.generate.spec import network_spec
from nirvana.nn import UNetConfig
from planted_engine import Kept
from tiny_run import make_run, spec

Captured = pytest.CaptureFixture[str]
CONFIG = UNetConfig(1, 1, width=4, multipliers=(1,), blocks=1, attention=(), group_width=2, stem=2, vector_dim=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "pets", {**spec(), "network": network_spec(CONFIG)})


def test_export_writes_an_engine_that_draws_the_same_pictures(
    capsys: Captured, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", str(run), "--engine", "openvino", "--precision", "float32", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    result = json.loads(captured.out)
    folder = run / "engines" / "openvino"
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert files.keys() == {"network.xml", "network.bin", "engine.json"}
    assert result["folder"] == str(folder)
    assert result["bytes"] == files["network.xml"] + files["network.bin"]
    parity = result["parity"]
    assert all(parity["network"][name]["relative"] < 1e-5 for name in ("float32", "float64", "torch"))
    assert parity["pictures"]["largest"] < 1e-4
    assert parity["pictures"]["largest_byte"] <= 1
    model = load(run, device="cpu")
    assert result["weights_sha256"] == model.info()["weights_sha256"]
    expected = model.generate(n=5, batch=3).array.astype(int)
    net = load_engine(model.run, "openvino", result["weights_sha256"])
    assert not list(net.parameters())
    monkeypatch.setattr(model.parts.denoiser.net, "forward", lambda *_: pytest.fail("PyTorch was called"))
    found = model.generate(n=5, batch=3, engine="openvino").array.astype(int)
    assert np.abs(found - expected).max() <= 1
    assert found.std() > 10


def test_it_says_where_how_large_and_how_exact(capsys: Captured, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Kept(lambda output: output + 2.0**-12)
    monkeypatch.setattr(module, "ENGINES", {"kept": engine})
    assert main(["export", str(run), "--engine", "kept", "--precision", "float32", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
    assert rows["engine"] == "kept 1.0, float32"
    assert rows["written"].startswith(f"{run}/engines/kept (0.0 MB, ")
    figures = r"2\.4e-04 \(\S+ relative\)"
    assert re.fullmatch(rf"{figures} from PyTorch in float32, {figures} in float64", rows["network"])
    assert " apart at most (" in rows["pictures"] and "(4 pictures, 3 steps of ddim)" in rows["pictures"]
    assert rows["draw"] == f"nirvana generate {run} --engine kept"
    engine.change = lambda output: output + 1
    assert main(["export", str(run), "--engine", "kept", "--precision", "float32"]) == 2
    captured = capsys.readouterr()
    assert "deviates from PyTorch in float32 by" in captured.err.splitlines()[-1]
    assert captured.out == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--engine", "openvin"], "unknown engine 'openvin'; did you mean 'openvino'"),
        (["--precision", "float16"], "unknown precision 'float16'"),
        (["--engine", "openvino"], "needs the package 'openvino'"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    capsys: Captured, run: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    if args[0] == "--engine":
        monkeypatch.setitem(sys.modules, "openvino", None)
    before = sorted(run.rglob("*"))
    assert main(["export", str(run), *args, "--quiet"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert sorted(run.rglob("*")) == before
