"""Reads the attributes of shapes back from a picture, and says which of a scene's are right. numpy only.

Every pixel is a mixture p = white + a (c - white) of white and one of the colours: the colour on whose ray it lies
nearest, with the share a. Pixels of a share of at least one half are things; what hangs together is one thing, unless
it holds two colours. A thing's shape is the one whose own rendering, blurred alike, of the same area about the same
centre, differs least; a thing that resembles none, or has no colour of ours, is read as "unclear".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from nirvana.data.dataset import BACKGROUND
from nirvana.data.shapes.render import coverage
from nirvana.data.shapes.scene import COLOURS, PLACES, SHAPES, SIZES, Relation, Scene, Thing

UNCLEAR = "unclear"

_HALF = 0.5
_LEAST_RADIUS = 0.05
"""Smaller things (as discs, in sides of the picture) are specks and no things."""
_COLOUR_ERROR = 75.0
"""A thing whose median colour is farther (Euclidean, 0 to 255) from all of ours has none of them."""
_SHAPE_ERROR = 0.33
"""A thing that differs in a larger share of its area from every shape is none of them."""
_REACH = 0.08
"""So far (in sides of the picture) beyond its half-covered pixels the soft edge of a thing is followed."""
_SMOOTHED = 0.5
"""Variance, in pixels squared, of the blur that every picture gets."""
_SECOND_COLOUR = 0.25
"""A thing is two when its second colour has this share of it."""
_CONSIDERED = 6
_BORDER = (SIZES["small"][1] + SIZES["large"][0]) / 2

_NAMES = tuple(COLOURS)
_WHITE = np.array(BACKGROUND, np.float64)
_RAYS = np.array([COLOURS[name] for name in _NAMES], np.float64) - _WHITE

Plane = Float[np.ndarray, "h w"]


@dataclass(frozen=True)
class Score:
    """Which attributes of a scene a picture shows: a flag for each thing, for each relation, and for the place.

    `count`: there are as many things as stated. `place` is None where none is stated. A thing that is missing is wrong
    in everything, and so is a relation of it.
    """

    count: bool
    shapes: tuple[bool, ...]
    colours: tuple[bool, ...]
    sizes: tuple[bool, ...]
    relations: tuple[bool, ...]
    place: bool | None

    @property
    def attributes(self) -> float:
        """The share of shapes, colours and sizes that are right."""
        flags = (*self.shapes, *self.colours, *self.sizes)
        return sum(flags) / len(flags)

    @property
    def right(self) -> bool:
        """Whether everything is."""
        flags = (*self.shapes, *self.colours, *self.sizes, *self.relations, self.place is not False)
        return self.count and all(flags)


def read(picture: UInt8[np.ndarray, "h w 3"]) -> tuple[Thing, ...]:
    """The things in a picture, the largest first. Works for pictures of at least 24 pixels."""
    pixels = _smooth(picture.astype(np.float64) - _WHITE)
    share, colour = _unmix(pixels)
    names = _components(share >= _HALF)
    things: list[Thing] = []
    for name in range(1, int(names.max(initial=0)) + 1):
        for mask in _split(names == name, colour):
            found = _thing(mask, (names > 0) & ~mask, pixels, colour)
            if found is not None:
                things.append(found)
    return tuple(sorted(things, key=lambda thing: -thing.radius))


def score(scene: Scene, picture: UInt8[np.ndarray, "h w 3"]) -> Score:
    """Which attributes of `scene` the picture shows; its things are assigned to the stated ones as favours it most.

    Of many things only the largest are considered.
    """
    found = read(picture)
    slots = [*found[:_CONSIDERED], *[None] * len(scene.things)]
    ways = sorted(set(permutations(range(len(slots)), len(scene.things))))
    return max((_judge(scene, [slots[i] for i in way], len(found)) for way in ways), key=_rank)


def _rank(scored: Score) -> tuple[float, int]:
    return scored.attributes, sum(scored.relations)


def _judge(scene: Scene, shown: Sequence[Thing | None], count: int) -> Score:
    pairs = list(zip(scene.things, shown, strict=True))
    return Score(
        count=count == len(scene.things),
        shapes=tuple(seen is not None and seen.shape == thing.shape for thing, seen in pairs),
        colours=tuple(seen is not None and seen.colour == thing.colour for thing, seen in pairs),
        sizes=tuple(seen is not None and seen.size == thing.size for thing, seen in pairs),
        relations=tuple(_holds(relation, shown) for relation in scene.relations),
        place=None if scene.place is None else shown[0] is not None and place_of(shown[0]) == scene.place,
    )


def _holds(relation: Relation, shown: Sequence[Thing | None]) -> bool:
    first, second = shown[relation.first], shown[relation.second]
    return first is not None and second is not None and relation_of(first, second) == relation.name


def relation_of(first: Thing, second: Thing) -> str:
    """How the first lies to the second, by the longer axis between their centres."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def place_of(thing: Thing) -> str:
    """The nearest of the nine places."""
    return min(PLACES, key=lambda name: (PLACES[name][0] - thing.x) ** 2 + (PLACES[name][1] - thing.y) ** 2)


