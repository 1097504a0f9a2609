"""Byte-pair tokens: a text as numbers, by merges that are learnt from the captions themselves.

Nothing is ever out of reach: what no caption had falls back to its parts, in the end to its bytes; a byte that no
caption had is unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from nirvana.errors import Refused
from nirvana.files import Json

BYTES = 256
_WORDS = re.compile(r" ?\w+| ?[^\w\s]")
_MOST_WORD = 64
"""Bytes of a word that are merged; longer ones are cut there, so that no word takes for ever."""

Pair = tuple[int, int]


def plain(text: str) -> str:
    """`text` in Unicode's composed form, in lower case, with single spaces: what tokens are made of."""
    return " ".join(unicodedata.normalize("NFC", text).lower().split())


def words(text: str) -> list[bytes]:
    """The words and marks of a text, each with the space before it; the first word has one too."""
    return [
        whole[start : start + _MOST_WORD]
        for whole in (word.encode("utf-8", "replace") for word in _WORDS.findall(f" {plain(text)}"))
        for start in range(0, len(whole), _MOST_WORD)
    ]


@dataclass(frozen=True, eq=False)
class BytePairs:
    """Tokens 0..255 are bytes, 256 + k is the pair `merges[k]`; `seen` are those that occur in the captions.

    unknown: the token of a byte that is not; start: the one a text begins with.
    Source: Sennrich et al. 2016, algorithm 1, on bytes.
    """

    merges: tuple[Pair, ...]
    seen: frozenset[int]
    _ranks: Mapping[Pair, int] = field(init=False, repr=False)
    _known: dict[bytes, tuple[int, ...]] = field(init=False, repr=False, default_factory=dict[bytes, tuple[int, ...]])

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranks", {pair: BYTES + rank for rank, pair in enumerate(self.merges)})

    @property
    def unknown(self) -> int:
        """The token of what no caption had."""
        return BYTES + len(self.merges)

    @property
    def start(self) -> int:
        """The token that every text begins with."""
        return self.unknown + 1

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self.start + 1

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without `start`."""
        return [token for word in words(text) for token in self._word(word)]

    def shown(self, text: str) -> list[str]:
        """The tokens of a text as people read them, in the order of `ids`; parts of a character as \\xNN."""
        found: list[str] = []
        for word in words(text):
            at = 0
            for token in self._word(word):
                size = 1 if token == self.unknown else len(self.bytes_of(token))
                found.append(word[at : at + size].decode("utf-8", "backslashreplace"))
                at += size
        return found

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for."""
        if token < BYTES:
            return bytes([token])
        left, right = self.merges[token - BYTES]
        return self.bytes_of(left) + self.bytes_of(right)

    def _word(self, word: bytes) -> tuple[int, ...]:
        if word not in self._known:
            merged = self.merged(word)
            self._known[word] = tuple(part for token in merged for part in self.parts(token))
        return self._known[word]

    def merged(self, word: bytes) -> list[int]:
        """The merges applied in the order in which they were learnt."""
        tokens = list(word)
        while len(tokens) > 1:
            ranks = [self._ranks.get(pair, self.unknown) for pair in pairwise(tokens)]
            best = min(ranks)
            if best == self.unknown:
                break
            tokens = _joined(tokens, self.merges[best - BYTES], best)
        return tokens

    def parts(self, token: int) -> list[int]:
        """The token itself where a caption had it, else its parts, else `unknown`."""
        if token in self.seen:
            return [token]
        if token < BYTES:
            return [self.unknown]
        return [part for half in self.merges[token - BYTES] for part in self.parts(half)]

    def config(self) -> dict[str, Json]:
        """What `from_config` rebuilds it from (JSON)."""
        return {
            "merges": " ".join(f"{left}+{right}" for left, right in self.merges),
            "seen": " ".join(map(str, sorted(self.seen))),
        }

    @staticmethod
    def from_config(config: Mapping[str, object]) -> BytePairs:
        """The tokens that `config` described; Refused where they are damaged."""
        try:
            pairs = [pair.split("+") for pair in str(config["merges"]).split()]
            merges = tuple((int(left), int(right)) for left, right in pairs)
            seen = frozenset(map(int, str(config["seen"]).split()))
        except (KeyError, ValueError) as error:
            raise Refused(f"the tokens of the model's description are damaged ({error})") from None
        if any(max(pair) >= BYTES + rank or min(pair) < 0 for rank, pair in enumerate(merges)):
            raise Refused("the tokens of the model's description are damaged (a merge of what comes later)")
        if not all(0 <= token < BYTES + len(merges) for token in seen):
            raise Refused("the tokens of the model's description are damaged (a token that is none)")
        return BytePairs(merges, seen)


def learn(texts: Iterable[str], merges: int) -> BytePairs:
    """The tokens of a caption set: the most frequent pair of neighbours becomes a token, `merges` times at most.

    Pairs that occur once are left alone. Equal counts: the pair of the smaller numbers first.
    """
    return extended(BytePairs((), frozenset()), texts, merges)


def extended(known: BytePairs, texts: Iterable[str], merges: int) -> BytePairs:
    """`known` with tokens for what the captions have beside: its bytes, and `merges` more pairs of neighbours at most.

    The tokens of `known` keep their numbers, but for `unknown` and `start`, and what it read without unknown bytes and
    new pairs is read as before.
    """
    counts = Counter(word for text in texts for word in words(text))
    spelled = [known.merged(word) for word in counts]
    often = list(counts.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for at, tokens in enumerate(spelled):
        _count(tokens, often[at], at, pairs, where)
    found: list[Pair] = []
    while len(found) < merges and pairs:
        pair, most = max(pairs.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
        if most < 2:
            break
        for at in sorted(where[pair]):
            _count(spelled[at], -often[at], at, pairs, where)
            spelled[at] = _joined(spelled[at], pair, known.unknown + len(found))
            _count(spelled[at], often[at], at, pairs, where)
        del pairs[pair], where[pair]
        found.append(pair)
    found_in = {token for tokens in spelled for token in tokens}
    new = {token for token in found_in if token < BYTES or token >= known.unknown}
    # A pair of the known ones that their captions did not have still falls into its parts: these must be there.
    odd = {token for token in found_in - new if known.unknown in known.parts(token)}
    parts = {byte for token in odd for byte in known.bytes_of(token)}
    return BytePairs((*known.merges, *found), known.seen | new | parts)


def _count(tokens: list[int], often: int, at: int, pairs: Counter[Pair], where: defaultdict[Pair, set[int]]) -> None:
    """Add the pairs of a word to the counts (or take them away again, where `often` is negative)."""
    for pair in pairwise(tokens):
        pairs[pair] += often
        where[pair].add(at)


def _joined(tokens: list[int], pair: Pair, into: int) -> list[int]:
    """`tokens` with every occurrence of `pair` replaced, from the left."""
    result: list[int] = []
    at = 0
    while at < len(tokens):
        if tuple(tokens[at : at + 2]) == pair:
            result.append(into)
            at += 2
        else:
            result.append(tokens[at])
            at += 1
    return result
