"""From a typed function to its command: tyro parses and writes the help, refusals are ours, on one line."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import re
import typing
from collections.abc import Callable, Sequence

import tyro

from nirvana.cli.console import Console
from nirvana.cli.main import GLOBAL
from nirvana.errors import Refused, nearest

Command = Callable[..., None]
"""A command: its first parameter is the Console, the others come from the command line."""

_WORDS = {
    r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)": r"\1 takes a whole number, got \2",
    r"Error parsing (\S+): could not convert string to float: (.*)": r"\1 takes a number, got \2",
    r"Error parsing (\S+): no type matching .*INT could be instantiated from \['(.*?)'\].*": (
        r"\1 takes a whole number, got '\2'"
    ),
    r"Error parsing (\S+): no type matching .*FLOAT could be instantiated from \['(.*?)'\].*": (
        r"\1 takes a number, got '\2'"
    ),
    r"Missing value for argument '(.*)'\. Expected.*": r"\1 needs a value",
    r"Unrecognized options: (.*)": r"\1 is one argument too many",
}
"""What the parser says, in words for people."""


def call(command: Command, name: str, args: Sequence[str], console: Console) -> None:
    """Parse `args` and run `command`. Refused, naming the nearest option, where they do not fit."""
    check_options(command, name, args)
    arguments: dict[str, object] = {}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            tyro.cli(
                _collecting(command, arguments),
                args=list(args),
                prog=f"nirvana {name}",
                description=_description(command),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code:
            raise Refused(_one_line(errors.getvalue(), name)) from None
        return
    command(console, **arguments)


def _collecting(command: Command, arguments: dict[str, object]) -> Callable[..., None]:
    """A function with the parameters of `command`, less the Console, that keeps what it is called with.

    So the command itself runs outside tyro, and its errors and prints are not taken for those of the parser.
    """
    signature = inspect.signature(command)
    hints = typing.get_type_hints(command, include_extras=True)
    parameters = [p.replace(annotation=hints[p.name]) for p in list(signature.parameters.values())[1:]]

    @functools.wraps(command)
    def collect(**values: object) -> None:
        arguments.update(values)

    collect.__dict__["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
    collect.__annotations__ = {p.name: p.annotation for p in parameters}
    del collect.__dict__["__wrapped__"]  # or the first parameter would be seen through it
    return collect


def _description(command: Command) -> str:
    text = inspect.cleandoc(command.__doc__ or "").partition("\nArgs:")[0].strip()
    return f"{text}\n\nFor every command: {', '.join(GLOBAL)}."


def options(command: Command) -> list[str]:
    """The options of a command as they are typed."""
    return ["--help", "-h", *_options(command)]


def _options(of: object) -> list[str]:
    """Those of a function's parameters, or of a dataclass of options that several commands share."""
    found: list[str] = []
    for name, hint in list(typing.get_type_hints(of, include_extras=True).items()):
        if name in ("console", "return"):
            continue
        if dataclasses.is_dataclass(plain := getattr(hint, "__origin__", hint)):
            found += _options(plain)
            continue
        configs = [extra for extra in getattr(hint, "__metadata__", ()) if hasattr(extra, "aliases")]
        named = [config.name for config in configs if config.name]
        found.append("--" + (named[0] if named else name).replace("_", "-"))
        found += [alias for config in configs for alias in config.aliases or ()]
    return found


def check_options(command: Command, name: str, args: Sequence[str]) -> None:
    """Refused at the first option that `command` does not have, with the nearest it has."""
    known = options(command)
    for arg in args:
        option = arg.partition("=")[0].replace("_", "-")
        if re.match(r"-[-a-zA-Z]", option) and option not in known:
            listed = (*known, *GLOBAL)
            raise Refused(f"unknown option '{option}'{nearest(option, listed)}; see `nirvana {name} --help`")


def _one_line(box: str, name: str) -> str:
    """The message inside the box that tyro draws around it, which has no sides on terminals without UTF-8."""
    lines = [line[1:].rstrip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    top = 2 if len(lines) > 1 and _is_rule(lines[1]) else 1
    message = list(itertools.takewhile(lambda line: not _is_rule(line), lines[top:]))
    if message and message[0].strip().startswith("Missing from"):
        missing = [line.strip() for line in message if re.match(r" {5}\S", line)]
        return f"{', '.join(missing)} is missing; see `nirvana {name} --help`"
    text = " ".join(line.strip("╰─╯ ") for line in message).strip(" .") or "the arguments do not fit"
    for pattern, words in _WORDS.items():
        text = re.sub(pattern, words, text)
    return f"{text}; see `nirvana {name} --help`"


def _is_rule(line: str) -> bool:
    return bool(line.strip()) and not set(line.strip()) - {"─", "-"}
