from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nirvana.cli.main import main
from nirvana.data import open_data, order
from nirvana.generate.likelihood import Evaluation, Likelihood
from nirvana.generate.model import load
from tiny_run import make_run, spec

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("likelihood") / "digits", spec(names=tuple("0123456789"))))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_run(tmp_path_factory.mktemp("likelihood") / "plain", spec(names=())))


def test_it_prints_what_python_gives(capsys: Captured, run: str) -> None:
    assert main(["likelihood", run, "digits:test", "-n", "3", "--steps", "3", "--probes", "2", "--seed", "4"]) == 0
    captured = capsys.readouterr()
    data = open_data("digits:test")
    chosen = order(4, len(data), range(3))
    labels = [data.names[int(data.labels[i])] for i in chosen]  # pyright: ignore
    expected = load(run).log_likelihood(data.images[chosen], label=labels, steps=3, probes=2, seed=4)
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert lines[0] == f"bits per dimension  {expected.mean:.4f} ± {expected.standard_error:.4f}"
    assert [line.split()[0] for line in lines[1:3]] == ["flow", "decoder"]
    assert lines[3] == expected.evaluated
    assert lines[4].startswith("3 of 359 pictures in digits:test, given their own classes; 8 network calls each, ")


def test_json_has_every_picture(capsys: Captured, run: str) -> None:
    args = [
        "likelihood",
        run,
        "digits:test",
        "-n",
        "2",
        "--method",
        "bound",
        "--steps",
        "4",
        "--levels",
        "16",
        "--json",
    ]
    assert main(args) == 0
    captured = capsys.readouterr()
    value: Any = json.loads(captured.out)
    assert captured.err == ""
    assert set(value["terms"]) == {"prior", "diffusion", "decoder"}
    assert len(value["each"]["bits_per_dim"]) == value["pictures"] == 2
    assert (value["source"], value["condition"], value["calls"]) == ("digits:test", "their own classes", 4)
    assert value["request"]["levels"] == 16


def test_the_condition_is_said_and_used(capsys: Captured, run: str, plain: str) -> None:
    bits: dict[str, float] = {}
    for extra in ([], ["--unconditional"], ["--label", "3"]):
        assert main(["likelihood", run, "digits:test", "-n", "2", "--steps", "2", "--json", *extra]) == 0
        value: Any = json.loads(capsys.readouterr().out)
        bits[value["condition"]] = value["bits_per_dim"]
    assert set(bits) == {"their own classes", "no class", "the class '3'"} and len(set(bits.values())) == 3
    # Data may have classes that a model does not know of.
    assert main(["likelihood", plain, "digits:test", "-n", "2", "--steps", "2"]) == 0
    assert "given no class" in capsys.readouterr().out


def test_pictures_of_another_size_are_read_as_for_training(capsys: Captured, plain: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "grey").mkdir()
    (tmp_path / "colour").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(tmp_path / "grey" / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / "colour" / f"{i}.png")
    assert main(["likelihood", plain, str(tmp_path / "grey"), "--steps", "2", "--json"]) == 0
    value: Any = json.loads(capsys.readouterr().out)
    found = load(plain).log_likelihood(open_data(str(tmp_path / "grey"), size=8).images[order(0, 3, range(3))], steps=2)
    assert value["each"]["bits_per_dim"] == pytest.approx(found.bits.tolist())
    assert main(["likelihood", plain, str(tmp_path / "colour"), "--steps", "2"]) == 2
    assert "takes pictures of 8 x 8 x 1 (height, width, channels), got 8 x 8 x 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "elbo"], "unknown method 'elbo'"),
        (["-n", "0"], "-n must be at least 1, got 0"),
        (["-n", "360"], "digits:test has 359 pictures, 360 were asked for"),
        (["--label", "3", "--unconditional"], "give one of them"),
        (["--label", "33"], "unknown label '33'"),
        (["--solver", "ddpm"], "draws noise"),
        (["--probes", "two"], "takes a whole number"),
    ],
)
def test_refusals_are_one_line(capsys: Captured, run: str, args: list[str], message: str) -> None:
    assert main(["likelihood", run, "digits:test", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err and captured.err.count("\n") == 1


def test_labels_the_model_does_not_know_are_refused(capsys: Captured, tmp_path: Path) -> None:
    pets = str(make_run(tmp_path / "pets"))
    assert main(["likelihood", pets, "digits:test", "-n", "2", "--steps", "2"]) == 2
    assert "unknown label" in capsys.readouterr().err
    assert main(["likelihood", pets, "digits:test", "-n", "2", "--steps", "2", "--unconditional"]) == 0


def test_ctrl_c_says_what_is_known_so_far(capsys: Captured, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Evaluation.run

    def interrupted(self: Evaluation, *args: Any, **named: Any) -> Iterator[Likelihood]:
        yield next(real(self, *args, **named))
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluation, "run", interrupted)
    assert main(["likelihood", run, "digits:test", "-n", "6", "--batch", "2", "--steps", "2"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("nirvana: interrupted after 2 of 6 pictures: ")
    assert captured.err.endswith(" bits per dimension\n") and "±" in captured.err