def _smooth(values: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """A binomial blur over 3 x 3 pixels, the edge repeated."""
    for axis in (0, 1):
        padded = np.pad(values, [(int(axis == i), int(axis == i)) for i in range(values.ndim)], mode="edge")
        before, after = (np.take(padded, np.arange(k, k + values.shape[axis]), axis) for k in (0, 2))
        values = (before + 2 * values + after) / 4
    return values


def _unmix(pixels: Float[np.ndarray, "h w 3"]) -> tuple[Plane, Int64[np.ndarray, "h w"]]:
    """The share of a colour in each pixel (less white), and which colour."""
    share = np.clip(pixels @ (_RAYS / (_RAYS**2).sum(1, keepdims=True)).T, 0, 1)
    left = ((pixels[..., None, :] - share[..., None] * _RAYS) ** 2).sum(-1)
    colour = left.argmin(-1)
    return np.take_along_axis(share, colour[..., None], -1)[..., 0], colour


def _components(mask: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "h w"]:
    """Numbers from 1 on of what hangs together by edges; 0 outside."""
    names = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        padded = np.pad(names, 1)
        spread = np.maximum.reduce([names, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]])
        spread = np.where(mask, spread, 0)
        if np.array_equal(spread, names):
            return np.unique(names, return_inverse=True)[1].reshape(mask.shape) + (0 if not mask.all() else 1)
        names = spread


def _split(mask: Bool[np.ndarray, "h w"], colour: Int64[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """The parts of a component by colour, where a second colour has a good share of it."""
    votes = np.stack(
        [_smooth(((colour == k) & mask).astype(np.float64)[..., None])[..., 0] for k in range(len(_NAMES))]
    )
    winner = votes.argmax(0)
    counts = np.bincount(winner[mask], minlength=len(_NAMES))
    held = np.flatnonzero(counts >= _SECOND_COLOUR * mask.sum())
    if len(held) < 2:
        return [mask]
    nearest = held[votes[held].argmax(0)]
    parts: list[Bool[np.ndarray, "h w"]] = []
    for k in held:
        names = _components(mask & (nearest == k))
        parts += [names == name for name in range(1, int(names.max(initial=0)) + 1)]
    return parts


def _thing(
    mask: Bool[np.ndarray, "h w"],
    other: Bool[np.ndarray, "h w"],
    pixels: Float[np.ndarray, "h w 3"],
    colour: Int64[np.ndarray, "h w"],
) -> Thing | None:
    """What a component is, where `other` belongs to other ones; None for a speck."""
    height, width = mask.shape
    side = min(height, width)
    if mask.sum() < np.pi * (_LEAST_RADIUS * side) ** 2:
        return None
    kind = int(np.bincount(colour[mask], minlength=len(_NAMES)).argmax())
    ray = _RAYS[kind]
    share = np.clip(pixels @ ray / (ray @ ray), 0, 1)
    core = np.median(pixels[mask & (share >= np.quantile(share[mask], 0.6))], axis=0)
    clear = float(np.linalg.norm(core - ray)) <= _COLOUR_ERROR
    if not clear:
        share = np.clip(pixels @ core / (core @ core), 0, 1)
    reach = max(2, round(_REACH * side))
    edge = _grown(mask, reach) & ~_grown(other, reach - 1)
    weight = np.where(mask | edge, share, 0.0)
    x, y, _ = _moments(weight)
    shape, radius = _shape(weight)
    return Thing(
        shape=shape,
        colour=_NAMES[kind] if clear else UNCLEAR,
        size="small" if radius / side < _BORDER else "large",
        x=x / width,
        y=y / height,
        radius=radius / side,
    )


def _grown(mask: Bool[np.ndarray, "h w"], steps: int) -> Bool[np.ndarray, "h w"]:
    """The mask and its neighbours at up to so many steps."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


@dataclass(frozen=True)
class _Unit:
    """Area, centroid, and variance about it (mean of both axes) of a shape of half width 1."""

    area: float
    x: float
    y: float
    variance: float

    @staticmethod
    def of(shape: str) -> _Unit:
        """Measured on a fine rendering."""
        fine = coverage(shape, 100.0, 100.0, 100.0, 200, 200)
        x, y, variance = _moments(fine)
        return _Unit(float(fine.sum()) / 100**2, x / 100 - 1, y / 100 - 1, variance / 100**2)


def _moments(weight: Plane) -> tuple[float, float, float]:
    """Centroid (x, y) and variance about it, the mean of both axes."""
    down, right = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]] + 0.5
    area = weight.sum()
    x, y = (float((weight * at).sum() / area) for at in (right, down))
    return x, y, float((weight * ((right - x) ** 2 + (down - y) ** 2)).sum() / area) / 2


@cache
def _units() -> dict[str, _Unit]:
    return {shape: _Unit.of(shape) for shape in SHAPES}


def _shape(weight: Plane) -> tuple[str, float]:
    """The shape, and its half width in pixels, that differs least.

    Each is drawn with the area, the centroid and the variance of `weight`: a blur adds its own variance to a shape's.
    """
    height, width = weight.shape
    x, y, variance = _moments(weight)
    area = float(weight.sum())
    best = (np.inf, UNCLEAR, 0.0)
    for shape, unit in _units().items():
        radius = float(np.sqrt(area / unit.area))
        drawn = coverage(shape, x - radius * unit.x, y - radius * unit.y, radius, height, width)
        std = float(np.sqrt(max(variance - unit.variance * radius**2, _SMOOTHED)))
        blurred = _gaussian(height, std) @ drawn @ _gaussian(width, std)
        best = min(best, (float(np.abs(weight - blurred).sum()) / area, shape, radius))
    return (best[1] if best[0] <= _SHAPE_ERROR else UNCLEAR), best[2]


def _gaussian(n: int, std: float) -> Float[np.ndarray, "n n"]:
    """The blur of a line of n pixels as a matrix, white beyond its ends."""
    at = np.arange(n)
    return np.exp(-((at - at[:, None]) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi))
