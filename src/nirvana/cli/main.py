"""The entry point: global options, the table of commands, and what every way to end is called."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType

from nirvana import __version__
from nirvana.cli.console import Console
from nirvana.errors import Failed, Refused, nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("nirvana.cli.demo", "from noise to pictures in a few minutes: train, draw, measure"),
    "data check": ("nirvana.cli.data", "find what is wrong with pictures before training on them"),
    "train": ("nirvana.cli.train", "train a model on a folder of pictures, or go on with a training"),
    "generate": ("nirvana.cli.generate", "make new pictures with a trained model"),
    "prompt": ("nirvana.cli.prompt", "show how a model reads a prompt"),
    "inpaint": ("nirvana.cli.edit", "fill a part of a picture; the rest stays as it is"),
    "outpaint": ("nirvana.cli.edit", "extend a picture beyond its border"),
    "translate": ("nirvana.cli.edit", "make pictures of others, by a model that was trained on pairs"),
    "vary": ("nirvana.cli.edit", "draw a picture again, changed as much as you say"),
    "blend": ("nirvana.cli.edit", "go from one picture to another, through what lies between their noises"),
    "sheet": ("nirvana.cli.sheet", "compare settings on one labelled page"),
    "evaluate": ("nirvana.cli.evaluate", "measure what a model draws, with intervals and a report"),
    "compare": ("nirvana.cli.compare", "put evaluated runs side by side"),
    "reproduce": ("nirvana.cli.reproduce", "make a generated picture again and compare"),
    "info": ("nirvana.cli.info", "say what is known about a trained model"),
    "likelihood": ("nirvana.cli.likelihood", "say how probable a model holds pictures to be, in bits per dimension"),
    "solvers": ("nirvana.cli.solvers", "list the solvers, and when to choose which"),
    "zoo": ("nirvana.cli.zoo", "list the models that come with nirvana"),
    "pack": ("nirvana.cli.pack", "make a small copy of a trained model, to give away"),
    "profile": ("nirvana.cli.profile", "say where the time of a training and a sampling step goes"),
    "export": ("nirvana.cli.export", "write the network for a faster engine"),
    "verify": ("nirvana.cli.verify", "prove solvers, ours and yours, against exact answers"),
}
"""name -> (module with a function of that name, "_" for a space, one line). None is imported to print the help."""

GLOBAL = {
    "--quiet": "no notes and no progress",
    "--json": "results as JSON lines",
    "--debug": "tracebacks of errors",
}

EXAMPLES = """\
examples:
  nirvana train flowers/ --minutes 10                # sub-folders are labels; resumes when run again
  nirvana generate runs/flowers --label tulip -n 16  # 000.png, 001.png, ... and grid.png
  nirvana generate runs/shapes "a red circle" -n 4   # a model that was trained on captions
  nirvana sheet runs/flowers --x steps=4,8,16 --y guidance=1,2,4
"""

DONE, FAILED, BUG, REFUSED, INTERRUPTED = 0, 1, 1, 2, 130

_MENDABLE = {
    errno.ENOSPC: "no space left on the disk; free some and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EPERM: "permission denied; choose another place or change its permissions",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ELOOP: "is a link that leads to itself; name something else",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file; choose another place",
    errno.EISDIR: "is a folder; name a file",
}


def help_text() -> str:
    """The top-level help."""
    width = max(map(len, (*COMMANDS, *GLOBAL))) + 2
    commands = "\n".join(f"  {name:<{width}}{line}" for name, (_, line) in COMMANDS.items())
    options = "\n".join(f"  {name:<{width}}{line}" for name, line in GLOBAL.items())
    return (
        "usage: nirvana COMMAND [OPTIONS]\n\n"
        "Diffusion models, from noise to pictures.\n\n"
        f"commands (each has its own --help):\n{commands}\n\n"
        f"options of every command:\n{options}\n"
        f"  {'--version':<{width}}the version of nirvana\n\n{EXAMPLES}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; exit code 0 done, 2 refused (the user can mend it), 130 interrupted, 1 a failed proof or a bug."""
    args = list(sys.argv[1:] if argv is None else argv)
    console = Console(*(name in args for name in GLOBAL))
    args = [arg for arg in args if arg not in GLOBAL]
    try:
        with _terminated_is_interrupted():
            return _run(args, console)
    except Refused as error:
        return _failed(console, str(error), REFUSED)
    except Failed as error:
        return _failed(console, str(error), FAILED)
    except KeyboardInterrupt as error:
        return _failed(console, str(error) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has seen enough; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in _MENDABLE:
            return _bug(console, error)
        where = f"{error.filename}: " if error.filename else ""
        return _failed(console, f"{where}{_MENDABLE[error.errno]}", REFUSED)
    except Exception as error:
        return _bug(console, error)


def _run(args: list[str], console: Console) -> int:
    name = args[0] if args else "--help"
    if name in ("--help", "-h", "help"):
        print(help_text(), end="")
        return DONE
    if name == "--version":
        print(f"nirvana {__version__}")
        return DONE
    if name.startswith("-"):
        known = ("--help", "--version", *GLOBAL)
        raise Refused(f"unknown option '{name}'{nearest(name, known)}; see `nirvana --help`")
    if any(known.startswith(f"{name} ") for known in COMMANDS):
        name, args = " ".join(args[:2]), args[1:]
    if name not in COMMANDS:
        raise Refused(f"unknown command '{name}'{nearest(name, COMMANDS)} (known: {', '.join(COMMANDS)})")
    from nirvana.cli.parse import call
    from nirvana.train.allocator import keep_memory

    keep_memory()
    call(getattr(importlib.import_module(COMMANDS[name][0]), name.replace(" ", "_")), name, args[1:], console)
    return DONE


def _failed(console: Console, message: str, code: int) -> int:
    """Say it in one line; with --debug after the traceback."""
    if console.debug and code != INTERRUPTED:
        import traceback

        traceback.print_exc()
    print(f"nirvana: {' '.join(message.split())}", file=sys.stderr)
    return code


def _bug(console: Console, error: Exception) -> int:
    hint = "" if console.debug else "; run the same command with --debug for the traceback"
    return _failed(console, f"a bug of ours: {type(error).__name__}: {error}{hint}", BUG)


@contextmanager
def _terminated_is_interrupted() -> Generator[None]:
    """SIGTERM is handled as Ctrl-C, so that a training saves before it ends. Only Python's main thread gets signals."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        # What holds Ctrl-C back holds this back too. Shells ignore Ctrl-C in the background: then it is raised here.
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)
        else:
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
