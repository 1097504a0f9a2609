"""Pictures in a terminal: every pixel in its place and colour, no larger than the room, and not too often."""

from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from rich.console import Console as Rich

from nirvana.cli.console import BETWEEN_PREVIEWS, Bar, Console
from nirvana.cli.main import main
from nirvana.cli.shown import UPPER, HalfBlocks, Pictured, fitted
from nirvana.modality import mosaic

RNG = np.random.default_rng(1)
CELL = re.compile(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m([^\x1b]*)\x1b")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def pictures(n: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def test_each_character_holds_the_pixel_above_and_the_one_below() -> None:
    shown, out = pictures(1, 6, 5), io.StringIO()
    rich = Rich(file=out, force_terminal=True, color_system="truecolor", width=5, height=20, legacy_windows=False)
    rich.print(HalfBlocks(shown), end="")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    for y, line in enumerate(lines):
        cells = CELL.findall(line)
        assert "".join(cell[6] for cell in cells) == UPPER * 5
        for x, cell in enumerate(cells):
            assert [int(value) for value in cell[:6]] == [*shown[0, 2 * y, x], *shown[0, 2 * y + 1, x]]


@pytest.mark.parametrize(
    ("n", "height", "width", "expected"),
    [
        (1, 28, 28, (28, 28)),
        (1, 8, 8, (40, 40)),
        (4, 8, 8, (32, 32)),  # two by two, each doubled
        (1, 400, 800, (40, 80)),
        (1, 300, 30, (40, 4)),
        (16, 28, 28, (40, 80)),  # three rows of six
        (8, 28, 28, (40, 80)),  # two rows of four
    ],
)
def test_they_are_as_large_as_there_is_room(n: int, height: int, width: int, expected: tuple[int, int]) -> None:
    assert fitted(pictures(n, height, width, 1), columns=80, lines=20).shape == (*expected, 3)


def test_whole_pixels_are_squares_side_by_side() -> None:
    some = pictures(2, 3, 4)
    shown = fitted(some, columns=16, lines=3)
    assert np.array_equal(shown, np.repeat(np.repeat(mosaic(some, 2), 2, 0), 2, 1))


def test_they_change_at_most_twice_a_second_and_are_made_only_to_be_seen() -> None:
    now, made = [10.0], list[int]()
    progress = Pictured(console=Rich(file=io.StringIO(), force_terminal=True))
    bar = Bar(progress, progress.add_task("drawing", total=9), preview=True, clock=lambda: now[0])

    def show() -> np.ndarray:
        made.append(1)
        return pictures(1, 2, 2)

    for at, times in ((10.0, 1), (10.1, 1), (10.0 + BETWEEN_PREVIEWS - 0.01, 1), (10.0 + BETWEEN_PREVIEWS, 2)):
        now[0] = at
        bar.update(1, show=show)
        assert len(made) == times
    Bar(progress, bar.task, clock=lambda: 99.0).update(2, show=show)
    Bar(None, None, preview=True).update(2, show=show)
    assert len(made) == 2 and progress.tasks[0].completed == 2


@pytest.mark.parametrize(
    ("terminal", "environment", "asked", "seen"),
    [
        (Terminal, {"COLORTERM": "truecolor"}, True, True),
        (Terminal, {"COLORTERM": "truecolor"}, False, False),
        (Terminal, {"COLORTERM": "", "TERM": "dumb"}, True, False),
        (Terminal, {"COLORTERM": "truecolor", "NO_COLOR": "1"}, True, False),
        (io.StringIO, {"COLORTERM": "truecolor"}, True, False),
    ],
)
def test_only_a_terminal_with_colours_shows_them(
    terminal: type[io.StringIO],
    environment: dict[str, str],
    asked: bool,
    seen: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    out = terminal()
    monkeypatch.setattr(sys, "stderr", out)
    with Console().progress("drawing", 2, "steps", preview=asked) as bar:
        bar.update(1, show=lambda: pictures(1, 4, 4))
        if bar.progress is not None:
            bar.progress.refresh()
    assert (UPPER in out.getvalue()) is seen
    assert ("drawing" in out.getvalue()) is (terminal is Terminal)


def test_commands_that_draw_have_a_preview_that_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "inpaint", "outpaint", "vary", "blend"):
        assert main([command, "--help"]) == 0
        assert "--no-preview" in capsys.readouterr().out
