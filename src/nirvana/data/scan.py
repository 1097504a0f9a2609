"""Which files a source holds; of a folder each real file once, in natural order, whatever the file system's order."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from functools import partial
from io import BufferedIOBase
from pathlib import Path

from nirvana.data.collection import Collection, Found, Scan, Stamp, fingerprint, stamp
from nirvana.data.dataset import Rejection
from nirvana.data.decode import reason

_SKIPPED = {"__MACOSX"}
_RUN_FILE = "run.json"


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...] | str, ...]:
    """Sort key of a path: part by part, numbers by value (`2.png` before `10.png`), letters without regard to case."""
    return (*(_natural_part(part) for part in name.split("/")), name)


def _natural_part(part: str) -> tuple[tuple[int, int, str], ...]:
    pieces = re.split(r"(\d+)", part.casefold())
    return tuple((0, int(piece), "") if i % 2 else (1, 0, piece) for i, piece in enumerate(pieces) if piece)


def printable(name: str) -> str:
    """A file name as text that can be written as UTF-8, also where the file system holds other bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def skipped(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name in _SKIPPED


def folder(root: Path) -> Collection:
    """The files below `root`; see `scan`. Its fingerprint is that of names, sizes, and times of change."""
    found, stamps = _walked(root)
    state = fingerprint(stamps, found.rejected, found.left_out)
    return Collection("folder", (os.path.realpath(root),), state, partial(contextlib.nullcontext, found))


def scan(root: Path) -> Scan:
    """Walk `root`. Hidden names, `__MACOSX` and run folders are passed over; devices and pipes are not opened.

    Symbolic links are followed after everything that lies in the folder itself, so that a file reached twice counts
    once, under its own place. A link to a folder that contains the link is a loop and is not followed.
    """
    return _walked(root)[0]


def _walked(root: Path) -> tuple[Scan, list[tuple[str, Stamp]]]:
    """The scan of `root`, and the stamp of each file by which a change shows."""
    walk = _Walk()
    walk.folder(root, "", os.path.realpath(root))
    while walk.links:
        path, name, holder = walk.links.pop(0)
        walk.link(path, name, holder)
    order = sorted(walk.files, key=lambda item: natural(item[0].name))
    found = Scan(tuple(file for file, _ in order), tuple(walk.rejected), tuple(walk.left_out))
    return found, [(file.name, changed) for file, changed in order]


def _opened(path: Path) -> BufferedIOBase:
    return path.open("rb")


class _Walk:
    """The state of one walk: what was found, and which real places were seen."""

    def __init__(self) -> None:
        self.files: list[tuple[Found, Stamp]] = []
        self.rejected: list[Rejection] = []
        self.left_out: list[Rejection] = []
        self.links: list[tuple[Path, str, str]] = []
        self.seen: set[str] = set()

    def folder(self, path: Path, name: str, real: str) -> None:
        """Take in the folder at `path` (its `real` place), whose name inside the root is `name`."""
        if real in self.seen:
            return
        self.seen.add(real)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: natural(entry.name))
        except OSError as error:
            self.rejected.append({"path": printable(name or "."), "reason": f"folder: {reason(error)}"})
            return
        if name and any(entry.name == _RUN_FILE for entry in entries):
            self.left_out.append({"path": printable(name), "reason": "a run of nirvana"})
            return
        for entry in entries:
            if not skipped(entry.name):
                self._entry(entry, f"{name}/{entry.name}" if name else entry.name, real)

    def _entry(self, entry: os.DirEntry[str], name: str, holder: str) -> None:
        if entry.is_symlink():
            self.links.append((Path(entry.path), name, holder))
        elif entry.is_dir(follow_symlinks=False):
            self.folder(Path(entry.path), name, os.path.join(holder, entry.name))
        else:
            self.file(Path(entry.path), name, os.path.join(holder, entry.name))

    def link(self, path: Path, name: str, holder: str) -> None:
        """Follow the symbolic link at `path`, which lies in the real folder `holder`."""
        real = os.path.realpath(path)
        if not os.path.isdir(real):
            self.file(path, name, real)
        elif not Path(holder).is_relative_to(real):
            self.folder(path, name, real)

    def file(self, path: Path, name: str, real: str) -> None:
        """Take in the file at `path`, once."""
        if real in self.seen:
            return
        self.seen.add(real)
        try:
            found = path.stat()
        except OSError as error:
            self.rejected.append({"path": printable(name), "reason": reason(error)})
            return
        if stat.S_ISREG(found.st_mode):
            file = Found(printable(name), partial(_opened, path), found.st_size)
            self.files.append((file, stamp(found)))
