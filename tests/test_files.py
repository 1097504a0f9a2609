"""A file is whole or not there: every call to the system fails in turn, and nothing is lost or left behind."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nirvana import files
from nirvana.errors import Refused

CALLS = ("open", "write", "fsync", "close", "replace", "makedirs", "mkdir", "ftruncate")
OLD, NEW = b"old" * 1000, b"new and longer" * 1000


class Faults:
    """Counts the calls of `os` that touch the disk and lets the k-th raise "no space left" (none where k is -1)."""

    def __init__(self, patch: pytest.MonkeyPatch, k: int, short: bool = False) -> None:
        self.count, self.k, self.short, self.failed = 0, k, short, ""
        for name in CALLS:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            turn, self.count = self.count, self.count + 1
            if turn != self.k:
                return real(*arguments, **options)
            self.failed = name
            if name == "write" and self.short:  # a full disk takes what fits before it says no
                real(arguments[0], bytes(arguments[1])[:3])
            if name == "close":  # a failing close has closed
                real(*arguments)
            raise OSError(errno.ENOSPC, "No space left on device")

        return call


def count_calls(action: Callable[[], object]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, -1)
        action()
    return faults.count


def fail_at(k: int, action: Callable[[], object], short: bool = False) -> str:
    """Run `action` with its k-th call failing; the name of that call. It must not be swallowed."""
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, k, short)
        with pytest.raises(OSError, match="No space left"):
            action()
    assert faults.failed
    return faults.failed


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def handles() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("short", [False, True])
def test_a_failing_call_leaves_the_old_file_or_the_new_one(tmp_path: Path, short: bool) -> None:
    path = tmp_path / "state.json"

    def write() -> None:
        files.write_bytes(path, NEW)

    path.write_bytes(OLD)
    calls = count_calls(write)
    assert path.read_bytes() == NEW
    open_before, failed = handles(), list[str]()
    for k in range(calls):
        path.write_bytes(OLD)
        failed.append(fail_at(k, write, short))
        renamed = "replace" in failed[:-1]
        assert path.read_bytes() == (NEW if renamed else OLD), failed
        assert names(tmp_path) == ["state.json"], failed
    assert failed[:5] == [
        "open",
        "write",
        "fsync",
        "close",
        "replace",
    ]  # the data is on the disk before it has the name
    assert "fsync" in failed[5:]  # and the name is made durable after
    assert handles() == open_before


def test_a_failing_call_leaves_no_half_folder(tmp_path: Path) -> None:
    path = tmp_path / "000000100"
    content = {"a.safetensors": NEW, "b.json": OLD}
    calls = count_calls(lambda: files.write_folder(path, content))
    assert {name: (path / name).read_bytes() for name in names(path)} == content
    renamed = False
    for k in range(calls):
        files.remove_folder(path)
        failed = fail_at(k, lambda: files.write_folder(path, content))
        assert names(tmp_path) == (["000000100"] if renamed else [])
        if renamed:
            assert {name: (path / name).read_bytes() for name in names(path)} == content
        else:
            files.write_folder(path, content)
        renamed = renamed or failed == "replace"
    assert renamed


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_folder_vanishes(tmp_path: Path, stop: type[BaseException]) -> None:
    with pytest.raises(stop), files.new_folder(tmp_path / "run") as temporary:  # noqa: PT012
        files.write_chunks(temporary / "a", [NEW])
        raise stop
    assert names(tmp_path) == []


def test_an_interrupt_during_a_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "a"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(path, NEW)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a"]


def test_data_reaches_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "a", list[tuple[str, object]]()
    real_sync, real_replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        seen.append(("fsync", os.readlink(f"/proc/self/fd/{handle}") if os.path.isdir("/proc/self/fd") else ""))
        real_sync(handle)

    def replace(source: Path, target: Path) -> None:
        seen.append(("replace", str(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_bytes(path, NEW)
    assert [name for name, _ in seen] == ["fsync", "replace", "fsync"]
    assert seen[2][1] in (str(tmp_path), "")


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data[:7])))
    files.write_bytes(tmp_path / "a", NEW)
    files.append_line(tmp_path / "b", "x" * 100)
    assert (tmp_path / "a").read_bytes() == NEW
    assert (tmp_path / "b").read_text() == "x" * 100 + "\n"


def test_written_size_and_digest_are_those_of_the_file(tmp_path: Path) -> None:
    written = files.replace_chunks(tmp_path / "a", [b"ab", memoryview(b"c")])
    assert written == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # FIPS 180-2's "abc"
    assert (tmp_path / "a").read_bytes() == b"abc"


@pytest.mark.parametrize("short", [False, True])
def test_a_failing_append_leaves_no_part_of_the_line(tmp_path: Path, short: bool) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("one\n")
    for k in range(count_calls(lambda: files.append_line(tmp_path / "other", "two", durable=True))):
        path.write_text("one\n")
        failed = fail_at(k, lambda: files.append_line(path, "two", durable=True), short)
        assert path.read_text() == ("one\ntwo\n" if failed == "close" else "one\n"), failed


def test_lines_are_appended_and_a_torn_one_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    files.repair_lines(path)  # nothing there yet
    files.append_line(path, '{"a": 1}')
    files.append_line(path, '{"a": "\u00e4"}', durable=True)
    with path.open("ab") as torn:
        torn.write(b'{"a": ')
    assert files.read_lines(path, "run again") == [{"a": 1}, {"a": "\u00e4"}]
    files.repair_lines(path)
    assert path.read_bytes().endswith('{"a": "\u00e4"}\n'.encode())
    whole = path.read_bytes()
    files.repair_lines(path)
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"a": 1}\nnot json\n{"a": 2}\n')
    with pytest.raises(Refused, match=r"events.jsonl is damaged in line 2; run again$"):
        files.read_lines(path, "run again")
    assert files.read_lines(tmp_path / "none", "run again") == []


def test_json_round_trip_and_what_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value: dict[str, files.Json] = {"a": [1, 2.5, None, True], "\u00fc": {"b": "\n"}}
    files.write_json(path, value)
    assert files.read_json(path, "x") == value
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(path, {"a": bad})
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.json_line({"a": bad})
    assert files.read_json(path, "x") == value
    assert "\n" not in files.json_line(value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "is missing"), (b'{"a": ', "is damaged"), (b"\xff", "is damaged"), (b"[1]", "no JSON object")],
)
def test_unreadable_json_is_refused_with_the_way_out(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match=rf"run.json .*{reason}.*; take another$"):
        files.read_json(path, "take another")


def test_a_sealed_file_notices_every_edit(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    value: dict[str, files.Json] = {"format_version": 1, "lr": 0.001, "names": ["a", "b"]}
    files.write_json(path, files.sealed(value))
    assert files.read_sealed(path, "x", newest=1) == value
    text = path.read_text()
    for old, new in (
        ("0.001", "0.002"),
        ('"a"', '"c"'),
        ('"lr"', '"rate"'),
        ('"format_version": 1', '"format_version": 0'),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(Refused, match=r"damaged or was edited .*; start anew$"):
            files.read_sealed(path, "start anew", newest=1)
    files.write_json(path, files.sealed({**value, "format_version": 2}))
    with pytest.raises(Refused, match=r"format version 2, .* up to 1; update nirvana$"):
        files.read_sealed(path, "x", newest=1)


def test_a_removed_folder_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_folder(tmp_path / "run", {"a": OLD, "b": NEW})

    def killed(*arguments: Any, **options: Any) -> None:
        if (tmp_path / "run").exists() or any(entry.name.startswith(files.TEMPORARY) for entry in tmp_path.iterdir()):
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None if not Path(path).exists() else killed())
    with pytest.raises(KeyboardInterrupt):
        files.remove_folder(tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run").exists()
    files.remove_temporaries(tmp_path)
    assert names(tmp_path) == []


def test_only_the_leftovers_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = 2**22 + 1  # above the largest process number
    mine, theirs = f"{files.TEMPORARY}{os.getpid()}-run", f"{files.TEMPORARY}{ended}-run"
    other = f"{files.TEMPORARY}{ended}-elsewhere"
    for name in (mine, theirs, other, "run"):
        (tmp_path / name).mkdir()
    files.remove_abandoned(tmp_path / "run")
    assert names(tmp_path) == sorted([mine, other, "run"])
    (tmp_path / f"{files.TEMPORARY}{ended}-a.png").write_bytes(OLD)
    files.remove_abandoned(tmp_path / "*")
    assert names(tmp_path) == sorted([mine, "run"])


def test_leftovers_are_removed_but_not_what_a_link_points_to(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a").write_bytes(OLD)
    (tmp_path / f"{files.TEMPORARY}1-link").symlink_to(kept)
    (tmp_path / f"{files.TEMPORARY}1-file").write_bytes(OLD)
    files.remove_temporaries(tmp_path)
    assert names(tmp_path) == ["kept"]
    assert (kept / "a").read_bytes() == OLD


def test_replacing_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    files.write_folder(path, {"old": OLD})
    with pytest.raises(OSError, match="not empty"):
        files.write_folder(path, {"new": NEW})
    assert names(path) == ["old"]
    with files.new_folder(path, replace=True) as temporary:
        files.write_chunks(temporary / "new", [NEW])
    assert names(path) == ["new"]
    assert names(tmp_path) == ["cache"]


def test_a_lock_is_held_once_and_freed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, "already training"):
        with pytest.raises(Refused, match=r"^already training$"), files.locked(path, "already training"):
            pass
        with pytest.raises(Refused), files.locked(path, "x"):
            pass
    with files.locked(path, "already training"):
        pass


def test_a_full_disk_is_explained(tmp_path: Path) -> None:
    with (
        pytest.raises(Refused, match=r"^cannot write .*run: no space left on the disk; free some$"),
        files.explained(tmp_path / "run", "free some"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(Refused, match=r"^cannot write /elsewhere: Permission denied; x$"),
        files.explained(tmp_path, "x"),
    ):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere")
