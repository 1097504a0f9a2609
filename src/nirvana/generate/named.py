"""Solvers, rules and classifiers as people write them: `name` or `name:key=value,key=value`. No torch here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from nirvana.errors import Refused, nearest, unknown

T = TypeVar("T")


@runtime_checkable
class _Says(Protocol):
    """A factory that says itself which numbers it takes, with their defaults."""

    @property
    def parameters(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Named:
    """A name and the numbers that go with it, in the order they were written."""

    name: str
    values: Mapping[str, float]

    def __str__(self) -> str:
        """As it is written."""
        pairs = ",".join(f"{key}={_written(value)}" for key, value in self.values.items())
        return f"{self.name}:{pairs}" if pairs else self.name


def _written(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def parse(kind: str, text: str) -> Named:
    """What `text` says. Refused, calling it a `kind`, where it is not written so or a value is no number."""
    name, colon, listed = text.partition(":")
    values: dict[str, float] = {}
    for part in listed.split(",") if colon else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        if not key or not value:
            raise Refused(f"the {kind} '{text}' is not written as NAME:KEY=VALUE,KEY=VALUE; put {kind} parameters so")
        if key in values:
            raise Refused(f"the {kind} '{text}' says its '{key}' twice; say it once")
        values[key] = _number(kind, text, key, value)
    if not name.strip():
        raise Refused(f"the {kind} '{text}' has no name; write NAME or NAME:KEY=VALUE")
    return Named(name.strip(), values)


def _number(kind: str, text: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Refused(f"the {kind} '{text}' has '{value}' for its '{key}', which takes a number")
    return number


def made(kind: str, text: str, known: Mapping[str, Callable[..., T]], *first: object) -> T:
    """What the factory of that name gives for `first` and the numbers by name.

    Its parameters are those behind `first` with a number as their default; one with a whole number takes whole
    numbers. Refused, naming the nearest, where the name or a parameter is unknown, or the factory raises ValueError.
    """
    named = parse(kind, text)
    if named.name not in known:
        raise unknown(kind, named.name, known)
    factory = known[named.name]
    defaults = parameters(factory, len(first))
    for key, value in named.values.items():
        if key not in defaults:
            takes = ", ".join(defaults) or "none"
            raise Refused(
                f"the {kind} '{named.name}' has no parameter '{key}'{nearest(key, defaults)} (known: {takes})"
            )
        if isinstance(defaults[key], int) and not value.is_integer():
            raise Refused(f"the {kind} '{named.name}' takes a whole number for '{key}', got {value:g}")
    given = {key: int(value) if isinstance(defaults[key], int) else value for key, value in named.values.items()}
    try:
        return factory(*first, **given)
    except ValueError as error:
        raise Refused(f"the {kind} '{text}' is not possible: {error}") from None


def parameters(factory: Callable[..., object], first: int = 0) -> dict[str, int | float]:
    """The numbers that a factory takes by name behind its `first` parameters, with their defaults."""
    if isinstance(factory, _Says):
        return dict(factory.parameters)
    behind = list(inspect.signature(factory).parameters.values())[first:]
    return {p.name: p.default for p in behind if isinstance(p.default, int | float) and not isinstance(p.default, bool)}


def taken(kind: str, text: str, key: str) -> tuple[str, float | None]:
    """`text` without its `key`, and the value that it had, if it had one."""
    named = parse(kind, text)
    if key not in named.values:
        return text, None
    rest = {name: value for name, value in named.values.items() if name != key}
    return str(Named(named.name, rest)), named.values[key]


def listed(text: str) -> list[str]:
    """The values of a list with commas, in which a `name:key=value,key=value` stays together."""
    found: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if found and ":" in found[-1] and "=" in part.partition(":")[0]:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found
