"""Byte pairs: learnt as the algorithm says, and nothing is lost on the way."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.condition.tokens import BYTES, BytePairs, extended, learn, plain, words
from nirvana.errors import Refused

CAPTIONS = ["a red circle", "a blue circle", "a red square, left", "a blue square above a red circle", "two circles"]


def naive(texts: list[str], merges: int) -> list[tuple[int, int]]:
    """The textbook algorithm: all pairs counted anew for every merge."""
    spelled = [list(word) for text in texts for word in words(text)]
    found: list[tuple[int, int]] = []
    while len(found) < merges:
        counts = Counter(pair for tokens in spelled for pair in pairwise(tokens))
        if not counts or max(counts.values()) < 2:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for tokens in spelled:
            at = 0
            while at + 1 < len(tokens):
                if (tokens[at], tokens[at + 1]) == best:
                    tokens[at : at + 2] = [BYTES + len(found)]
                at += 1
        found.append(best)
    return found


@pytest.mark.parametrize("merges", [0, 1, 7, 1000])
def test_merges_are_those_of_the_textbook(merges: int) -> None:
    texts = [*CAPTIONS, "aaaa aaa aa banana bandana", "ααα ββ"]
    assert list(learn(texts, merges).merges) == naive(texts, merges)


def test_frequent_words_become_one_token_and_rare_ones_fall_into_parts() -> None:
    tokens = learn(CAPTIONS * 3, 200)
    assert tokens.shown("A  red\ncircle") == [" a", " red", " circle"]
    assert "".join(tokens.shown("a redder circlet")) == " a redder circlet"
    assert len(tokens.ids("redder")) > 1


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_shown_tokens_are_the_text(text: str) -> None:
    tokens = BytePairs(learn(CAPTIONS, 50).merges, frozenset(range(BYTES + 50)))
    joined = b"".join(tokens.bytes_of(token) for token in tokens.ids(text))
    assert joined == b"".join(words(text))
    assert len(tokens.shown(text)) == len(tokens.ids(text))


def test_what_no_caption_had_is_unknown_and_every_known_token_was_seen() -> None:
    tokens = learn(CAPTIONS, 200)
    ids = tokens.ids("a red \N{HEAVY BLACK HEART} circle\0 zyx")
    assert ids[0] in tokens.seen and ids[1] in tokens.seen
    assert ids.count(tokens.unknown) == 3 + 1 + 3  # the space alone is known from rare words
    # Parts of words that occur only inside of whole tokens fall back to their bytes, which are then unknown too.
    assert all(token in tokens.seen or token == tokens.unknown for token in tokens.ids("cir"))


@pytest.mark.parametrize("text", ["", " \n\t ", "\0", "\N{PILE OF POO}" * 50, "سلام", "x" * 100_000, "\ud800"])
def test_any_text_has_tokens(text: str) -> None:
    tokens = learn(CAPTIONS, 50)
    assert all(0 <= token < tokens.size for token in tokens.ids(text))
    assert bool(tokens.ids(text)) == bool(text.strip())


def test_equal_texts_in_other_forms_are_equal() -> None:
    assert plain("Cafe\u0301  Noir") == plain("caf\u00e9 noir")


def test_config_round_trip() -> None:
    tokens = learn(CAPTIONS, 60)
    again = BytePairs.from_config(tokens.config())
    assert (again.merges, again.seen, again.size) == (tokens.merges, tokens.seen, tokens.size)
    assert again.ids("a blue circle") == tokens.ids("a blue circle")


@pytest.mark.parametrize(
    "config", [{}, {"merges": "97", "seen": ""}, {"merges": "97+300", "seen": ""}, {"merges": "97+98", "seen": "257"}]
)
def test_damaged_tokens_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(Refused, match="damaged"):
        BytePairs.from_config(config)


@given(st.lists(st.text("abcé ж", max_size=12), min_size=1), st.lists(st.text("bcdж é", max_size=12), min_size=1))
def test_more_captions_add_tokens_and_what_was_read_with_known_ones_is_read_as_before(
    first: list[str], second: list[str]
) -> None:
    known = learn(first, 5)
    more = extended(known, second, 5)
    assert more.merges[: len(known.merges)] == known.merges and known.seen <= more.seen
    for text in (*first, *second):
        assert more.unknown not in more.ids(text)
    again = extended(more, [*first, *second], 0)
    assert (again.merges, again.seen) == (more.merges, more.seen)
    assert extended(BytePairs((), frozenset()), first, 5).config() == known.config()
    kept = extended(known, first, 0)
    assert all(kept.ids(text) == known.ids(text) for text in first)
