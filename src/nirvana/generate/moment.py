"""The moment of its training that a model is guided by, as people write it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nirvana.errors import Refused, nearest
from nirvana.generate.named import parse


@dataclass(frozen=True)
class Moment:
    """at: a fraction of the run below 1, or images seen. width: sigma_rel of the average, None for the run's first."""

    at: Fraction | int
    width: float | None


def moment(text: str) -> Moment:
    """The moment written as "1/8", "0.125", "7500" (images), or "1/8:width=0.2". Refused where it is none."""
    named = parse("autoguidance", text)
    for key in named.values:
        if key != "width":
            raise Refused(f"autoguidance has no parameter '{key}'{nearest(key, ['width'])} (known: width)")
    try:
        at = Fraction(named.name)
    except (ValueError, ZeroDivisionError):
        at = Fraction(0)
    if at <= 0 or (at >= 1 and at.denominator != 1):
        raise Refused(
            f"autoguidance takes a fraction of the run such as 1/8, or a number of images, got '{named.name}'"
        )
    return Moment(at if at < 1 else int(at), named.values.get("width"))
