from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nirvana.cli import train as command
from nirvana.cli.console import Console
from nirvana.cli.main import main
from nirvana.cli.train import source_name
from nirvana.errors import Refused
from nirvana.recipes import image
from nirvana.train.events import Event, Finished, RolledBack, Saved, SnapshotTaken, Started, StepDone

Captured = pytest.CaptureFixture[str]

EVENTS: list[Event] = [
    Started(0, 20, "cpu", "float32", 0),
    *(StepDone(i, i, 20, {"main": 0.5 if i > 1 else None}, 1e-3, math.nan, 3.0) for i in range(1, 21)),
    SnapshotTaken(10, Path("r/ema/x.safetensors")),
    RolledBack(12, 10, 0.5, 1, ["a.png", "b.png"], ["b.png"]),
    Saved(20, Path("r/checkpoints/000000020")),
    Finished(20, 65.0, already=False),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class StandIn:
    """What `prepare` gives: a training of `events`, on data with one bad file."""

    def __init__(self, events: Callable[[], Iterator[Event]]) -> None:
        self.events = events
        rejected = ({"path": "bad.png", "reason": "truncated"},)
        self.data = SimpleNamespace(notices=("no cache",), manifest=SimpleNamespace(rejected=rejected))

    def summary(self) -> str:
        return "the plan in one line"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the recipe was asked for; it answers with EVENTS."""
    calls: list[tuple[Any, ...]] = []

    def stand_in(*args: Any, **named: Any) -> StandIn:
        calls.append((*args, named))
        return StandIn(lambda: (event for event in EVENTS))

    monkeypatch.setattr(image, "prepare", stand_in)
    return calls


def test_every_option_reaches_the_recipe(asked: list[tuple[Any, ...]]) -> None:
    typed = "pets --out r --size 32 --images 500 --from old --seed 3 --fresh --allow-bad"
    assert main(["train", *typed.split()]) == 0
    order, out, named = asked[0]
    assert (order, out) == (image.Order("pets", size=32, images=500, start="old", seed=3), Path("r"))
    assert (named["fresh"], named["allow_bad"]) == (True, True)
    assert main(["train", "pets", "--recipe", "none"]) == 2


def test_the_run_is_named_after_the_source(asked: list[tuple[Any, ...]]) -> None:
    assert main(["train", "my/pets/", "--minutes", "0.5"]) == 0
    assert asked[0][1] == Path("runs/pets")
    assert asked[0][0].minutes == 0.5
    assert source_name("fashion-mnist:test") == "fashion-mnist-test"
    assert source_name(".") == Path.cwd().name


def test_people_read_notes_and_a_result(asked: list[tuple[Any, ...]], capsys: Captured) -> None:
    assert main(["train", "pets", "--out", "r"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "r finished in 1 min 5 s after 20 images; see r/index.html\n"
    assert captured.err.splitlines() == [
        "the plan in one line",
        "1 files cannot be read and are left out (bad.png: truncated; all: r/data.json)",
        "no cache",
        "training on 20 images (cpu, float32)",
        "the loss was no number after 12 images: back to 10, at 0.5 of the rate (1 of 3);"
        " the files of that batch: b.png",
        "saved r/checkpoints/000000020 after 20 images",
        "next: nirvana generate r -n 16",
    ]
    assert main(["train", "pets", "--out", "r", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_programs_read_a_json_line_an_event(asked: list[tuple[Any, ...]], capsys: Captured) -> None:
    assert main(["train", "pets", "--json"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert captured.err == ""
    assert [line["event"] for line in lines] == [
        "started",
        "step_done",
        "step_done",
        "snapshot_taken",
        "rolled_back",
        "saved",
        "finished",
    ]
    assert lines[1]["step"] == 10
    assert lines[1]["images_per_second"] is None
    assert lines[5]["path"] == "r/checkpoints/000000020"


def test_ctrl_c_closes_the_training_and_says_how_to_go_on(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def interrupted() -> Iterator[Event]:
        try:
            yield EVENTS[0]
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(image, "prepare", lambda *_, **__: StandIn(interrupted))
    monkeypatch.setattr(sys, "argv", ["nirvana", "train", "my pets", "--out", "r", "--fresh", "--quiet"])
    assert main() == 130
    expected = "nirvana: interrupted and saved in r; go on with: nirvana train 'my pets' --out r --quiet\n"
    assert capsys.readouterr().err == expected
    assert closed == [True]


def test_ctrl_c_between_two_steps_closes_the_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def going() -> Iterator[Event]:
        try:
            yield from EVENTS
        finally:
            closed.append(True)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    kept = going()  # a reference, so that nothing but closing it ends it
    monkeypatch.setattr(command, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt, match="go on with: nirvana train pets"):
        command.follow_all(Console(quiet=True), kept, Path("r"), "nirvana train pets")
    assert closed == [True]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--size", "0"], "size must be 1 to 4096"),
        (["--size", "-8"], "size must be"),
        (["--images", "0"], "images must be at least 1"),
        (["--images", "-5"], "images must be at least 1"),
        (["--minutes", "0"], "minutes must be a positive number"),
        (["--minutes", "nan"], "minutes must be a positive number"),
        (["--minutes", "1", "--images", "5"], "both --images and --minutes"),
        (["--seed", "-1"], "seed must be in"),
        (["--seed", str(2**63)], "seed must be in"),
    ],
)
def test_bad_numbers_are_refused_before_anything_starts(
    asked: list[tuple[Any, ...]], capsys: Captured, args: list[str], message: str
) -> None:
    assert main(["train", "pets", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert asked == []
    assert not list(Path().iterdir())


@pytest.mark.parametrize("make", ["nothing", "file", "empty", "text", "single"])
def test_sources_without_pictures_are_refused_and_leave_no_run(capsys: Captured, make: str) -> None:
    source = Path("pets")
    if make == "file":
        source.write_text("x")
    elif make != "nothing":
        source.mkdir()
    if make == "text":
        (source / "a.txt").write_text("no picture")
        (source / "b.png").write_text("no picture either")
    if make == "single":
        from PIL import Image

        Image.new("L", (8, 8)).save(source / "one.png")
    before = sorted(Path().rglob("*"))
    assert main(["train", "pets", "--images", "8"]) == 2
    captured = capsys.readouterr()
    assert "pets" in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_a_refusal_while_training_is_one_line(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> Iterator[Event]:
        yield EVENTS[0]
        raise Refused("no space left")

    monkeypatch.setattr(image, "prepare", lambda *_, **__: StandIn(refuses))
    assert main(["train", "pets", "--quiet"]) == 2
    assert capsys.readouterr().err == "nirvana: no space left\n"
