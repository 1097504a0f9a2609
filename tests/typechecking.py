"""The type checker that every function of ours runs under in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ForwardRef

from beartype import BeartypeConf, FrozenDict, beartype

# beartype cannot follow a type that contains itself, so what is declared as JSON is taken as it comes.
_AGAIN = ForwardRef("Json")
_JSON = None | bool | int | float | str | Sequence[_AGAIN] | Mapping[str, _AGAIN]

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({_JSON: object})))
