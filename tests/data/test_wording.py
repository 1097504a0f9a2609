"""Which words a sample shows: a function of (seed, sample index), from finitely many that can be encoded beforehand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nirvana.data import Wording, said
from nirvana.data.wording import SHUFFLES, uniforms
from nirvana.errors import Refused

CAPTIONS = (("a cat", "one cat"), ("dog, brown, big",), (), ("bird",))


def test_a_sample_shows_any_of_its_pictures_captions_alike() -> None:
    shown = Counter(said(Wording(), CAPTIONS, [0] * 4000, 1, range(4000)))
    assert shown.keys() == {"a cat", "one cat"} and abs(shown["a cat"] - 2000) < 150
    assert said(Wording(), CAPTIONS, [2, 3], 1, range(2)) == ("", "bird")


def test_the_words_depend_on_seed_and_index_alone() -> None:
    whole = said(Wording(), CAPTIONS, [0] * 64, 5, range(100, 164))
    assert whole == sum((said(Wording(), CAPTIONS, [0], 5, range(i, i + 1)) for i in range(100, 164)), ())
    assert whole != said(Wording(), CAPTIONS, [0] * 64, 6, range(100, 164))
    numbers = uniforms(3, range(4000))
    assert (numbers >= 0).all() and (numbers < 1).all() and abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.06


def test_templates_and_shuffled_tags_are_all_there_is() -> None:
    wording = Wording(("a photo of {}", "{}"), shuffle_tags=True)
    found = wording.wordings(CAPTIONS[1])
    assert found[:2] == ("a photo of dog, brown, big", "dog, brown, big")
    assert {frozenset(text.removeprefix("a photo of ").split(", ")) for text in found} == {
        frozenset({"dog", "brown", "big"})
    }
    assert 2 * 3 < len(found) <= 2 * SHUFFLES and len(set(found)) == len(found)
    assert set(said(wording, CAPTIONS, [1] * 400, 0, range(400))) == set(found) <= set(wording.all(CAPTIONS))
    assert Wording(shuffle_tags=True).wordings(("a cat",)) == ("a cat",)


@pytest.mark.parametrize("templates", [("a photo",), ("{} and {}",), ()])
def test_a_template_needs_its_place(templates: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match=r"\{\}"):
        Wording(templates)


def test_a_negative_index_is_an_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        uniforms(0, range(-3, 2))
