"""Encoders of texts: token states, and which of them count. This one is small and learns with the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nirvana.condition.reading import Reading, chunks
from nirvana.condition.tokens import BytePairs, extended, learn
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.nn.transformer import TokenTransformer

Encoded = tuple[Float[Tensor, "b l w"], Bool[Tensor, "b l"]]
"""Token states, and True where a token counts."""

WIDTH, DEPTH, MERGES = 128, 2, 512
"""Of an encoder that is trained jointly."""

MOST_PLACES = 96
"""Tokens of a caption that are read at once, at most."""


@runtime_checkable
class TextEncoder(Protocol):
    """What turns texts into token states."""

    @property
    def width(self) -> int:
        """Of a state."""
        ...

    @property
    def places(self) -> int:
        """The most states of a text of the training; a longer one has more."""
        ...

    def __call__(self, texts: Sequence[str]) -> Encoded:
        """The states of the tokens of each text, padded to the longest."""
        ...

    def read(self, text: str) -> Reading:
        """The tokens of a text."""
        ...

    def config(self) -> dict[str, Json]:
        """What it is rebuilt from (JSON)."""
        ...


class JointEncoder(nn.Module):
    """Byte-pair tokens learnt from the captions, and a transformer that learns with the network: no download.

    tokens: the byte pairs; places: tokens that are read at once, the start token among them.
    """

    def __init__(self, tokens: BytePairs, width: int = WIDTH, depth: int = DEPTH, places: int = MOST_PLACES) -> None:
        super().__init__()
        if min(width, depth, places - 1) < 1:
            raise Refused(
                f"a text encoder needs width, depth >= 1 and places >= 2, got width={width}, depth={depth},"
                f" places={places}"
            )
        self.tokens, self.width, self.depth, self.places = tokens, width, depth, places
        self.network = TokenTransformer(tokens.size, width, depth, places)

    def forward(self, texts: Sequence[str]) -> Encoded:
        """The states of each text's pieces, one behind the other."""
        pieces = [chunks(self.tokens.ids(text), self.places - 1) for text in texts]
        flat = [[self.tokens.start, *piece] for text in pieces for piece in text]
        lengths = torch.tensor([len(piece) for piece in flat])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.int64)
        ids[mask] = torch.tensor([token for piece in flat for token in piece])
        device = self.network.places.weight.device
        ids, mask = ids.to(device), mask.to(device)
        states = self.network(ids, mask)
        if len(flat) == len(texts):
            return states, mask
        totals = [sum(len(piece) + 1 for piece in text) for text in pieces]
        return padded(states[mask].split(totals))

    def read(self, text: str) -> Reading:
        """The tokens of a text, without the start token."""
        ids = self.tokens.ids(text)
        unknown = tuple(token == self.tokens.unknown for token in ids)
        return Reading(text, tuple(self.tokens.shown(text)), unknown, self.places - 1, 1)

    def config(self) -> dict[str, Json]:
        """What `encoder_from_config` rebuilds it from (JSON)."""
        return {
            "kind": "joint",
            "width": self.width,
            "depth": self.depth,
            "places": self.places,
            "tokens": self.tokens.config(),
        }


def joint_config(texts: Iterable[str], merges: int = MERGES) -> dict[str, Json]:
    """The description of an encoder for a caption set: its tokens, and places for its longest caption."""
    distinct = list(dict.fromkeys(texts))
    tokens = learn(distinct, merges)
    longest = max((len(tokens.ids(text)) for text in distinct), default=1)
    places = min(max(longest, 1) + 1, MOST_PLACES)
    return {"kind": "joint", "width": WIDTH, "depth": DEPTH, "places": places, "tokens": tokens.config()}


def joint_extended(config: Mapping[str, Json], texts: Iterable[str], merges: int = MERGES) -> Mapping[str, Json]:
    """The description of such an encoder for other captions as well: the same, where it reads all of them whole.

    Else with more tokens, and places for the longest caption.
    """
    distinct = list(dict.fromkeys(texts))
    known, places = BytePairs.from_config(cast("Mapping[str, object]", config["tokens"])), cast(int, config["places"])
    if all(known.unknown not in ids and len(ids) < places for ids in map(known.ids, distinct)):
        return config
    tokens = extended(known, distinct, merges)
    longest = max(len(tokens.ids(text)) for text in distinct)
    return {**config, "places": max(places, min(longest + 1, MOST_PLACES)), "tokens": tokens.config()}


def extended_table(
    table: Float[Tensor, "n w"], known: Mapping[str, Json], now: Mapping[str, Json]
) -> Float[Tensor, "m w"] | None:
    """The states of the tokens of the encoder `now`, which extends `known` with the states `table`; None: it does not.

    A new pair begins as the mean of its halves.
    """
    before, after = (BytePairs.from_config(cast("Mapping[str, object]", one["tokens"])) for one in (known, now))
    if after.merges[: len(before.merges)] != before.merges:
        return None
    rows = list(table[: before.unknown])
    for left, right in after.merges[len(before.merges) :]:
        rows.append((rows[left] + rows[right]) / 2)
    return torch.stack([*rows, *table[before.unknown :]])


def joint_from_config(config: Mapping[str, object]) -> JointEncoder:
    """The encoder that `config()` described, with fresh weights."""
    sizes = {name: config.get(name) for name in ("width", "depth", "places")}
    if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes.values()):
        raise Refused(f"the text encoder needs whole numbers width, depth and places, got {sizes}")
    tokens = config.get("tokens")
    if not isinstance(tokens, Mapping):
        raise Refused(f"the text encoder needs its tokens, got {tokens!r}")
    return JointEncoder(BytePairs.from_config(cast("Mapping[str, object]", tokens)), **cast("dict[str, int]", sizes))


def padded(rows: Sequence[Float[Tensor, "_ w"]]) -> Encoded:
    """Rows of states side by side: (b, l, w) with zeros behind each, l the longest; the mask."""
    states = pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows], device=states.device)
    return states, torch.arange(states.shape[1], device=states.device) < lengths[:, None]
