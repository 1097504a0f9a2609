from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nirvana.cli import train as command
from nirvana.cli.console import Console
from nirvana.cli.main import main
from nirvana.cli.train import source_name
from nirvana.errors import Refused
from nirvana.recipes import image
from nirvana.recipes.order import Order
from nirvana.recipes.planner import Forecast
from nirvana.train import memory
from nirvana.train.events import Event, Finished, RolledBack, Saved, SnapshotTaken, Started, StepDone
from nirvana.train.plan import TrainPlan

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
        manifest = SimpleNamespace(
            rejected=rejected, pictures=40, channels=3, size=32, names=("cat", "dog"), captioned=30, notes=("odd rows",)
        )
        self.data = SimpleNamespace(notices=("no cache",), manifest=manifest, captions=None)
        self.batches = SimpleNamespace(wording=None)
        spec = {
            "network": {"kind": "unet", "width": 48, "stem": 2},
            "conditioner": {"kind": "labels", "names": ["cat", "dog"]},
        }
        self.run = SimpleNamespace(path=Path("r"), model_spec=spec, plan=TrainPlan(images=20, batch=4, accumulate=2))
        self.parameters, self.passes = 2_500_000, 0.5
        self.task = SimpleNamespace(device=torch.device("cpu"))
        self.forecast = Forecast(seconds=65.0, steps=40.0, memory=2**30, available=2**34)


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
    typed = (
        "pets --out r --size 32 --images 500 --recipe edm --width 8 --batch 6 --accumulate 2 --from old --seed 3"
        " --device cpu --precision float32 --compile --fresh --allow-bad --condition both"
        " --encoder minilm --shuffle-tags --freeze network --freeze encoder"
    )
    assert main(["train", *typed.split(), "--template", "a photo of {}", "--template", "{}"]) == 0
    order, out, named = asked[0]
    expected = Order(
        "pets",
        size=32,
        images=500,
        recipe="edm",
        width=8,
        batch=6,
        accumulate=2,
        start="old",
        seed=3,
        device="cpu",
        precision="float32",
        compile=True,
        condition="both",
        encoder="minilm",
        templates=("a photo of {}", "{}"),
        shuffle_tags=True,
        freeze=("network", "encoder"),
    )
    assert (order, out) == (expected, Path("r"))
    assert (named["fresh"], named["allow_bad"]) == (True, True)


def test_the_run_is_named_after_the_source(asked: list[tuple[Any, ...]]) -> None:
    assert main(["train", "my/pets/", "--minutes", "0.5"]) == 0
    assert asked[0][1] == Path("runs/pets")
    assert asked[0][0].minutes == 0.5
    assert source_name("fashion-mnist:test") == "fashion-mnist-test"
    assert source_name(".") == Path.cwd().name


def test_people_read_notes_and_a_result(
    asked: list[tuple[Any, ...]], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "peak", lambda _: 2**31)
    assert main(["train", "pets", "--out", "r"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "r finished in 1 min 5 s after 20 images; see r/index.html\n"
    assert captured.err.splitlines() == [
        "  pictures  40 colour, 32x32, 2 labels; 1 unreadable, left out (bad.png: truncated; all in r/data.json)",
        "  told      2 labels",
        "  network   U-Net of 2.5 million parameters, 48 channels wide, on cells of 2x2 pixels",
        "  training  20 images in batches of 4 computed in 2 parts, each picture once or not at all",
        "  time      1 min 5 s of 10 min at 0 images/s",
        "  memory    1.0 GiB of 16.0 GiB",
        "  expect    blurred patches with the right colours",
        "  30 pictures have captions, which are not used (--condition captions)",
        "  odd rows",
        "  no cache",
        "training on 20 images (cpu, float32)",
        "the loss was no number after 12 images: back to 10, at 0.5 of the rate (1 of 3);"
        " the files of that batch: b.png",
        "saved r/checkpoints/000000020 after 20 images",
        "next: nirvana generate r -n 16",
        "peak memory 2.0 GiB (planned: 1.0 GiB)",
    ]
    assert main(["train", "pets", "--out", "r", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_programs_read_a_json_line_an_event(asked: list[tuple[Any, ...]], capsys: Captured) -> None:
    assert main(["train", "pets", "--json"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert captured.err == ""
    assert [line["event"] for line in lines] == [
        "plan",
        "started",
        "step_done",
        "step_done",
        "snapshot_taken",
        "rolled_back",
        "saved",
        "finished",
    ]
    assert lines[0]["captioned"] == 30
    assert lines[0]["accepted"] == 40 and lines[0]["forecast"]["memory_bytes"] == 2**30
    assert lines[2]["step"] == 10
    assert lines[2]["images_per_second"] is None
    assert lines[6]["path"] == "r/checkpoints/000000020"


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
        (["--images", "-5"], "images must be 1 to"),
        (["--minutes", "0"], "minutes must be more than 0"),
        (["--minutes", "527040"], "at most 44640 (31 days)"),
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


@pytest.mark.parametrize(("there", "notes"), [(True, 1), (False, 2)])
def test_a_precision_that_is_only_emulated_here_is_said(
    there: bool, notes: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nirvana.train.device.has_bfloat16", lambda _: there)
    console = Console()
    with console.progress("training", 20, "images") as bar:
        command.follow(console, bar, Started(10, 20, "cpu", "bfloat16", 0))
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "bfloat16" in line]) == notes
    assert ("this cpu only emulates bfloat16, in which the training began: it is slower here" in lines) is not there
