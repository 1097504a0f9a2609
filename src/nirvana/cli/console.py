"""What a command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nirvana.files import Json, json_line

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import TaskID

    from nirvana.cli.shown import Pictured

BETWEEN_PREVIEWS = 0.5
"""Seconds."""


@dataclass(frozen=True)
class Console:
    """quiet: no notes, no progress. json: results as JSON lines, and no text. debug: tracebacks.

    started: when the command began, on `time.perf_counter`.
    """

    quiet: bool = False
    json: bool = False
    debug: bool = False
    started: float = field(default_factory=time.perf_counter)

    def result(self, text: str, value: Mapping[str, Json]) -> None:
        """The result of a command: `text` for people, `value` with --json."""
        if self.json:
            self.emit(value)
        else:
            print(text, flush=True)

    def emit(self, value: Mapping[str, Json]) -> None:
        """One line of JSON."""
        print(json_line(value), flush=True)

    def note(self, text: str) -> None:
        """Something worth knowing that is not the result."""
        if not self.quiet and not self.json:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, what: str, total: int, unit: str, *, preview: bool = False) -> Generator[Bar]:
        """A bar with the time left, on a terminal; elsewhere, and with --quiet or --json, nothing.

        preview: above it the pictures that `Bar.update` is given, where the terminal has the colours for them.
        """
        if self.quiet or self.json or not sys.stderr.isatty():
            yield Bar(None, None)
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        from nirvana.cli.shown import Pictured, colourful

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[extra]}"),
            TimeRemainingColumn(),
        )
        rich = Rich(stderr=True)
        preview = preview and colourful(rich)
        # Drawing the pictures to the terminal takes time from making them.
        with Pictured(*columns, console=rich, refresh_per_second=2 if preview else 10) as progress:
            yield Bar(progress, progress.add_task(what, total=total, extra=""), preview)


@dataclass(eq=False)
class Bar:
    """A progress bar, or nothing where there is no terminal. preview: whether it shows pictures."""

    progress: Pictured | None
    task: TaskID | None
    preview: bool = False
    clock: Callable[[], float] = time.monotonic
    shown: float = -math.inf

    def update(
        self, done: int, extra: str = "", total: int | None = None, show: Callable[[], np.ndarray] | None = None
    ) -> None:
        """So much is done (of a new `total`, where it is given); `extra` stands beside it.

        show: the pictures there are by now, which are made only when they are to be seen, at most twice a second.
        """
        if self.progress is None or self.task is None:
            return
        self.progress.update(self.task, completed=done, extra=extra, total=total)
        if self.preview and show is not None and self.clock() - self.shown >= BETWEEN_PREVIEWS:
            self.progress.pictures = show()
            self.shown = self.clock()


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
