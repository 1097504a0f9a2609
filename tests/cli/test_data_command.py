from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana.cli.main import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pets"
    folder.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def test_nothing_wrong(pets: Path, capsys: Captured) -> None:
    assert main(["data", "check", "pets"]) == 0
    out = capsys.readouterr().out
    assert "pets: 4 pictures, 4 of them used" in out
    assert "nothing was found" in out and "nothing serious" in out
    assert out.endswith("next: nirvana train pets --manifest checks/pets\n")
    assert sorted(path.name for path in Path("checks/pets").iterdir()) == ["index.html", "manifest.json"]


def test_findings_as_a_table_and_a_cleaned_copy(pets: Path, capsys: Captured) -> None:
    (pets / "same.png").write_bytes((pets / "0.png").read_bytes())
    assert main(["data", "check", "pets", "--fix", "clean"]) == 0
    out = capsys.readouterr().out
    assert "exact duplicates" in out and "same.png" in out and "cleaned copy: clean" in out
    assert sorted(path.name for path in Path("clean").iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    assert main(["data", "check", "pets", "--keep", "duplicate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["used"], found["findings"][0]["kind"]) == (5, "duplicate")


def test_something_serious_is_exit_code_1_after_everything_is_written(pets: Path, capsys: Captured) -> None:
    (pets / "bad.png").write_bytes(b"no picture")
    assert main(["data", "check", "pets", "--out", "report"]) == 1
    said = capsys.readouterr()
    assert said.err == "nirvana: pets: serious: corrupt files (1); see report/index.html\n"
    assert "nothing serious" not in said.out
    assert Path("report/manifest.json").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none"], "none: no such folder"),
        (["empty"], "empty: the folder is empty; put at least 2 pictures into it"),
        (["one"], "one: only one readable picture; give a source that holds at least 2 pictures"),
        (["bad"], "bad: only one readable picture (1 unreadable, first 0.png: no picture in a known format)"),
        (["pets", "--captions"], "pets: no captions for its 4 pictures (first: 0.png)"),
        (["texts", "--captions"], "(first: 0.png); 2 caption files belong to no picture (first: a.txt, b.txt)"),
        (["table"], "table/captions.csv names no picture that is there: it names x.png, and the pictures are 0.png"),
        (["bad.zip"], "bad.zip: a corrupt archive"),
        (["pets", "--test", "empty"], "empty: the folder is empty"),
        (["pets", "--keep", "tinny"], "unknown kind to keep 'tinny'; did you mean 'tiny'?"),
        (["pets", "--keep", "corrupt"], "unknown kind to keep 'corrupt'"),
        (["pets", "--fix", "pets/clean"], "--fix pets/clean: lies in pets, which is never written to"),
        (["pets", "--fix", "one"], "--fix one: is there already"),
        (["pets", "--out", "pets"], "--out pets: lies in pets"),
    ],
)
def test_what_the_user_can_mend(pets: Path, capsys: Captured, args: list[str], message: str) -> None:
    for name in ("empty", "one", "bad", "texts", "table"):
        Path(name).mkdir()
    data = (pets / "0.png").read_bytes()
    for path in ("one/0.png", "bad/1.png", "texts/0.png", "texts/1.png", "table/0.png", "table/1.png"):
        Path(path).write_bytes(data)
    Image.new("L", (9, 9)).save("texts/1.png")
    Path("bad/0.png").write_text("text")
    Path("texts/a.txt").write_text("a")
    Path("texts/b.txt").write_text("b")
    Path("table/captions.csv").write_text("file_name,text\nx.png,a cat\n")
    Path("bad.zip").write_bytes(b"PK\x03\x04 nothing")
    assert main(["data", "check", *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not Path("checks").exists()


def test_the_word_data_alone(capsys: Captured) -> None:
    assert main(["data"]) == 2
    assert "did you mean 'data check'?" in capsys.readouterr().err
    assert main(["data", "chekc", "x"]) == 2
    assert "did you mean 'data check'?" in capsys.readouterr().err
