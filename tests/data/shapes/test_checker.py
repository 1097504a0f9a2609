"""The checker reads real renderings right, bears what a small model does to them, and notices what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nirvana.data.shapes import COLOURS, SHAPES, Relation, Scene, Score, Thing, read, render, scene, score
from nirvana.data.shapes.checker import UNCLEAR, place_of, relation_of

N = 40
SCENES = [scene(11, i, held_out=i % 2 == 1) for i in range(N)]

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(std: float) -> Change:
    return lambda picture, rng: np.clip(picture + rng.normal(0, std, picture.shape), 0, 255).round().astype(np.uint8)


def blur(std: float) -> Change:
    """Of `std` pixels at 32, and alike at other sizes."""
    return lambda picture, _: np.asarray(
        Image.fromarray(picture).filter(ImageFilter.GaussianBlur(std * len(picture) / 32))
    )


def both(first: Change, second: Change) -> Change:
    return lambda picture, rng: second(first(picture, rng), rng)


def scores(size: int, change: Change) -> list[Score]:
    rng = np.random.default_rng(0)
    return [score(item, change(render(item, size), rng)) for item in SCENES]


def right(scored: list[Score]) -> float:
    """The share of scenes with everything right."""
    return sum(item.right for item in scored) / len(scored)


@pytest.mark.parametrize("size", [24, 32, 64])
def test_real_pictures_are_read_exactly(size: int) -> None:
    for item in SCENES:
        picture = render(item, size)
        found = read(picture)
        assert score(item, picture) == Score(
            count=True,
            shapes=(True,) * len(item.things),
            colours=(True,) * len(item.things),
            sizes=(True,) * len(item.things),
            relations=(True,) * len(item.relations),
            place=None if item.place is None else True,
        )
        by_colour = {thing.colour: thing for thing in found}
        for thing in item.things:
            seen = by_colour[thing.colour]
            assert (seen.shape, seen.size) == (thing.shape, thing.size)
            assert abs(seen.x - thing.x) < 0.02 and abs(seen.radius - thing.radius) < 0.025


@pytest.mark.parametrize(
    ("change", "least"),
    [(noise(30), 1.0), (blur(0.6), 1.0), (both(blur(0.7), noise(15)), 0.97), (blur(1.0), 0.85)],
    ids=["noise 30", "blur 0.6", "blur 0.7 and noise 15", "blur 1"],
)
def test_what_a_small_model_does_is_borne(change: Change, least: float) -> None:
    assert right(scores(32, change)) >= least


def test_shades_and_frames_are_borne() -> None:
    def duller(picture: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return (255 - (255 - picture.astype(float)) * 0.85).round().astype(np.uint8)

    def grey_ground(picture: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return np.minimum(picture, 240)

    assert right(scores(32, duller)) >= 0.9
    assert right(scores(32, grey_ground)) == 1


def altered(item: Scene, index: int, **changes: str) -> Scene:
    things = list(item.things)
    things[index] = replace(things[index], **changes)  # pyright: ignore[reportArgumentType]
    return replace(item, things=tuple(things))


def test_every_other_shape_and_colour_is_noticed() -> None:
    for item in SCENES[:6]:
        for index, thing in enumerate(item.things):
            for shape in set(SHAPES) - {thing.shape}:
                scored = score(item, render(altered(item, index, shape=shape), 32))
                assert [i for i, flag in enumerate(scored.shapes) if not flag] == [index], (thing.name, shape)
                assert all(scored.colours) and all(scored.relations)
            taken = {other.colour for other in item.things}
            for colour in set(COLOURS) - taken:
                scored = score(item, render(altered(item, index, colour=colour), 32))
                assert [i for i, flag in enumerate(scored.colours) if not flag] == [index], (thing.name, colour)
                assert all(scored.shapes) and scored.count and not scored.right


def test_another_size_is_noticed() -> None:
    for item in SCENES:
        if len(item.things) == 1:
            (thing,) = item.things
            other = replace(thing, radius=0.13 if thing.size == "large" else 0.205, x=0.5, y=0.5)
            scored = score(replace(item, place=None), render(Scene((other,)), 32))
            assert scored.sizes == (False,) and scored.shapes == scored.colours == (True,)


def test_a_missing_and_an_additional_thing_are_noticed() -> None:
    for item in SCENES:
        picture = render(replace(item, things=item.things[1:], relations=(), place=None), 32)
        scored = score(item, picture)
        assert not scored.count and not scored.shapes[0] and not scored.colours[0] and not scored.sizes[0]
        assert sum(scored.shapes) == len(item.things) - 1
        assert scored.relations[:1] in ((), (False,))
        if item.place is not None:
            assert scored.place is False
        if len(item.things) > 1:
            fewer = Scene(item.things[1:2])
            assert not score(fewer, render(item, 32)).count


def test_a_swapped_relation_is_noticed() -> None:
    for item in SCENES:
        for picture, axis in ((render(item, 32)[:, ::-1], "left right"), (render(item, 32)[::-1], "above below")):
            scored = score(item, np.ascontiguousarray(picture))
            expected = tuple(relation.name.split()[0] not in axis for relation in item.relations)
            assert scored.relations == expected
            if axis == "left right":
                assert all((*scored.shapes, *scored.colours, *scored.sizes))


def test_exchanged_colours_are_noticed() -> None:
    """A red circle and a blue square are not a blue circle and a red square."""
    for item in SCENES:
        if len(item.things) > 1 and item.things[0].shape != item.things[1].shape:
            first, second = item.things[:2]
            mixed = altered(altered(item, 0, colour=second.colour), 1, colour=first.colour)
            assert not score(item, render(mixed, 32)).right


def test_another_place_is_noticed() -> None:
    for item in SCENES:
        if item.place is not None:
            moved = np.roll(render(item, 32), 12, axis=0)
            assert score(item, moved).place is False


@pytest.mark.parametrize("std", [60, 100])
def test_pure_noise_and_nothing_are_no_scene(std: float) -> None:
    rng = np.random.default_rng(0)
    for item in SCENES[:20]:
        for picture in (np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)):
            assert not score(item, picture).right
        static = np.clip(rng.normal(128, std, (32, 32, 3)), 0, 255).astype(np.uint8)
        assert not score(item, static).right
    assert read(np.full((32, 32, 3), 255, np.uint8)) == ()


def test_strong_corruption_is_noticed() -> None:
    """Blur after which nothing can be told apart, and smears: fewer are right, and none that is not."""
    assert right(scores(32, blur(4.0))) < 0.2

    def grey(picture: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return np.repeat(picture.mean(-1, keepdims=True), 3, -1).round().astype(np.uint8)

    black = [any(thing.colour == "black" for thing in item.things) for item in SCENES]
    assert right([scored for scored, some in zip(scores(32, grey), black, strict=True) if not some]) == 0


def test_a_colour_or_shape_that_is_none_of_ours_is_unclear() -> None:
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[8:20, 8:20] = (90, 200, 210)
    (thing,) = read(picture)
    assert (thing.colour, thing.shape) == (UNCLEAR, "square")
    picture[:] = 255
    picture[15:17, 2:30] = COLOURS["blue"]
    (thing,) = read(picture)
    assert (thing.colour, thing.shape) == ("blue", UNCLEAR)


def test_things_that_touch_are_told_apart_by_colour() -> None:
    touching = Scene(
        (Thing("square", "red", "large", 0.28, 0.5, 0.2), Thing("circle", "blue", "large", 0.68, 0.5, 0.2)),
        (Relation(0, "left of", 1),),
    )
    assert score(touching, render(touching, 32)).right


def test_relations_and_places_by_their_centres() -> None:
    middle = Thing("circle", "red", "small", 0.5, 0.5, 0.1)
    for dx, dy, name in ((-0.3, 0.1, "left of"), (0.3, -0.2, "right of"), (0.1, -0.2, "above"), (-0.1, 0.2, "below")):
        assert relation_of(replace(middle, x=0.5 + dx, y=0.5 + dy), middle) == name
    assert [place_of(replace(middle, x=x, y=y)) for x, y in ((0.1, 0.1), (0.6, 0.4), (0.9, 0.55))] == [
        "top left",
        "centre",
        "right",
    ]


def test_the_share_of_attributes() -> None:
    flags = Score(True, (True, False), (True, True), (True, False), (True,), None)
    assert flags.attributes == pytest.approx(4 / 6)
    assert not flags.right
    every = Score(True, (True,), (True,), (True,), (), True)
    assert every.right and not replace(every, place=False).right and not replace(every, count=False).right
    assert not replace(every, relations=(False,)).right
