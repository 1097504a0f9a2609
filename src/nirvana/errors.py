"""The one error a user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refused(Exception):
    """A request that cannot be carried out as asked: one line that says what, where and what to do (exit code 2)."""


class Failed(Exception):
    """What was asked for was done, and what it checks is not as it should be: one line (exit code 1)."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `name`, or the empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)
    return f"; did you mean '{near[0]}'?" if near else ""


def unknown(what: str, name: str, known: Iterable[str]) -> Refused:
    """The refusal of an unknown `name`, with the nearest known one and the whole list."""
    listed = sorted(known)
    return Refused(f"unknown {what} '{name}'{nearest(name, listed)} (known: {', '.join(listed) or 'none'})")
