from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nirvana import __version__
from nirvana.cli import main as entry
from nirvana.cli import parse
from nirvana.cli.main import main
from nirvana.train import allocator

Captured = pytest.CaptureFixture[str]

WITHOUT_TORCH = """
import sys
from nirvana.cli.main import main
import nirvana
code = main({args})
heavy = sorted({{"torch", "numpy", "PIL", "rich", "tyro", "safetensors"}} & set(sys.modules))
print(code, heavy)
"""


def alone(args: list[str]) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH.format(args=args)], capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


def one_line(capsys: Captured) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("nirvana: ")
    return captured.err


def test_help_imports_nothing_heavy_and_lists_every_command() -> None:
    assert alone(["--help"]) == "0 []"
    for name, (_, line) in entry.COMMANDS.items():
        assert f"  {name} " in entry.help_text()
        assert line in entry.help_text()


def test_refusing_a_number_imports_no_torch() -> None:
    assert alone(["generate", "x", "--steps", "0"]) == "2 ['tyro']"


def test_help_of_every_command_has_examples(capsys: Captured) -> None:
    for name in entry.COMMANDS:
        assert main([*name.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert f"usage: nirvana {name}" in out
        assert f"  nirvana {name} " in out
        assert "--json" in out


def test_version_and_bare_call(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nirvana {__version__}\n"
    for args in ([], ["--help"], ["-h"], ["help"]):
        assert main(args) == 0
        assert capsys.readouterr().out == entry.help_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["genrate", "x"], "unknown command 'genrate'; did you mean 'generate'?"),
        (["--verison"], "unknown option '--verison'; did you mean '--version'?"),
        (["generate", "x", "--gudance", "3"], "unknown option '--gudance'; did you mean '--guidance'?"),
        (["generate", "x", "--sed=3"], "unknown option '--sed'; did you mean '--seed'?"),
        (["info", "x", "--jsno"], "did you mean '--json'?"),
        (["train", "x", "--form", "y"], "did you mean '--from'?"),
        (["train", "x", "-k"], "unknown option '-k'"),
        (["generate"], "MODEL is missing; see `nirvana generate --help`"),
        (["sheet", "x"], "--x FIELD=A,B,... is missing"),
        (["generate", "x", "y", "z"], "z is one argument too many"),
        (["generate", "x", "-n"], "-n/--n needs a value"),
        (["generate", "x", "-n", "two"], "-n/--n takes a whole number, got 'two'"),
        (["generate", "x", "--steps", "1.5"], "--steps takes a whole number, got '1.5'"),
        (["train", "x", "--minutes", "ten"], "--minutes takes a number, got 'ten'"),
    ],
)
def test_what_does_not_parse_is_one_line(capsys: Captured, args: list[str], message: str) -> None:
    assert main(args) == 2
    assert message in one_line(capsys)


def test_the_message_is_found_in_either_kind_of_box() -> None:
    unicode = "╭─ Value error ─╮\n│ Bad thing one │\n│ and two.      │\n│ ───────────── │\n│ For help      │\n"
    plain = " Value error  \n -------------\n  Bad thing one\n  and two.     \n  -------------\n  For help     \n"
    for box in (unicode, plain, "\x1b[31m" + unicode):
        assert parse._one_line(box, "x") == "Bad thing one and two; see `nirvana x --help`"
    need = "╭─ Required ─╮\n│ Missing from nirvana x: │\n│     MODEL  │\n│         help text │\n│ ── │\n"
    assert parse._one_line(need, "x") == "MODEL is missing; see `nirvana x --help`"


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(*_: Any) -> int:
        raise error

    monkeypatch.setattr(entry, "_run", broken)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "/x/y: no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "/x: permission denied"),
        (OSError(errno.EIO, "I/O error"), 1, "a bug of ours: OSError"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("k"), 1, "a bug of ours: KeyError: 'k'; run the same command with --debug"),
        (ValueError("two\nlines"), 1, "ValueError: two lines"),
    ],
)
def test_exit_codes(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    fail(monkeypatch, error)
    assert main(["info", "x"]) == code
    assert message in one_line(capsys)


def test_debug_shows_the_traceback(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, ValueError("deep"))
    assert main(["info", "x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_sigterm_is_ctrl_c(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(entry, "_run", terminated)
    assert main(["info", "x"]) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    assert main(["info", "x"]) == 130


def test_a_missing_model_is_one_line(capsys: Captured, tmp_path: Path) -> None:
    assert main(["info", str(tmp_path / "none"), "--json"]) == 2
    assert "is not there" in one_line(capsys)
    assert main(["info", str(tmp_path)]) == 2
    assert "no run folder" in one_line(capsys)
    assert json.dumps(sorted(os.listdir(tmp_path))) == "[]"


def test_a_command_keeps_the_memory_that_it_frees(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return 1

    monkeypatch.setattr(allocator, "_mallopt", lambda: mallopt)
    monkeypatch.delenv(allocator.VARIABLE, raising=False)
    assert main(["zoo"]) == 0
    assert asked == [(-4, 0), (-1, 2**31 - 1)]
    capsys.readouterr()
    monkeypatch.setenv(allocator.VARIABLE, "sistem")
    assert main(["zoo"]) == 2
    assert "did you mean 'system'" in one_line(capsys)
