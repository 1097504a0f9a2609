"""Whether a file was made as another one would be now: what going on with a folder asks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from nirvana.files import Json

_SHOWN = 40


def difference(
    found: Mapping[str, Json], wanted: Mapping[str, Json], *, own: bool = False, exact: bool = False
) -> str | None:
    """What of the record of a file is not as `wanted`, in words; None: it was made so.

    The versions and the machine may differ, and where the model lies: they change the last bit at most, and each file
    names its own; not so where `exact`. own: the file lies where the picture did that it was made of, so the digests of
    that differ.
    """
    then, now = _flat("", _said(found, own, exact)), _flat("", _said(wanted, own, exact))
    differing = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    if not differing:
        return None
    name = next((name for name in differing if name != "origin.sha256"), differing[0])
    if name == "origin.sha256":
        return "by other weights"
    if name.startswith("origin."):
        return f"by another {'version' if 'versions' in name else 'machine'}"
    shown = name.removeprefix("request.").removeprefix("edit.")
    if shown.endswith("sha256"):
        return f"of another {shown.partition('.')[0]}"
    return f"{shown} {_short(then.get(name))}, now {_short(now.get(name))}"


_DERIVED = ("read", "to", "share")
"""What follows from the rest of a record: older ones have none of it."""


def _said(record: Mapping[str, Json], own: bool, exact: bool) -> dict[str, Json]:
    """What of a record decides about the picture."""
    origin, said = record.get("origin"), {name: value for name, value in record.items() if name not in _DERIVED}
    parts = ("sha256", "versions", "machine") if exact else ("sha256",)
    said["origin"] = {part: origin.get(part) for part in parts} if isinstance(origin, Mapping) else None
    request = record.get("request")
    edit = request.get("edit") if isinstance(request, Mapping) else None
    if own and isinstance(edit, Mapping):
        unread = {name: _unread(edit.get(name)) for name in ("picture", "end")}
        said["request"] = {**cast("Mapping[str, Json]", request), "edit": {**edit, **unread}}
    return said


def _unread(taken: Json) -> Json:
    return {**taken, "sha256": None} if isinstance(taken, Mapping) else taken


def _flat(name: str, value: Json) -> dict[str, Json]:
    """A value as single ones, by their path."""
    if not isinstance(value, Mapping):
        return {name: value}
    parts = [_flat(f"{name}.{key}" if name else key, part) for key, part in value.items()]
    return {path: one for part in parts for path, one in part.items()}


def _short(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = text if len(text) <= _SHOWN else f"…{text[-_SHOWN:]}"  # paths differ at their ends
    return f"'{text}'" if isinstance(value, str) else text or "none"
