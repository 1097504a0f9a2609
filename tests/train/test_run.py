"""Run folders: made whole, opened only when sound, continued only by the same command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nirvana.errors import Refused
from nirvana.files import sealed
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder
from train.tiny import MANIFEST, PLAN, go, open_run


def test_create_and_open(tmp_path: Path) -> None:
    run = open_run(tmp_path / "a" / "run")
    again = RunFolder.open(run.path)
    assert again.plan == PLAN and again.config == {"size": 8, "recipe": "tiny"} and again.data == MANIFEST
    assert again.model_spec == {"kind": "linear"} and again.info["command"] == "train x"
    assert again.latest() is None and again.scheduled() == [] and again.snapshots() == [] and not again.finished
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]


def test_reading_a_run_imports_no_torch(tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    code = f"import sys; from nirvana.train.run import RunFolder; RunFolder.open({str(tmp_path / 'run')!r}).latest(); "
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True)


def rewrite(name: str, change: Callable[[dict[str, Any]], object], *, seal: bool) -> Callable[[Path], None]:
    def act(run: Path) -> None:
        value = json.loads((run / name).read_text())
        change(value)
        value.pop("digest", None) if seal else None
        (run / name).write_text(json.dumps(sealed(value) if seal else value))

    return act


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "run.json").unlink(), r"no run folder \(it has no run\.json\)"),
        (lambda run: (run / "run.json").write_text("{"), r"run\.json is damaged.*--fresh"),
        (lambda run: (run / "run.json").write_text("[1]"), r"run\.json is damaged.*--fresh"),
        (lambda run: (run / "run.json").write_bytes(b"\xff\xfe"), r"run\.json is damaged.*--fresh"),
        (rewrite("run.json", lambda v: v["plan"].update(batch=7), seal=False), r"run\.json is damaged or was edited"),
        (rewrite("run.json", lambda v: v.update(format_version=2), seal=True), r"format version 2.*up to 1.*update"),
        (rewrite("run.json", lambda v: v["plan"].update(new=7), seal=True), r"run\.json is damaged"),
        (rewrite("run.json", lambda v: v.pop("model"), seal=True), r"run\.json is damaged"),
        (rewrite("data.json", lambda v: v.update(source="x"), seal=False), r"data\.json is damaged or was edited"),
        (lambda run: (run / "data.json").unlink(), r"data\.json is missing"),
        (lambda run: (run / "events.jsonl").write_text('{"event": "started"}\n{oops\n'), r"events\.jsonl.*line 2"),
        (lambda run: (run / "metrics.jsonl").write_text("oops\n"), r"metrics\.jsonl.*line 1"),
    ],
)
def test_damage_is_refused(damage: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    open_run(tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(Refused, match=says) as refusal:
        list(go(RunFolder.open(tmp_path / "run").path))
    assert str(tmp_path / "run") in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").touch()
    (tmp_path / "file").touch()
    for name, says in (("nothing", "not there"), ("file", "no folder"), ("pictures", "no run folder")):
        with pytest.raises(Refused, match=says):
            RunFolder.open(tmp_path / name)
    for name in ("file", "pictures"):
        for fresh in (False, True):
            with pytest.raises(Refused, match="exists and is no run folder"):
                RunFolder.open_or_create(tmp_path / name, {}, PLAN, {}, {}, "", fresh=fresh)
    assert (tmp_path / "pictures" / "a.png").exists()
    (tmp_path / "empty").mkdir()
    assert open_run(tmp_path / "empty").plan == PLAN


def test_only_the_same_command_continues(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    config: dict[str, Any] = {"size": 8, "recipe": "tiny"}
    other = TrainPlan(images=999)
    same = RunFolder.open_or_create(run.path, dict(reversed(config.items())), other, MANIFEST, {}, "")
    assert same.plan == PLAN, "a plan is made once, then it is the run's"
    for changed, data, says in (
        ({**config, "size": 16}, MANIFEST, "its size is 8, not 16"),
        ({**config, "new": 1}, MANIFEST, "its new is None, not 1"),
        (config, {**MANIFEST, "source": "elsewhere"}, "its data have changed"),
    ):
        with pytest.raises(Refused, match=f"{re.escape(says)}.*--fresh"):
            RunFolder.open_or_create(run.path, changed, PLAN, data, {}, "")
    with pytest.raises(Refused, match=r"is a run already.*--fresh"):
        RunFolder.create(run.path, config, PLAN, MANIFEST, {}, "")


def test_fresh_starts_anew(tmp_path: Path) -> None:
    events = go(tmp_path / "run")
    next(events)
    with pytest.raises(Refused, match="a training is going on"):
        RunFolder.create(tmp_path / "run", {}, PLAN, {}, {}, "", fresh=True)
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    fresh = RunFolder.open_or_create(tmp_path / "run", {"size": 9}, PLAN, {}, {}, "", fresh=True)
    assert fresh.config == {"size": 9} and fresh.latest() is None and fresh.events() == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_half_written_lines_are_dropped(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run")
    run.log_event("one", {"text": "two\nlines"})
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"event": "rolled_ba')
    assert [event["event"] for event in run.events()] == ["one"]
    run.clean()
    run.log_event("two", {})
    assert [event["event"] for event in run.events()] == ["one", "two"] and run.events()[0]["text"] == "two\nlines"
