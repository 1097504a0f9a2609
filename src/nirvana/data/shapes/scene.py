"""Scenes of one to three shapes as data: which, where, how related, and which combinations training never sees.

Scene i of seed s is a pure function of (s, i). Lengths are in sides of the picture, y points down. The things of a
scene have different colours. One thing lies in one of nine places; of two, the first is left of, right of, above or
below the second; of three, one is above or below the second and one left or right of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nirvana.data.order import SCENE, raw_words
from nirvana.files import Json

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (210, 20, 30),
    "orange": (245, 120, 0),
    "yellow": (250, 220, 0),
    "green": (20, 150, 50),
    "blue": (30, 70, 220),
    "purple": (120, 40, 200),
    "pink": (255, 100, 200),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES: dict[str, tuple[float, float]] = {"small": (0.125, 0.14), "large": (0.2, 0.215)}
"""Half of a thing's width, from and to."""
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
PLACES = {
    f"{row} {column}".strip() if (row, column) != ("", "") else "centre": (x, y)
    for row, y in (("top", 0.25), ("", 0.5), ("bottom", 0.75))
    for column, x in (("left", 0.25), ("", 0.5), ("right", 0.75))
}
"""The middle of each of the nine places."""

HELD_OUT_THINGS = frozenset(
    {("purple", "circle"), ("orange", "square"), ("blue", "triangle"), ("green", "star"), ("red", "cross")}
)
"""Colour and shape that training never shows together."""
HELD_OUT_RELATIONS = frozenset(
    {
        ("circle", "above", "square"),
        ("star", "left of", "triangle"),
        ("cross", "above", "circle"),
        ("square", "left of", "star"),
        ("triangle", "above", "cross"),
    }
)
"""Relations of shapes that training never states; "square below circle" is "circle above square"."""

_GAP = 0.06
_JITTER = 0.03
_SLANT = 0.35
"""Along its axis a relation is at least 1/0.35 times as long as across."""


