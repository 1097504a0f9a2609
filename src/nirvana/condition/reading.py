"""What an encoder makes of a text before it is encoded: nothing is cut off in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from nirvana.files import Json

T = TypeVar("T")

MOST_CHUNKS = 8
"""A text is read in so many pieces at most; what lies behind them is dropped, and said to be."""


@dataclass(frozen=True)
class Reading:
    """The tokens of a text as people read them; `unknown` are those no caption of the training, or vocabulary, had.

    window: tokens that are read at once. A longer text is read in pieces that do not know of each other. around: tokens
    that the encoder adds to each piece.
    """

    text: str
    tokens: tuple[str, ...]
    unknown: tuple[bool, ...]
    window: int
    around: int

    @property
    def states(self) -> int:
        """How many token states the network gets."""
        return self.kept + self.around * max(self.chunks, 1)

    @property
    def kept(self) -> int:
        """How many tokens the model sees."""
        return min(len(self.tokens), MOST_CHUNKS * self.window)

    @property
    def chunks(self) -> int:
        """How many pieces they are read in; 0 where there are none."""
        return -(-self.kept // self.window)

    @property
    def whole(self) -> bool:
        """Whether all of it is read at once."""
        return len(self.tokens) <= self.window

    def sentence(self) -> str | None:
        """What deserves to be said of it; None where all of it is known and read at once."""
        said: list[str] = []
        if not self.tokens:
            said.append("it is empty: pictures as without a prompt")
        if self.chunks > 1:
            said.append(f"it is read in {self.chunks} pieces of {self.window} tokens, which do not know of each other")
        if self.kept < len(self.tokens):
            said.append(f"{len(self.tokens) - self.kept} of its {len(self.tokens)} tokens are dropped")
        if any(self.unknown):
            some = [token for token, strange in zip(self.tokens, self.unknown, strict=True) if strange]
            shown = ", ".join(f"'{token.strip()}'" for token in dict.fromkeys(some[:8]))
            more = ", …" if len(some) > 8 else ""
            said.append(f"{len(some)} tokens are unknown to the model ({shown}{more})")
        return "; ".join(said) or None

    def to_json(self) -> dict[str, Json]:
        """For `--json` and the record of a picture."""
        return {
            "tokens": len(self.tokens),
            "kept": self.kept,
            "unknown": sum(self.unknown[: self.kept]),
            "chunks": self.chunks,
            "window": self.window,
        }


def chunks(tokens: Sequence[T], window: int) -> list[list[T]]:
    """The tokens in pieces of `window`, `MOST_CHUNKS` at most; one empty piece where there are none."""
    kept = tokens[: MOST_CHUNKS * window]
    return [list(kept[at : at + window]) for at in range(0, max(len(kept), 1), window)]
