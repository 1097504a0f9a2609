"""The models that ship: whole, small together, and found by name where no run has it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nirvana import zoo
from nirvana.cli.main import main
from nirvana.errors import Refused
from nirvana.generate.model import find, load
from tiny_run import make_run
from tiny_zoo import plant
from zoo.build import train
from zoo.models import SHIPPED

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with the model `tiny`, and an empty working folder."""
    home = tmp_path / "zoo"
    plant(home, monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return home


def test_a_name_of_the_zoo_is_a_model(planted: Path) -> None:
    assert find("tiny") == planted / "tiny"
    assert load("tiny").generate(n=1).array.shape == (1, 8, 8, 1)
    with pytest.raises(Refused, match="did you mean 'tiny'"):
        find("tinny")


def test_what_is_refused_says_the_name_of_the_model_and_not_where_it_lies(planted: Path) -> None:
    with pytest.raises(Refused, match=r"^tiny knows labels, not prompts"):
        load("tiny").generate("a cow")
    with pytest.raises(Refused, match=str(planted.parent / "runs")):
        load(make_run(planted.parent / "runs" / "other")).generate("a cow")


def test_a_run_of_that_name_comes_first_and_a_folder_of_pictures_does_not(planted: Path) -> None:
    Path("tiny").mkdir()
    assert find("tiny") == planted / "tiny"
    make_run(Path("runs/tiny"))
    assert find("tiny") == Path("runs/tiny")
    Path("tiny").rmdir()
    make_run(Path("tiny"))
    assert find("tiny") == Path("tiny")


def test_the_list_and_a_card(planted: Path, capsys: Captured) -> None:
    assert main(["zoo"]) == 0
    out = capsys.readouterr().out
    assert "tiny" in out and "CC0-1.0" in out and "nirvana generate tiny cat -n 4" in out
    assert main(["zoo", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "It draws noise." in out and f"pictures of the card: {planted / 'tiny' / 'samples.png'}" in out
    assert main(["zoo", "tiny", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"] == "tiny" and said["path"] == str(planted / "tiny") and said["bytes"] > 1000
    assert main(["zoo", "tinny"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err


def test_an_empty_zoo_says_so(planted: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_HERE", planted / "none")
    assert main(["zoo"]) == 0
    assert "no model comes with this version" in capsys.readouterr().err
    assert main(["zoo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": []}


def test_what_is_made_of_it_goes_to_the_cache(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert zoo.beside(find("tiny")) == tmp_path / "cache" / "nirvana" / "zoo" / "tiny"
    assert zoo.beside(tmp_path / "made") == tmp_path / "made"
    before = sorted(planted.rglob("*"))
    assert main(["generate", "tiny", "--out", "pictures"]) == 0
    assert main(["pack", "tiny", "--out", "copy"]) == 0
    assert sorted(planted.rglob("*")) == before


def test_all_that_ships_is_whole_and_small_and_can_be_built_again() -> None:
    cards = [zoo.card(name) for name in zoo.names()]
    assert {card.name for card in cards} == set(SHIPPED)
    assert sum(card.bytes for card in cards) <= 40e6
    for card in cards:
        model = load(card.name, device="cpu")
        assert model.info()["finished"], card.name
        assert model.info()["command"] == "", "folders of the machine it was trained on are nobody's business"
        assert model.run.config == SHIPPED[card.name].order.to_json(), f"{card.name} is not what `make zoo` builds"
        assert model.request(card.prompt).n == 1 and card.text.startswith("# ")
        for part in ("## Data", "## Training", "## Quality", "## Limits", "## Rebuild"):
            assert part in card.text, f"{card.name} lacks {part}"


def test_a_model_is_built_of_the_whole_set_alone(tmp_path: Path) -> None:
    whole = SHIPPED["fashion"]
    part = replace(whole, order=replace(whole.order, source="digits"))
    with pytest.raises(Refused, match=r"fashion is trained on 60,000 pictures, and digits has 1,\d\d\d here; install"):
        train("fashion", part, tmp_path / "run")
    assert not list(tmp_path.iterdir())
