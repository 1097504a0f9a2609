"""Labels as people write them: a class, or several with weights, `tulip:1.5+rose:0.5`. No torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nirvana.errors import Refused, unknown

Mixture = tuple[tuple[str, float], ...]
"""Class names and their weights."""


def mixture(text: str, names: Sequence[str]) -> Mixture:
    """The classes and weights that `text` names; a class without a weight has 1, and a name of `names` is that class.

    Refused, naming the nearest, where a class is unknown, is named twice, or a weight is 0 or not finite.
    """
    if text in names:
        return ((text, 1.0),)
    parts = tuple(_weighted(part.strip(), names) for part in text.split("+"))
    for name, weight in parts:
        if name not in names:
            raise unknown("label", name, names)
        if weight == 0 or not math.isfinite(weight):
            raise Refused(f"the label '{text}' gives '{name}' the weight {weight:g}; give a number other than 0")
    if len({name for name, _ in parts}) < len(parts):
        raise Refused(f"the label '{text}' names a class twice; add its weights up")
    return parts


def _weighted(part: str, names: Sequence[str]) -> tuple[str, float]:
    name, colon, weight = part.rpartition(":")
    if part in names or not colon:
        return part, 1.0
    try:
        return name.strip(), float(weight)
    except ValueError:
        return part, 1.0
