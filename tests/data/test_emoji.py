"""The built-in source `emoji`."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import pytest

from nirvana.data import Dataset, open_data
from nirvana.data.emoji import family, held_out


@pytest.fixture(scope="module")
def parts() -> tuple[Dataset, Dataset]:
    return open_data("emoji", captions=True), open_data("emoji:test", captions=True)


def test_what_is_in_it(parts: tuple[Dataset, Dataset]) -> None:
    train, test = parts
    assert train.images.shape == (3720, 64, 64, 3)
    assert test.images.shape == (408, 64, 64, 3)
    assert len(resources.files("nirvana.data").joinpath("embedded", "emoji.zip").read_bytes()) < 13 * 2**20
    for data in parts:
        assert data.labels is not None and data.attributes is not None
        assert data.manifest.captioned == len(data) == len(data.attributes)
        assert all(count > 0 for count in data.manifest.counts)
        assert not {"flags", "symbols", "component"} & set(data.names)
        said = [data.names[label] for label in data.labels]
        assert said == [item["group"] for item in data.attributes]
        points = {point for item in data.attributes for point in str(item["code"]).split("-")}
        assert not points & {f"{point:X}" for point in range(0x1F3FB, 0x1F400)}, "a skin tone"
        assert not points & {f"{point:X}" for point in range(0x1F1E6, 0x1F200)}, "a letter of flags"


def test_parts_share_no_concept_and_no_family(parts: tuple[Dataset, Dataset]) -> None:
    codes = [{str(item["code"]) for item in data.attributes or ()} for data in parts]
    assert [len(part) for part in codes] == [1240, 136]
    assert not codes[0] & codes[1]
    assert not {family(code) for code in codes[0]} & {family(code) for code in codes[1]}
    assert all(held_out(code) for code in codes[1]) and not any(held_out(code) for code in codes[0])
    runners = ["1F3C3", "1F3C3-200D-2640", "1F3C3-200D-2642-200D-27A1"]
    farmers = ["1F468-200D-1F33E", "1F469-200D-1F33E", "1F9D1-200D-1F33E"]
    assert len({family(code) for code in runners}) == len({family(code) for code in farmers}) == 1


def test_captions_name_the_thing_and_the_style(parts: tuple[Dataset, Dataset]) -> None:
    train, _ = parts
    assert train.captions is not None and train.attributes is not None
    by_caption = {texts[0]: i for i, texts in enumerate(train.captions)}
    assert len(by_caption) == len(train), "the first captions are all different"
    lemon = by_caption["lemon, noto emoji"]
    assert train.captions[lemon] == ("lemon, noto emoji", "lemon, citrus, fruit, sour, noto emoji")
    assert [item["style"] for item in train.attributes[:6]] == ["noto", "flat", "3d"] * 2
    assert by_caption["mountain, 3d emoji"] == by_caption["mountain, noto emoji"] + 2
    assert train.captions[by_caption["mountain, 3d emoji"]] == ("mountain, 3d emoji",)


@pytest.mark.parametrize(
    ("label", "channel", "others"),
    [("tomato", 0, (1, 2)), ("broccoli", 1, (0, 2)), ("blueberries", 2, (0, 1)), ("red heart", 0, (1, 2))],
)
def test_pictures_show_what_their_captions_say(
    parts: tuple[Dataset, Dataset], label: str, channel: int, others: tuple[int, int]
) -> None:
    """By colour, in every style, on white."""
    for data in parts:
        for style in ("noto", "flat", "3d"):
            found = [i for i, texts in enumerate(data.captions or ()) if texts[0] == f"{label}, {style} emoji"]
            for i in found:
                inner = data.images[i].astype(float)
                ink = inner[(inner < 200).any(-1)].mean(0)
                assert all(ink[channel] > ink[other] + 20 for other in others), (label, style, ink)
                corners = inner[[0, 0, -1, -1], [0, -1, 0, -1]]
                assert (corners == 255).all()


def test_pixels_and_other_sizes(parts: tuple[Dataset, Dataset]) -> None:
    assert [hashlib.sha256(data.images.tobytes()).hexdigest()[:16] for data in parts] == PIXELS
    small = open_data("emoji:test", size=32)
    assert small.images.shape == (408, 32, 32, 3) and small.manifest.native_side == 64
    halves = parts[1].images.reshape(408, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(halves - small.images).mean() < 6
    assert small.captions == parts[1].captions
    with pytest.raises(ValueError, match="read-only"):
        small.images[0] = 0


PIXELS = ["cc0b9bb6d268da1d", "b4e739026a0ba3a2"]
"""Starts of the digests of the pictures as the packages have them."""
