"""`nirvana compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console

if TYPE_CHECKING:
    from nirvana.evaluate.compare import Row


def compare(
    console: Console,
    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN RUN...")],
) -> None:
    """Put evaluated runs side by side, and say which differences exceed the error.

    examples:
      nirvana compare runs/flowers runs/flowers-2
      nirvana compare runs/flowers guidance-1

    Args:
        runs: run folders that were evaluated, or folders that `nirvana evaluate --out` wrote
    """
    from nirvana.evaluate.compare import compare as compared
    from nirvana.evaluate.scores import Evaluation
    from nirvana.generate.model import find
    from nirvana.zoo import beside

    evaluations: dict[str, Evaluation] = {}
    for run in runs:
        evaluations[run] = Evaluation.read(beside(find(run)))
    rows = compared(evaluations)
    text = "\n".join(_lines(list(evaluations), rows))
    console.result(text, {"runs": list(evaluations), "rows": [row.to_json() for row in rows]})


def _lines(names: list[str], rows: list[Row]) -> list[str]:
    from nirvana.evaluate.report import number

    cells = [["score", *(Path(name).name or name for name in names), ""]]
    for row in rows:
        shown: list[str] = []
        for place, score in enumerate(row.scores):
            half = "" if score is None or score.interval is None else _half(score.interval.low, score.interval.high)
            star = " *" if place in row.best else ""
            shown.append("-" if score is None else f"{number(score.value)}{half}{star}")
        mark = {"lower": " (lower)", "higher": " (higher)"}.get(row.better, "")
        cells.append([row.name + mark, *shown, row.verdict])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _half(low: float, high: float) -> str:
    from nirvana.evaluate.report import number

    return f" +- {number((high - low) / 2)}"
