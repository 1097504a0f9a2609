"""A small grammar of English: every way in which a scene is described. Each caption says all of it."""

from __future__ import annotations

from nirvana.data.shapes.scene import OPPOSITE, Relation, Scene

_WHERE = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
_BESIDE = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}
_UPPER = {"top": "upper", "bottom": "lower"}
_SYNONYMS = {
    "top": "upper middle",
    "bottom": "lower middle",
    "left": "middle left",
    "right": "middle right",
    "centre": "middle",
}
_PREPOSITIONS = {"top": "at", "bottom": "at", "left": "on", "right": "on"}


def captions(scene: Scene) -> tuple[str, ...]:
    """All captions of a scene, the plainest first."""
    return _alone(scene) if not scene.relations else _pair(scene) if len(scene.relations) == 1 else _triple(scene)


def _alone(scene: Scene) -> tuple[str, ...]:
    (thing,), place = scene.things, scene.place or ""
    synonym = _SYNONYMS.get(place) or " ".join(_UPPER.get(word, word) for word in place.split())
    return (
        f"a {thing.name} {_PREPOSITIONS.get(place, 'in')} the {place}",
        f"a {thing.size} {thing.shape} in {thing.colour}, {synonym}",
        f"in the {synonym} there is a {thing.name}",
        f"one {thing.colour} {thing.shape}, {thing.size}, {_PREPOSITIONS.get(place, 'in')} the {place}",
    )


def _pair(scene: Scene) -> tuple[str, ...]:
    (relation,) = scene.relations
    first, second = scene.things[relation.first], scene.things[relation.second]
    there, back = _WHERE[relation.name], _WHERE[OPPOSITE[relation.name]]
    return (
        f"a {first.name} {there} a {second.name}",
        f"a {second.name} {back} a {first.name}",
        f"there is a {first.name} {there} a {second.name}",
        f"a {second.name} with a {first.name} {_BESIDE[relation.name]}",
    )


def _triple(scene: Scene) -> tuple[str, ...]:
    one, two = scene.relations
    first, middle, last = scene.things[one.first], scene.things[one.second], scene.things[two.first]

    def beside(relation: Relation) -> str:
        return f"a {scene.things[relation.first].name} {_BESIDE[relation.name]}"

    short = f"the {middle.colour} {middle.shape}"
    return (
        f"a {first.name} {_WHERE[one.name]} a {middle.name}, and a {last.name} {_WHERE[two.name]} {short}",
        f"a {middle.name} with {beside(one)} and {beside(two)}",
        f"a {middle.name}; {beside(two)}, {beside(one)}",
        f"a {last.name} {_WHERE[two.name]} a {middle.name}, and a {first.name} {_WHERE[one.name]} {short}",
    )
