"""Conditioners from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from nirvana.condition.both import LabelAndTextConditioner
from nirvana.condition.encoder import TextEncoder, joint_from_config
from nirvana.condition.frozen import frozen_from_config
from nirvana.condition.labels import LabelConditioner, NoConditioner
from nirvana.condition.text import TextConditioner
from nirvana.errors import Refused, unknown

Conditioner = LabelConditioner | TextConditioner | LabelAndTextConditioner | NoConditioner

Config = Mapping[str, object]


def conditioner_from_config(config: Config) -> Conditioner:
    """The conditioner that `config()` described; Refused on an unknown kind or a malformed entry."""
    kind = config.get("kind")
    if kind == "none":
        return NoConditioner()
    if kind == "labels":
        return _label(config)
    if kind == "text":
        return _text(config)
    if kind == "label+text":
        return LabelAndTextConditioner(_label(_part(config, "label")), _text(_part(config, "text")))
    raise unknown("conditioner", str(kind), ("labels", "text", "label+text", "none"))


def _label(config: Config) -> LabelConditioner:
    return LabelConditioner(_names(config, "names", "label"), *_dim_and_drop(config, "label"))


def _text(config: Config) -> TextConditioner:
    encoder = encoder_from_config(_part(config, "encoder"))
    return TextConditioner(encoder, *_dim_and_drop(config, "text"), _names(config, "examples", "text"))


def encoder_from_config(config: Config) -> TextEncoder:
    """The encoder that `config()` described; one that is not trained jointly is read when it is first needed."""
    kind = config.get("kind")
    if kind == "joint":
        return joint_from_config(config)
    if kind == "frozen":
        return frozen_from_config(config)
    raise unknown("text encoder", str(kind), ("joint", "frozen"))


def _part(config: Config, name: str) -> Config:
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise Refused(f"the conditioner's '{name}' must be an object, got {value!r}")
    return cast(Config, value)


def _names(config: Config, name: str, what: str) -> tuple[str, ...]:
    names = config.get(name, ())
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in cast("list[object]", names)):
        raise Refused(f"the {what} conditioner's {name} must be a list of strings, got {names!r}")
    return tuple(cast("list[str]", names))


def _dim_and_drop(config: Config, what: str) -> tuple[int, float]:
    dim, drop = config.get("dim"), config.get("drop", 0.1)
    if not isinstance(dim, int) or isinstance(dim, bool) or not isinstance(drop, int | float):
        raise Refused(f"the {what} conditioner needs an integer dim and a number drop, got dim={dim!r}, drop={drop!r}")
    return dim, float(drop)
