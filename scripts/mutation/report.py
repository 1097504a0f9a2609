"""The score: what was killed, and why the others are no bugs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .mutants import Mutant
from .project import NamedBug

TARGET = 0.97
"""The least part of the sample that is killed."""


@dataclass(frozen=True)
class Result:
    """How the tests of one mutant ended."""

    key: str
    end: str
    killer: str
    said: str
    seconds: float

    @property
    def alive(self) -> bool:
        """Every test passed."""
        return self.end == "passed"


@dataclass(frozen=True)
class Report:
    """All results, by the key of the mutant, and the reasons of the equivalent ones by (file, line, mutant's line)."""

    named: Sequence[NamedBug]
    picked: Sequence[Mutant]
    results: Mapping[str, Result]
    reasons: Mapping[tuple[str, str, str], str]

    def reason(self, mutant: Mutant) -> str | None:
        """Why no test can tell the mutant from the source."""
        return self.reasons.get((mutant.file, mutant.before, mutant.after))

    @cached_property
    def survivors(self) -> list[Mutant]:
        """The mutants of the sample that every test lets pass."""
        return [m for m in self.picked if self.results[m.key].alive]

    @cached_property
    def unexplained(self) -> list[Mutant]:
        """The survivors for which no reason is written down."""
        return [m for m in self.survivors if self.reason(m) is None]

    @cached_property
    def not_equivalent(self) -> list[Mutant]:
        """The mutants said to be equivalent that a test kills: the reason is wrong."""
        return [m for m in self.picked if not self.results[m.key].alive and self.reason(m) is not None]

    @cached_property
    def named_alive(self) -> list[NamedBug]:
        """The named bugs that every test lets pass."""
        return [bug for bug in self.named if self.results[bug.mutant.key].alive]

    @property
    def killed(self) -> int:
        """How many of the sample some test kills."""
        return len(self.picked) - len(self.survivors)

    @property
    def score(self) -> float:
        """The part of the sample that is killed; the equivalent ones count as alive."""
        return self.killed / max(1, len(self.picked))

    @property
    def passed(self) -> bool:
        """Every named bug is killed, the score reaches the target, and every survivor has a reason that holds."""
        wrong = self.named_alive or self.unexplained or self.not_equivalent
        return not wrong and (self.score >= TARGET or not self.picked)

    def lines(self) -> Iterator[str]:
        """The report for the terminal: a line for each survivor, and the score."""
        for bug in self.named:
            result = self.results[bug.mutant.key]
            yield f"named    {'ALIVE' if result.alive else 'killed'}  {bug.name}  {result.killer or result.said}"
        for m in self.survivors:
            why = self.reason(m) or f"ALIVE {self.results[m.key].said}"
            yield f"survived {m.key} {m.file}:{m.line} {m.kind}: `{m.before}` -> `{m.after}`  ({why})"
        for m in self.not_equivalent:
            yield f"WRONGLY CALLED EQUIVALENT {m.file}:{m.line}: `{m.after}` fails {self.results[m.key].killer}"
        explained = len(self.survivors) - len(self.unexplained)
        yield f"named bugs: {len(self.named) - len(self.named_alive)} of {len(self.named)} killed"
        yield (
            f"mutants: {self.killed} of {len(self.picked)} killed ({self.score:.1%}), {explained} equivalent, "
            f"{len(self.unexplained)} alive: {'passed' if self.passed else 'FAILED'}"
        )


def markdown(report: Report, population: int, seed: int) -> str:
    """The score as a section of the page."""
    rows = [
        f"{report.killed} of {len(report.picked)} mutants are killed ({report.score:.1%}), a sample of the "
        f"{population} that `scripts/mutation` finds (seed {seed}); {len(report.named) - len(report.named_alive)} of "
        f"{len(report.named)} named bugs are killed.",
        "",
        "| named bug | killed by |",
        "|---|---|",
    ]
    rows += [f"| {bug.name} | {_test_name(report.results[bug.mutant.key])} |" for bug in report.named]
    rows += ["", "| file | mutants | killed | equivalent | alive |", "|---|---|---|---|---|"]
    for file in sorted({m.file for m in report.picked}):
        of_file = [m for m in report.picked if m.file == file]
        survived = [m for m in report.survivors if m.file == file]
        alive = [m for m in report.unexplained if m.file == file]
        rows.append(
            f"| {file.removeprefix('src/nirvana/')} | {len(of_file)} | {len(of_file) - len(survived)} | "
            f"{len(survived) - len(alive)} | {len(alive)} |"
        )
    if report.survivors:
        rows += ["", "| survivor | becomes | why it is equivalent |", "|---|---|---|"]
        for m in report.survivors:
            rows.append(f"| `{_cell(m.before)}` | `{_cell(m.after)}` | {report.reason(m) or '**alive**'} |")
    return "\n".join(rows)


def _test_name(result: Result) -> str:
    return "**alive**" if result.alive else f"`{_cell(result.killer.removeprefix('tests/'))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def write_between(page: Path, mark: str, text: str) -> None:
    """Put `text` between `<!-- mark -->` and `<!-- /mark -->` of a page. ValueError where a page does not have them."""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    if not page.exists():
        page.write_text(f"# Verification\n\n{first}\n{last}\n")
    before = page.read_text()
    if before.count(first) != 1 or before.count(last) != 1:
        raise ValueError(f"{page} needs the marks {first} and {last}, once each")
    page.write_text(
        re.sub(f"{re.escape(first)}.*?{re.escape(last)}", lambda _: f"{first}\n{text}\n{last}", before, flags=re.DOTALL)
    )
