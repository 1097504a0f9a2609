"""Texts as vectors of their words: features that need no network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

MOST = 2_000
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, eq=False)
class Words:
    """Texts -> log(n/df) for each word they have, as unit vectors. Make one with `of`.

    places: of the words; weights: log(n/df), df of n texts have the word.
    Source: inverse document frequency, Sparck Jones 1972.
    """

    places: Mapping[str, int]
    weights: Float64[np.ndarray, "e"]

    @staticmethod
    def of(texts: Sequence[str]) -> Words:
        """The `MOST` most frequent words of `texts` that more than one and not all of them have.

        ValueError where there is no such word.
        """
        counts = Counter(word for text in texts for word in set(words(text)))
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        kept = [(word, count) for word, count in ranked if 1 < count < len(texts)][:MOST]
        if not kept:
            raise ValueError(f"{len(texts)} texts share no word, so they cannot be compared by words")
        weights = np.log(len(texts) / np.array([count for _, count in kept], np.float64))
        return Words({word: place for place, (word, _) in enumerate(kept)}, weights)

    def __call__(self, texts: Sequence[str]) -> Float64[np.ndarray, "n e"]:
        """One row a text; a text of unknown words is 0."""
        found = np.zeros((len(texts), len(self.weights)))
        for row, text in zip(found, texts, strict=True):
            for word in words(text):
                if word in self.places:
                    row[self.places[word]] = self.weights[self.places[word]]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def words(text: str) -> list[str]:
    """Its words, in small letters."""
    return _WORD.findall(text.lower())
