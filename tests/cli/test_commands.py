from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nirvana.cli.main import main
from nirvana.generate.model import Model, load
from nirvana.generate.sampler import Sampler
from nirvana.modality.png import read_png, read_png_metadata
from nirvana.train import checkpoint
from nirvana.train.ema import Average
from nirvana.train.run import RunFolder
from tiny_run import make_run, spec, weights

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("commands") / "pets"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_generate_writes_what_python_gives(capsys: Captured, run: str, tmp_path: Path) -> None:
    assert main(["generate", run, "-n", "4", "--steps", "2", "--guidance", "1.5", "--seed", "9", "--out", "out"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("4 pictures in out (2 steps of ddim, guidance 1.5, ")
    assert captured.err == ""
    expected = load(run).generate(n=4, steps=2, guidance=1.5, seed=9)
    for i in range(4):
        pixels, saved = read_png(tmp_path / "out" / f"00{i}.png")
        assert np.array_equal(pixels, expected.array[i])
        assert saved["request"] == expected.request.to_json()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*(f"00{i}.png" for i in range(4)), "grid.png"]


def test_generate_with_labels_json_and_animation(capsys: Captured, run: str) -> None:
    args = ["generate", run, "--label", "otter", "--label", "cat", "-n", "2", "--animate", "--out", "o", "--json"]
    assert main(args) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert result["files"] == ["o/000.png", "o/001.png", "o/grid.png", "o/animation.webp"]
    assert result["request"]["labels"] == ["otter", "cat"]
    assert [read_png_metadata(Path(f"o/00{i}.png"))["label"] for i in range(2)] == ["otter", "cat"]
    with Image.open("o/animation.webp") as animation:
        assert animation.n_frames == 4  # pyright: ignore[reportAttributeAccessIssue]


def test_generate_keeps_what_saves_time_in_the_picture(
    capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nirvana.train import device

    monkeypatch.setattr(device, "has_bfloat16", lambda _: False)
    args = ["generate", run, "--steps", "4", "--guidance-interval", "0.2,2", "--precision", "bfloat16", "--out", "o"]
    assert main(args) == 0
    captured = capsys.readouterr()
    assert captured.err == "this cpu only emulates bfloat16: float32 is faster here\n"
    pixels, saved = read_png(Path("o/000.png"))
    request: Any = saved["request"]
    assert (request["guidance_interval"], request["precision"], request["engine"]) == ([0.2, 2.0], "bfloat16", "torch")
    expected = load(run).generate(steps=4, guidance_interval=(0.2, 2.0), precision="bfloat16")
    assert np.array_equal(pixels, expected.array[0])
    assert main(["reproduce", "o/000.png"]) == 0
    assert capsys.readouterr().out == "o/000.png: reproduced, byte for byte\n"
    monkeypatch.setattr(device, "has_bfloat16", lambda _: True)
    assert main(args) == 0
    assert capsys.readouterr().err == ""


def test_generate_by_a_rule_and_other_branches(capsys: Captured, tmp_path: Path) -> None:
    path = make_run(tmp_path / "pets")
    folder, tensors = RunFolder.open(path), weights(spec(), 40)
    checkpoint.save_snapshot(folder, Fraction(1, 8), Average(20, 0.10, tensors))
    plain = ["generate", str(path), "--steps", "2", "--out", "o"]
    rule = ["--label", "cat:1.5+dog:0.5", "--rule", "apg:w=4,eta=0.5", "--negative", "otter", "--solver", "ddim:eta=1"]
    assert main([*plain, *rule]) == 0
    written = capsys.readouterr().out
    assert "(2 steps of ddim:eta=1, guidance 4, rule apg:eta=0.5, negative otter, " in written
    expected = load(path).generate(
        label="cat:1.5+dog:0.5", steps=2, guidance=4.0, rule="apg:eta=0.5", negative="otter", solver="ddim:eta=1"
    )
    pixels, saved = read_png(Path("o/000.png"))
    assert np.array_equal(pixels, expected.array[0]) and saved["request"] == expected.request.to_json()
    assert main([*plain, "--autoguidance", "1/8"]) == 0
    assert ", guidance 2, autoguidance 1/8, " in capsys.readouterr().out
    pixels, _ = read_png(Path("o/000.png"))
    assert np.array_equal(pixels, load(path).generate(steps=2, autoguidance="1/8").array[0])
    assert main(["reproduce", "o/000.png"]) == 0
    assert capsys.readouterr().out == "o/000.png: reproduced, byte for byte\n"


def test_generate_and_reproduce_with_the_classifier_that_ships(capsys: Captured, tmp_path: Path) -> None:
    path = make_run(tmp_path / "clothes", spec(names=(), shape=[1, 28, 28]))
    assert main(["generate", str(path), "--label", "bag", "--classifier", "fashion:scale=2", "--out", "o"]) == 0
    assert ", classifier fashion:scale=2, " in capsys.readouterr().out
    assert main(["reproduce", "o/000.png"]) == 0
    assert capsys.readouterr().out == "o/000.png: reproduced, byte for byte\n"
    steered = read_png(Path("o/000.png"))[0]
    assert not np.array_equal(steered, load(path).generate().array[0])


def test_sheet_over_rules(capsys: Captured, run: str) -> None:
    args = ["--x", "rule=cfg,apg:w=4,eta=0,norm=9,cfg++:w=0.4", "--y", "negative=none,otter", "--label", "cat"]
    assert main(["sheet", run, "--steps", "2", *args, "--guidance", "3", "--out", "s.png"]) == 0
    assert capsys.readouterr().out == "2 x 3 settings in s.png\n"
    values = ["cfg", "apg:w=4,eta=0,norm=9", "cfg++:w=0.4"]
    assert read_png_metadata(Path("s.png"))["x"] == {"field": "rule", "values": values}
    args = ["--x", "steps=1", "--rule", "rescale", "--negative", "dog", "--out", "t.png", "--solver", "ddim:eta=0.5"]
    assert main(["sheet", run, *args]) == 0
    request: Any = read_png_metadata(Path("t.png"))["request"]
    assert (request["rule"], request["negative"], request["solver"]) == ("rescale", "dog", "ddim:eta=0.5")


def test_generate_compiled_says_what_it_costs(capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "compile", lambda net, **_: net)
    assert main(["generate", run, "--steps", "1", "--compile", "--out", "o"]) == 0
    assert "compiling for the CPU takes minutes" in capsys.readouterr().err
    assert read_png_metadata(Path("o/000.png"))["origin"]["machine"]["compiled"] is True  # pyright: ignore
    assert main(["generate", run, "--compile", "--engine", "onnx", "--out", "o"]) == 2
    assert "leave --compile out" in capsys.readouterr().err


def test_sheet_takes_what_saves_time(capsys: Captured, run: str) -> None:
    args = ["--x", "guidance_interval=none,0.2:2", "--y", "precision=float32,bfloat16", "--out", "s.png"]
    assert main(["sheet", run, "--steps", "2", *args]) == 0
    assert read_png_metadata(Path("s.png"))["x"] == {"field": "guidance_interval", "values": ["none", "0.2:2"]}
    args = ["--x", "steps=1,2", "--guidance-interval", "0.2,2", "--precision", "bfloat16", "--out", "t.png"]
    assert main(["sheet", run, *args]) == 0
    request: Any = read_png_metadata(Path("t.png"))["request"]
    assert (request["guidance_interval"], request["precision"]) == ([0.2, 2.0], "bfloat16")


def test_a_prompt_that_is_a_label_is_used_and_said(capsys: Captured, run: str) -> None:
    assert main(["generate", run, "dog", "--steps", "1"]) == 0
    captured = capsys.readouterr()
    assert "'dog' is one of the model's labels" in captured.err
    assert read_png_metadata(Path("generated/pets-0/000.png"))["label"] == "dog"
    assert main(["generate", run, "dog", "--steps", "1", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_reproduce_and_its_out_file(capsys: Captured, run: str) -> None:
    assert main(["generate", run, "-n", "3", "--batch", "2", "--seed", "1", "--out", "o"]) == 0
    capsys.readouterr()
    assert main(["reproduce", "o/001.png", "--out", "again/x.png"]) == 0
    assert capsys.readouterr().out == "o/001.png: reproduced, byte for byte\n"
    assert Path("again/x.png").read_bytes() == Path("o/001.png").read_bytes()
    assert main(["reproduce", "o/grid.png", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["same_bytes"], result["largest_difference"], result["changed"]) == (True, 0, [])


def test_sheet_writes_a_page(capsys: Captured, run: str) -> None:
    assert main(["sheet", run, "--x", "steps=1,2", "--y", "guidance=1,2,4", "--label", "cat", "--out", "s.png"]) == 0
    assert capsys.readouterr().out == "3 x 2 settings in s.png\n"
    assert read_png_metadata(Path("s.png"))["y"] == {"field": "guidance", "values": [1.0, 2.0, 4.0]}
    # What is asked for stands where it does for `generate`.
    assert main(["sheet", run, "cat", "--x", "steps=1,2", "--y", "guidance=1,2,4", "--out", "p.png"]) == 0
    assert Path("p.png").read_bytes() == Path("s.png").read_bytes()


def test_info_in_both_forms(capsys: Captured, run: str) -> None:
    assert main(["info", run]) == 0
    text = capsys.readouterr().out
    assert "cat, dog, otter" in text
    assert "pets, 100 pictures, 1 files rejected" in text
    assert main(["--json", "info", run]) == 0
    assert json.loads(capsys.readouterr().out) == load(run).info()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-n", "0"], "n must be at least 1"),
        (["--steps", "0"], "steps must be at least 1"),
        (["--guidance", "-1"], "guidance must be"),
        (["--guidance", "nan"], "guidance must be"),
        (["--seed", "-1"], "seed must be at least 0"),
        (["--seed", str(2**63)], "seed must be at most"),
        (["--seed", str(2**63 - 1), "-n", "2"], "seed must be in"),
        (["--label", "oter"], "did you mean 'otter'"),
        (["--solver", "dmi"], "unknown solver"),
        (["--grid", "karas"], "did you mean 'karras'"),
        (["--weights", "emma"], "did you mean 'ema'"),
        (["--device", "cpuu"], "did you mean 'cpu'"),
        (["--guidance-interval", "2,1"], "must rise"),
        (["--guidance-interval", "2"], "two ratios"),
        (["--guidance-interval", "a,b"], "two numbers"),
        (["--precision", "bf16"], "did you mean 'bfloat16'"),
        (["--engine", "openvin"], "did you mean 'openvino'"),
        (["--engine", "onnx"], "has no engine 'onnx' yet"),
        (["--engine", "onnx", "--weights", "raw"], "leave weights at 'ema'"),
        (["--engine", "onnx", "--precision", "bfloat16"], "precision at 'float32'"),
        (["--rule", "agp"], "did you mean 'apg'"),
        (["--rule", "apg:eta"], "NAME:KEY=VALUE"),
        (["--rule", "apg:eta=3"], "eta is 3.0"),
        (["--rule", "apg:w=3", "--guidance", "2"], "give one of them"),
        (["--rule", "cfg++", "--solver", "ddpm"], "deterministic first-order steps"),
        (["--rule", "cfg++", "--guidance", "2"], "from 0 (the weak branch) to 1"),
        (["--solver", "ddim:etta=1"], "did you mean 'eta'"),
        (["--negative", "oter"], "did you mean 'otter'"),
        (["--label", "cat:1+oter"], "did you mean 'otter'"),
        (["--autoguidance", "soon"], "fraction of the run"),
        (["--autoguidance", "1/8"], "kept no earlier weights at 1/8"),
        (["--classifier", "fashoin"], "did you mean 'fashion'"),
        (["--classifier", "fashion"], "the classifier reads (1, 28, 28)"),
        (["a", "--label", "cat"], "give one of them"),
        (["a cat on a mat"], "knows labels, not prompts"),
        (["--out", "taken.txt"], "is a file"),
    ],
)
def test_bad_requests_are_refused_and_nothing_is_written(
    capsys: Captured, run: str, args: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken.txt").write_text("mine")
    monkeypatch.setattr(Sampler, "_stream", lambda *_: pytest.fail("the network was called"))
    assert main(["generate", run, *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert [path.name for path in Path().iterdir()] == ["taken.txt"]
    assert Path("taken.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--x", "stpes=1"], "did you mean 'steps'"),
        (["--x", "steps=0"], "steps must be at least 1"),
        (["--x", "steps=1", "--out", "a.jpg"], "a sheet is a PNG file"),
        (["--x", "steps=1", "-n", "0"], "n must be at least 1"),
    ],
)
def test_bad_sheets_are_refused(capsys: Captured, run: str, args: list[str], message: str) -> None:
    assert main(["sheet", run, *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_an_unconditional_model_refuses_guidance_and_damage_is_one_line(capsys: Captured, tmp_path: Path) -> None:
    run = make_run(tmp_path / "plain", spec(names=()))
    assert main(["generate", str(run), "--guidance", "2"]) == 2
    assert "nothing to guide" in capsys.readouterr().err
    weights = next(run.rglob("ema0.safetensors"))
    weights.write_bytes(weights.read_bytes()[:50])
    for command in (["generate"], ["info"], ["sheet", "--x", "steps=1"]):
        assert main([command[0], str(run), *command[1:]]) == 2
        captured = capsys.readouterr()
        assert "ema0.safetensors is damaged" in captured.err
        assert captured.err.count("\n") == 1


def test_ctrl_c_while_generating_writes_nothing(capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "gather", interrupted)
    assert main(["generate", run, "--out", "o"]) == 130
    assert capsys.readouterr().err == "nirvana: interrupted\n"
    assert not list(Path().iterdir())
