"""What is said of a picture in training: one of its captions, in one of their wordings."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from nirvana.data.dataset import Captions
from nirvana.data.order import CAPTION, TAGS, raw_words
from nirvana.errors import Refused

PLACE = "{}"
"""What a template has in the place of the caption."""

SHUFFLES = 8
"""Orders of the tags of a caption: few enough to be encoded once, many enough to teach that order says nothing."""


@dataclass(frozen=True)
class Wording:
    """How captions are varied: put into templates ("a photo of {}"), and their tags (between commas) shuffled.

    There are finitely many wordings of a picture, so that they can be encoded beforehand; which of them a sample shows
    is a function of (seed, sample index), and which orders of tags there are is one of the caption. Refused: a template
    without its {}.
    """

    templates: tuple[str, ...] = (PLACE,)
    shuffle_tags: bool = False

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count(PLACE) != 1:
                raise Refused(f"the template '{template}' needs {PLACE} once, where the caption goes")
        if not self.templates:
            raise Refused(f"at least one template is needed; {PLACE} leaves captions as they are")

    def wordings(self, captions: Sequence[str]) -> tuple[str, ...]:
        """All wordings of a picture's captions, each once; none where it has no caption."""
        texts = (text for caption in captions for text in (self._shuffled(caption) if self.shuffle_tags else [caption]))
        return tuple(dict.fromkeys(template.replace(PLACE, text) for text in texts for template in self.templates))

    @staticmethod
    def _shuffled(caption: str) -> list[str]:
        tags = [tag for tag in (part.strip() for part in caption.split(",")) if tag]
        if len(tags) < 2:
            return [caption]
        found = [", ".join(tags)]
        for turn in range(1, SHUFFLES):
            order = np.argsort(raw_words(zlib.crc32(caption.encode()), TAGS, 0, len(tags), turn), kind="stable")
            found.append(", ".join(tags[i] for i in order))
        return found

    def all(self, captions: Captions) -> list[str]:
        """Every text that training can show, each once."""
        return list(dict.fromkeys(text for said in captions for text in self.wordings(said)))


def said(wording: Wording, captions: Captions, chosen: Sequence[int], seed: int, indices: range) -> tuple[str, ...]:
    """The text of each sample: `chosen` are the pictures that the global sample indices show. "" without a caption.

    ValueError: a negative index, or a seed outside 0 <= seed < 2**63.
    """
    texts: list[str] = []
    for picture, number in zip(chosen, uniforms(seed, indices), strict=True):
        wordings = wording.wordings(captions[picture])
        texts.append(wordings[int(number * len(wordings))] if wordings else "")
    return tuple(texts)


def uniforms(seed: int, indices: range) -> Float64[np.ndarray, "m"]:
    """A number in [0, 1) for each global sample index, whatever the range around it."""
    if not indices:
        return np.zeros(0)
    low, high = min(indices), max(indices)
    if low < 0:
        raise ValueError(f"negative sample index {low}")
    block = low // 4  # Philox makes four words at a time
    numbers = (raw_words(seed, CAPTION, block, high + 1 - 4 * block) >> np.uint64(11)) * 2.0**-53
    return numbers[np.arange(indices.start, indices.stop, indices.step) - 4 * block]
