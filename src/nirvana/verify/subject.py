"""Whose solver is proven: one of ours by name, or a user's `package.module:MySolver`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, cast

from nirvana.diffusion.named import SOLVERS
from nirvana.errors import Refused, nearest, unknown
from nirvana.verify.walks import AnySolver

MEMBERS = ("order", "started_order", "deterministic", "calls", "init", "step", "revise")
"""What a solver has (nirvana.diffusion.Solver)."""


def solver(name: str) -> AnySolver:
    """A new solver of that name, or of `package.module:attribute`, a class, a function that makes one, or one itself.

    The current folder is importable. Raises Refused where there is none, where it cannot be made without arguments, or
    where it lacks a member of the protocol.
    """
    if ":" in name:
        return _checked(name, _made(name, _imported(name)))
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS) if SOLVERS else Refused("no solvers")
    return SOLVERS[name]()


def _imported(name: str) -> object:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise Refused(f"'{name}' names no solver: write package.module:MySolver")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = f"'{error.name}' is not found" if error.name != module_name else "there is no such module"
        raise Refused(f"cannot import '{module_name}': {where}, neither installed nor in {os.getcwd()}") from error
    except Exception as error:
        raise Refused(f"cannot import '{module_name}': it raises {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [word for word in dir(found) if not word.startswith("_")]
            raise Refused(f"'{module_name}' has no '{attribute}'{nearest(part, known)}")
        found = getattr(found, part)
    return found


def _made(name: str, found: object) -> object:
    """`found` called without arguments, unless it is a solver already."""
    if not isinstance(found, type) and hasattr(found, "step"):
        return found
    if not callable(found):
        raise Refused(
            f"'{name}' is no solver: it is a {type(found).__name__}; name a class or a function without arguments"
        )
    try:
        return cast("Callable[[], Any]", found)()
    except Exception as error:
        raise Refused(
            f"'{name}' cannot be made without arguments ({type(error).__name__}: {error});"
            " name a function that makes it"
        ) from error


def _checked(name: str, made: object) -> AnySolver:
    missing = [member for member in MEMBERS if not hasattr(made, member)]
    if missing:
        raise Refused(
            f"'{name}' makes a {type(made).__name__} without {', '.join(missing)}; a solver has {', '.join(MEMBERS)}"
        )
    for member in ("calls", "init", "step", "revise"):
        if not callable(getattr(made, member)):
            raise Refused(f"'{name}': {member} is no method")
    for member in ("order", "started_order"):
        value = getattr(made, member)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise Refused(f"'{name}': {member} is {value!r}, not a whole number from 0")
    if not isinstance(getattr(made, "deterministic"), bool):  # noqa: B009
        raise Refused(f"'{name}': deterministic is {getattr(made, 'deterministic')!r}, neither True nor False")  # noqa: B009
    return cast(AnySolver, made)
