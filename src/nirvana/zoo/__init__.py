"""Models that are part of the package: packed run folders, each with a card.

NAME/run.json, data.json, checkpoints/   a packed run folder (see `nirvana.train.pack`)
NAME/card.json, card.md, *.png           what it draws, where it comes from, how good it is
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nirvana.errors import unknown
from nirvana.files import Json, cache_folder, read_json

_HERE = Path(__file__).parent
CARD, TEXT = "card.json", "card.md"
_AGAIN = "install nirvana again"


@dataclass(frozen=True)
class Card:
    """What is said about a model in one line each; its page is `text`.

    draws: what its pictures are of; prompt: one to try first; needs: an extra it takes, or None; licence: of
    the weights; bytes: of all its files.
    """

    name: str
    draws: str
    size: str
    prompt: str
    needs: str | None
    licence: str
    trained: str
    bytes: int
    text: str

    @property
    def example(self) -> str:
        """The command to try first."""
        return f"nirvana generate {self.name} {shlex.quote(self.prompt)} -n 4"

    def to_json(self) -> dict[str, Json]:
        """All of it but the page, as JSON."""
        return {"example": self.example, **{name: value for name, value in vars(self).items() if name != "text"}}


def names() -> tuple[str, ...]:
    """The models that are here, in the order of their names."""
    return tuple(sorted(card.parent.name for card in _HERE.glob(f"*/{CARD}")))


def folder(name: str) -> Path:
    """The run folder of a model. Refused, with the names there are, where it is unknown."""
    if name not in names():
        raise unknown("model of the zoo", name, names())
    return _HERE / name


def card(name: str) -> Card:
    """The card of a model. Refused where it is unknown or damaged."""
    at = folder(name)
    said = {key: value for key, value in read_json(at / CARD, _AGAIN).items() if key in Card.__annotations__}
    size = sum(file.stat().st_size for file in at.rglob("*") if file.is_file())
    values = {**said, "name": name, "bytes": size, "text": (at / TEXT).read_text(encoding="utf-8")}
    return Card(**cast("dict[str, str]", values))  # pyright: ignore[reportArgumentType]


def is_shipped(run: Path) -> bool:
    """Whether the run at `run` is a model of the zoo."""
    return run.resolve().parent == _HERE.resolve()


def called(run: Path) -> str:
    """How users know the run at `run`: by its path, but a model of the zoo by its name."""
    return run.resolve().name if is_shipped(run) else str(run)


def beside(run: Path) -> Path:
    """Where to write what is made from the run at `run`: in it, but for a model of the zoo in the user's cache."""
    return cache_folder("zoo") / run.resolve().name if is_shipped(run) else run
