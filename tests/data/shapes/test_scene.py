"""Scenes, their captions and their pictures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from nirvana.data import open_data
from nirvana.data.shapes import COLOURS, SHAPES, SIZES, Scene, captions, render, render_all, scene
from nirvana.data.shapes.checker import place_of, relation_of
from nirvana.data.shapes.render import coverage
from nirvana.data.shapes.scene import HELD_OUT_RELATIONS, HELD_OUT_THINGS, OPPOSITE, PLACES
from nirvana.data.shapes.source import Scenes
from nirvana.errors import Refused

N = 1500
TRAIN = [scene(5, i) for i in range(N)]
HELD_OUT = [scene(5, i, held_out=True) for i in range(N)]


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    assert scene(5, 700) == TRAIN[700] == scene(5, 700)
    assert len({str(item.to_json()) for item in TRAIN}) == N
    assert scene(6, 700) != TRAIN[700]
    # Fixed for ever: a change is another data set, and VERSION must rise with it.
    text = json.dumps([scene(0, i, held_out=bool(i % 2)).to_json() for i in range(50)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == SCENES
    assert hashlib.sha256(render_all(TRAIN[:50], 32).tobytes()).hexdigest()[:16] == PICTURES
    with pytest.raises(ValueError, match="negative scene index"):
        scene(0, -1)
    with pytest.raises(ValueError, match="out of range"):
        scene(-1, 0)


SCENES, PICTURES = "32160fe66797ff2c", "1da01b2a5a01a820"


def pairs(item: Scene) -> set[tuple[str, str]]:
    return {(thing.colour, thing.shape) for thing in item.things}


def triples(item: Scene) -> set[tuple[str, str, str]]:
    result: set[tuple[str, str, str]] = set()
    for relation in item.relations:
        first, second = item.things[relation.first].shape, item.things[relation.second].shape
        result |= {(first, relation.name, second), (second, OPPOSITE[relation.name], first)}
    return result


def test_training_never_shows_a_held_out_combination_and_the_other_part_always_does() -> None:
    for item in TRAIN:
        assert not pairs(item) & HELD_OUT_THINGS and not triples(item) & HELD_OUT_RELATIONS
        assert not item.held_out
    for item in HELD_OUT:
        assert pairs(item) & HELD_OUT_THINGS or triples(item) & HELD_OUT_RELATIONS
        assert item.held_out
    shown: set[tuple[str, ...]] = set().union(*map(pairs, HELD_OUT), *map(triples, HELD_OUT))
    assert shown >= HELD_OUT_THINGS and shown >= HELD_OUT_RELATIONS
    # What is held out is made of parts that training shows.
    everything = {(colour, shape) for colour in COLOURS for shape in SHAPES}
    assert set().union(*map(pairs, TRAIN)) == everything - HELD_OUT_THINGS


@pytest.mark.parametrize("part", [TRAIN, HELD_OUT], ids=["train", "held out"])
def test_attributes_are_spread_evenly(part: list[Scene]) -> None:
    counts = Counter(len(item.things) for item in part)
    assert all(abs(counts[k] - N / 3) < 4 * (N * 2 / 9) ** 0.5 for k in (1, 2, 3))
    relations = Counter(relation.name for item in part for relation in item.relations)
    assert min(relations.values()) > 0.7 * max(relations.values())
    assert set(relations) == set(OPPOSITE)
    assert {item.place for item in part if len(item.things) == 1} == set(PLACES)
    assert {thing.size for item in part for thing in item.things} == set(SIZES)


@pytest.mark.parametrize("part", [TRAIN, HELD_OUT], ids=["train", "held out"])
def test_geometry_is_what_is_stated(part: list[Scene]) -> None:
    for item in part:
        assert len({thing.colour for thing in item.things}) == len(item.things)
        for thing in item.things:
            low, high = SIZES[thing.size]
            assert low <= thing.radius <= high
            for at in (thing.x, thing.y):
                assert at - thing.radius >= -1e-9 and at + thing.radius <= 1 + 1e-9, "inside the picture"
        for i, a in enumerate(item.things):
            for b in item.things[:i]:
                apart = max(abs(a.x - b.x), abs(a.y - b.y))
                assert apart >= a.radius + b.radius + 0.06 - 1e-9, "boxes do not touch"
        for relation in item.relations:
            assert relation_of(item.things[relation.first], item.things[relation.second]) == relation.name
        if item.place is not None:
            assert place_of(item.things[0]) == item.place


def test_captions_say_everything() -> None:
    for item in (*TRAIN[:300], *HELD_OUT[:300]):
        said = captions(item)
        assert len(set(said)) == len(said) == 4
        for text in said:
            words = text.replace(",", "").replace(";", "").split()
            again = len(item.things) == 3 and text.count("the ")  # "the red circle" names it a second time
            for thing in item.things:
                for word in (thing.shape, thing.colour, thing.size):
                    assert words.count(word) >= 1, text
            if not again:
                colours = [word for word in words if word in COLOURS]
                assert sorted(colours) == sorted(thing.colour for thing in item.things), text


def test_captions_state_the_relations() -> None:
    said = {len(item.things): captions(item) for item in TRAIN[:20]}
    assert {k: list(v) for k, v in said.items()} == CAPTIONS
    assert not any(" a orange" in text for item in TRAIN for text in captions(item))


CAPTIONS = {
    2: [
        "a small red circle to the left of a small pink star",
        "a small pink star to the right of a small red circle",
        "there is a small red circle to the left of a small pink star",
        "a small pink star with a small red circle to its left",
    ],
    1: [
        "a large red square in the bottom right",
        "a large square in red, lower right",
        "in the lower right there is a large red square",
        "one red square, large, in the bottom right",
    ],
    3: [
        "a large purple star to the left of a small orange cross, and a small blue square below the orange cross",
        "a small orange cross with a large purple star to its left and a small blue square below it",
        "a small orange cross; a small blue square below it, a large purple star to its left",
        "a small blue square below a small orange cross, and a large purple star to the left of the orange cross",
    ],
}


def area(shape: str, radius: float) -> float:
    """By the shoelace formula, independently."""
    from nirvana.data.shapes.render import POLYGONS

    if shape == "circle":
        return np.pi * radius**2
    x, y = np.array(POLYGONS[shape]).T * radius
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_has_the_area_and_the_box_of_the_shape(shape: str) -> None:
    for x, y, radius in ((16.0, 16.0, 10.0), (15.3, 17.8, 4.13), (9.1, 20.0, 7.77)):
        drawn = coverage(shape, x, y, radius, 32, 32)
        assert drawn.min() >= 0 and drawn.max() <= 1 + 1e-12
        assert drawn.sum() == pytest.approx(area(shape, radius), rel=0.02)
        down, right = np.nonzero(drawn)
        assert right.min() == int(x - radius) or shape == "star"
        assert (right.max(), down.max()) <= (np.ceil(x + radius), np.ceil(y + radius))
        assert down.min() in (int(y - radius), int(y - radius) + 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_is_the_share_of_points_inside(shape: str) -> None:
    from nirvana.data.shapes.render import POLYGONS

    fine = 24
    at = (np.arange(24 * fine) + 0.5) / fine
    y, x = np.meshgrid((at - 12.3) / 8.1, (at - 11.6) / 8.1, indexing="ij")
    if shape == "circle":
        inside = x**2 + y**2 <= 1
    else:  # the winding by crossings to the right, point by point
        inside = np.zeros(x.shape, bool)
        corners = POLYGONS[shape]
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y0 != y1:
                inside ^= ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    expected = inside.reshape(24, fine, 24, fine).mean((1, 3))
    assert np.abs(coverage(shape, 11.6, 12.3, 8.1, 24, 24) - expected).max() < 0.08
    assert np.abs(coverage(shape, 11.6, 12.3, 8.1, 24, 24) - expected).mean() < 0.004


def test_what_lies_outside_is_cut_off() -> None:
    assert coverage("circle", -20.0, 5.0, 4.0, 16, 16).sum() == 0
    assert coverage("square", 0.0, 8.0, 4.0, 16, 16).sum() == pytest.approx(32)


def test_pictures_are_antialiased_on_white() -> None:
    picture = render(TRAIN[0], 64)
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all() or len(TRAIN[0].things) > 1
    whites = (picture == 255).all(-1).mean()
    assert 0.3 < whites < 0.99
    kinds = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
    assert {COLOURS[thing.colour] for thing in TRAIN[0].things} < kinds
    assert len(kinds) > 4


def test_the_source(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nirvana.data.shapes.source.TRAIN", 60)
    monkeypatch.setattr("nirvana.data.shapes.source.HELD_OUT", 40)
    train, named = open_data("shapes", captions=True), open_data("shapes:train")
    test = open_data("shapes:heldout", size=64)
    assert train.images.shape == (60, 32, 32, 3) and test.images.shape == (40, 64, 64, 3)
    assert np.array_equal(named.images, train.images) and named.manifest.digest == train.manifest.digest
    assert train.captions == tuple(captions(scene(0, i)) for i in range(60))
    assert isinstance(train.attributes, Scenes) and isinstance(test.attributes, Scenes)
    for data, held_out in ((train, False), (test, True)):
        size = data.manifest.size
        expected = [scene(0, i, held_out=held_out) for i in range(len(data))]
        assert np.array_equal(data.images, render_all(expected, size))
        assert data.attributes is not None
        assert list(data.attributes) == [item.to_json() for item in expected]
        assert data.attributes[-2:] == [item.to_json() for item in expected[-2:]]
        assert data.labels is None and data.manifest.kind == "procedural"
    assert open_data("shapes", progress=lambda *_: pytest.fail("rendered again")).manifest == train.manifest
    with pytest.raises(Refused, match=r"shapes at size 16: .* from 24 pixels on"):
        open_data("shapes", size=16)
    with pytest.raises(Refused, match="did you mean 'heldout'"):
        open_data("shapes:heldin")
