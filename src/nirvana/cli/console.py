"""What a command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nirvana.files import Json, json_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
    def progress(self, what: str, total: int, unit: str) -> Generator[Bar]:
        """A bar with the time left, on a terminal; elsewhere, and with --quiet or --json, nothing."""
        if self.quiet or self.json or not sys.stderr.isatty():
            yield Bar(None, None)
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[extra]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Rich(stderr=True)) as progress:
            yield Bar(progress, progress.add_task(what, total=total, extra=""))


@dataclass(frozen=True, eq=False)
class Bar:
    """A progress bar, or nothing where there is no terminal."""

    progress: Progress | None
    task: TaskID | None

    def update(self, done: int, extra: str = "", total: int | None = None) -> None:
        """So much is done (of a new `total`, where it is given); `extra` stands beside it."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, extra=extra, total=total)


def duration(seconds: float) -> str:
    """Seconds for people: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
