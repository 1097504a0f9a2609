"""`nirvana zoo`."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.zoo import Card, card, folder, names


def zoo(
    console: Console,
    model: Annotated[Positional[str | None], arg(metavar="[NAME]", help_behavior_hint="")] = None,
) -> None:
    """List the models that come with nirvana, or show the card of one.

    A name of the list stands wherever a command takes a run: in `nirvana generate NAME`, or behind --from.

    examples:
      nirvana zoo
      nirvana zoo shapes
      nirvana generate shapes "a large red circle" -n 4

    Args:
        model: which card to show (the list of all)
    """
    if model is not None:
        shown, pictures = card(model), sorted(map(str, folder(model).glob("*.[ps][nv]g")))
        listed = f"\n\npictures of the card: {', '.join(pictures)}" if pictures else ""
        console.result(
            shown.text.rstrip() + listed, {**shown.to_json(), "path": str(folder(model)), "pictures": pictures}
        )
        return
    cards = [card(name) for name in names()]
    if not cards and not console.json:
        console.note("no model comes with this version; `nirvana train shapes --minutes 30` makes one")
        return
    console.result(_table(cards), {"models": [one.to_json() for one in cards]})


def _table(cards: list[Card]) -> str:
    head = ("name", "draws", "size", "MB", "needs", "licence", "trained")
    rows = [(c.name, c.draws, c.size, f"{c.bytes / 1e6:.1f}", c.needs or "-", c.licence, c.trained) for c in cards]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join([*lines, "", "try:", *(f"  {one.example}" for one in cards)])
