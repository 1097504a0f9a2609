"""Values of a request, each checked where it enters. No torch here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

from nirvana.errors import Refused, nearest

SEEDS = 2**63
"""Seeds are below it."""


def whole(name: str, value: object, least: int, most: int = SEEDS - 1) -> int:
    """`value` if it is an integer in least..most, else Refused."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(f"{name} must be a whole number, got {value!r}")
    if not least <= value <= most:
        bound = f"at least {least}" if value < least else "at most 2^63-1" if most == SEEDS - 1 else f"at most {most}"
        raise Refused(f"{name} must be {bound}, got {value}")
    return value


def number(name: str, value: object, least: float = 0.0) -> float:
    """`value` if it is a finite number of at least `least`, else Refused."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refused(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or value < least:
        raise Refused(f"{name} must be a finite number of at least {least:g}, got {value}")
    return float(value)


def flag(name: str, value: object) -> bool:
    """`value` if it is true or false, else Refused."""
    if not isinstance(value, bool):
        raise Refused(f"{name} must be true or false, got {value!r}")
    return value


def text(name: str, value: object) -> str:
    """`value` if it is a non-empty string, else Refused."""
    if not isinstance(value, str) or not value:
        raise Refused(f"{name} must be a non-empty name, got {value!r}")
    return value


def entries(what: str, value: object) -> dict[str, object]:
    """The entries of a JSON object; Refused, calling it `what`, where it is none."""
    if not isinstance(value, Mapping):
        raise Refused(f"{what} must be a JSON object, got {type(value).__name__}")
    return dict(cast("Mapping[str, object]", value))


def check_fields(what: str, fields: Mapping[str, object], kind: type[Any]) -> None:
    """Refused, calling it `what`, unless `fields` has all fields of the dataclass `kind` and no other."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in fields:
        if name not in known:
            raise Refused(f"{what} has an unknown field '{name}'{nearest(name, known)}")
    for name in known:
        if name not in fields:
            raise Refused(f"{what} lacks its field '{name}'; it is damaged or edited")


Since = Mapping[int, Mapping[str, object]]
"""The fields that came with a version, and what things from before it mean."""


def later(since: Since, version: int) -> dict[str, object]:
    """The fields that `version` does not have yet, and what it means there."""
    return {name: value for number, added in since.items() if number > version for name, value in added.items()}


def check_later(what: str, of: object, since: Since, version: int) -> None:
    """Refused, calling it `what`, where `of` says something that a request of `version` cannot."""
    for name, value in later(since, version).items():
        if getattr(of, name) != value:
            raise Refused(f"{what} of version {version} has no '{name}'; make it of version {max(since)}")
