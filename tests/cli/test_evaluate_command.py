"""`nirvana evaluate` and `nirvana compare` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nirvana.cli.main import main
from nirvana.evaluate import evaluation
from tiny_evaluation import digits_run, space

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def small_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "open_space", lambda *_: space())
    monkeypatch.chdir(tmp_path)


def test_evaluate_writes_a_table_a_file_and_a_page_and_compare_reads_them(capsys: Captured) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        digits_run(Path(name), seed)
        assert main(["evaluate", name, "-n", "100", "--steps", "1"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        assert captured.out.startswith("score")
        assert "FD-coarse (lower)" in captured.out and f"report: {name}/evaluation/index.html" in captured.out
        assert json.loads(Path(name, "evaluation", "evaluation.json").read_text())["about"]["space"] == "coarse"
        assert Path(name, "evaluation", "index.html").read_text().startswith("<!doctype html>")
    assert main(["evaluate", "a", "-n", "100", "--steps", "2", "--guidance", "1", "--out", "o", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["report"], result["about"]["request"]["guidance"]) == ("o/index.html", 1.0)
    assert main(["compare", "a", "b", "o"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["score", "a", "b", "o"]
    assert "KID-coarse x 1000 (lower)" in out and "+-" in out
    assert main(["compare", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == ["a", "b"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "a", "-n", "9"], "coarse has 16 features; give -n 24 or more"),
        (["evaluate", "a", "-n", "100", "--minutes", "1"], "give one of them"),
        (["evaluate", "a", "--against", "nowhere"], "no such folder"),
        (["evaluate", "a", "--out", "taken.txt", "-n", "50"], "is a file"),
        (["evaluate", "a", "--guidance", "-1", "-n", "50"], "guidance must be"),
        (["evaluate", "nowhere"], "is not there"),
        (["compare", "a", "a"], "run `nirvana evaluate a` first"),
        (["compare"], "name at least two"),
    ],
)
def test_what_is_refused_is_one_line(capsys: Captured, args: list[str], message: str) -> None:
    digits_run(Path("a"))
    Path("taken.txt").write_text("mine")
    assert main(args) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_one_picture_to_compare_with_is_refused(capsys: Captured) -> None:
    from PIL import Image

    digits_run(Path("a"))
    Path("one").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("one/0.png")
    assert main(["evaluate", "a", "--against", "one", "-n", "50"]) == 2
    assert "only one readable picture" in capsys.readouterr().err
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("one/1.png")
    assert main(["evaluate", "a", "--against", "one", "-n", "50"]) == 2
    captured = capsys.readouterr().err
    assert "one: 2 pictures are too few" in captured and captured.count("\n") == 1
