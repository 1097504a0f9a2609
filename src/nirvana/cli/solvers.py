"""`nirvana solvers`."""

from __future__ import annotations

from typing import cast

from nirvana.cli.console import Console
from nirvana.files import Json


def solvers(console: Console) -> None:
    """List the solvers: their order, what a step costs, and when to choose which.

    examples:
      nirvana solvers
      nirvana solvers --json
    """
    found = rows()
    console.result(_table(found), {"solvers": cast(Json, found)})


def rows() -> list[dict[str, Json]]:
    """What is known of each solver. calls: network calls of a step between two noise levels, null where it adapts."""
    from nirvana.diffusion.level import Level
    from nirvana.diffusion.named import SOLVERS

    inside = [Level.from_lam(0.0), Level.from_lam(1.0)]
    made = [(name, named, named()) for name, named in SOLVERS.items()]
    return [
        {
            "name": name,
            "family": named.family,
            "order": solver.order,
            "started_order": solver.started_order,
            "calls": solver.calls(inside),
            "stochastic": not solver.deterministic,
            "parameters": dict(named.parameters),
            "when": named.when,
        }
        for name, named, solver in made
    ]


def cells(row: dict[str, Json]) -> list[str]:
    """A row for people: name, order, calls a step, noise, when to choose it."""
    order, started = row["order"], row["started_order"]
    return [
        str(row["name"]),
        str(order) if order == started else f"{order} ({started})",
        "adaptive" if row["calls"] is None else str(row["calls"]),
        "noise" if row["stochastic"] else "",
        str(row["when"]),
    ]


def _table(found: list[dict[str, Json]]) -> str:
    lines = [["solver", "order", "calls", "", "when to choose it"], *map(cells, found)]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = ["  ".join([*map(str.ljust, line, widths), line[4]]) for line in lines]
    note = "order (where it starts itself), network calls a step; with noise: of mean and covariance. docs/solvers.md"
    return "\n".join([*text, note])
