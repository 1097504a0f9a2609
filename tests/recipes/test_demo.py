"""How the demo begins: with the prompts of the models that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nirvana import zoo
from nirvana.cli.console import Console
from nirvana.cli.demo import _greet
from nirvana.errors import Refused
from nirvana.generate.model import load
from nirvana.recipes import demo
from tiny_zoo import plant


def test_it_draws_the_prompt_of_every_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path / "zoo", monkeypatch)
    monkeypatch.chdir(tmp_path)
    _greet(Console(), 3)
    asked = load("tiny").generate(zoo.card("tiny").prompt, n=demo.GREETING, seed=3)
    with Image.open("generated/tiny-3/000.png") as picture:
        assert picture.convert("L").tobytes() == asked.array[0].tobytes()
    with Image.open("generated/tiny-3/noise-to-picture.webp") as animation:
        assert getattr(animation, "n_frames") == asked.request.steps + 1  # noqa: B009
    assert zoo.card("tiny").example in capsys.readouterr().err


def test_a_model_that_lacks_an_extra_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path / "zoo", monkeypatch)
    monkeypatch.chdir(tmp_path)

    def refuse(*_: object) -> None:
        raise Refused("the text encoder is not installed")

    monkeypatch.setattr(demo, "load", refuse)
    _greet(Console(), 0)
    assert "tiny is left out: the text encoder is not installed" in capsys.readouterr().err
    assert not Path("generated").exists()