@dataclass(frozen=True)
class Thing:
    """A shape: its kind, colour and size in words, its centre, and half of its width."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """As in "small red circle"."""
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Relation:
    """Thing number `first` is `name` (left of, right of, above, below) thing number `second`."""

    first: int
    name: str
    second: int


@dataclass(frozen=True)
class Scene:
    """Things and their stated relations; the place (a name in `PLACES`) of one that is alone."""

    things: tuple[Thing, ...]
    relations: tuple[Relation, ...] = ()
    place: str | None = None

    @property
    def held_out(self) -> bool:
        """Whether a combination occurs that training never sees."""
        triples = {triple for relation in self.relations for triple in self._both(relation)}
        pairs = {(thing.colour, thing.shape) for thing in self.things}
        return bool(pairs & HELD_OUT_THINGS or triples & HELD_OUT_RELATIONS)

    def _both(self, relation: Relation) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        first, second = self.things[relation.first].shape, self.things[relation.second].shape
        return (first, relation.name, second), (second, OPPOSITE[relation.name], first)

    def to_json(self) -> dict[str, Json]:
        """Everything about the scene."""
        things: list[Json] = [
            {
                "shape": thing.shape,
                "colour": thing.colour,
                "size": thing.size,
                "x": thing.x,
                "y": thing.y,
                "radius": thing.radius,
            }
            for thing in self.things
        ]
        relations: list[Json] = [[relation.first, relation.name, relation.second] for relation in self.relations]
        return {"things": things, "relations": relations, "place": self.place, "held_out": self.held_out}


class Draws:
    """Numbers for scene `index` of a seed: raw words of one Philox stream, as many as are asked for."""

    def __init__(self, seed: int, index: int) -> None:
        self._more: Callable[[int], list[int]] = lambda block: raw_words(seed, SCENE, 8 * block, 32, index).tolist()
        self._block = 0
        self._words: list[int] = []

    def word(self) -> int:
        """A uniform integer below 2**64."""
        if not self._words:
            self._words = self._more(self._block)
            self._block += 1
        return self._words.pop()

    def choice(self, values: Sequence[str]) -> str:
        """One of the values, all alike."""
        return values[self.word() % len(values)]

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return low + (high - low) * self.word() / 2**64


def scene(seed: int, index: int, *, held_out: bool = False) -> Scene:
    """Scene `index` of `seed`: without any held-out combination, or with at least one.

    How many things there are is decided first, so the parts have equally many of one, two and three.
    ValueError: a negative index, or a seed outside 0 <= seed < 2**63.
    """
    if index < 0:
        raise ValueError(f"negative scene index {index}")
    draws = Draws(seed, index)
    count = 1 + draws.word() % 3
    while True:
        drawn = (_one, _two, _three)[count - 1](draws)
        if drawn.held_out == held_out:
            return drawn


def _things(draws: Draws, count: int) -> list[tuple[str, str, str, float]]:
    """Shape, colour, size and radius of some things, the colours all different."""
    colours = list(COLOURS)
    result: list[tuple[str, str, str, float]] = []
    for _ in range(count):
        colour, size = draws.choice(colours), draws.choice(list(SIZES))
        colours.remove(colour)
        result.append((draws.choice(SHAPES), colour, size, draws.uniform(*SIZES[size])))
    return result


def _one(draws: Draws) -> Scene:
    ((shape, colour, size, radius),) = _things(draws, 1)
    place = draws.choice(list(PLACES))
    x, y = (middle + draws.uniform(-_JITTER, _JITTER) for middle in PLACES[place])
    return Scene((Thing(shape, colour, size, x, y, radius),), place=place)


def _two(draws: Draws) -> Scene:
    (a, b), name = _things(draws, 2), draws.choice(list(OPPOSITE))
    along = a[3] + b[3] + _GAP
    along += draws.uniform(0.0, min(0.2, 1 - _GAP - a[3] - b[3] - along))
    across = draws.uniform(-_SLANT, _SLANT) * along
    dx, dy = _offset(name, along, across)
    x, y = _put(draws, [(0.0, 0.0, b[3]), (dx, dy, a[3])])
    return Scene(
        (Thing(*a[:3], x + dx, y + dy, a[3]), Thing(*b[:3], x, y, b[3])),
        (Relation(0, name, 1),),
    )


def _three(draws: Draws) -> Scene:
    """The first above or below the second, the third left or right of it (or the other way round)."""
    a, b, c = _things(draws, 3)
    names = [draws.choice(("above", "below")), draws.choice(("left of", "right of"))]
    if draws.word() % 2:
        names.reverse()
    ax, ay = _offset(names[0], a[3] + b[3] + _GAP, 0.0)
    # Where the second is small, the third must also clear the first, to which it lies diagonally.
    cx, cy = _offset(names[1], c[3] + max(a[3], b[3]) + _GAP, 0.0)
    x, y = _put(draws, [(0.0, 0.0, b[3]), (ax, ay, a[3]), (cx, cy, c[3])])
    return Scene(
        (Thing(*a[:3], x + ax, y + ay, a[3]), Thing(*b[:3], x, y, b[3]), Thing(*c[:3], x + cx, y + cy, c[3])),
        (Relation(0, names[0], 1), Relation(2, names[1], 1)),
    )


def _offset(name: str, along: float, across: float) -> tuple[float, float]:
    """Where a thing lies from another, (dx, dy)."""
    sign = -1 if name in ("left of", "above") else 1
    return (sign * along, across) if name in ("left of", "right of") else (across, sign * along)


def _put(draws: Draws, discs: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """A place of the origin that keeps boxes (x, y, half width) around it inside the picture."""
    x, y = (
        draws.uniform(max(box[2] - box[axis] for box in discs), min(1 - box[2] - box[axis] for box in discs))
        for axis in (0, 1)
    )
    return x, y
