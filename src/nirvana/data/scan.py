"""Which files a folder holds: each real file once, in natural order, whatever the file system's order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from nirvana.data.dataset import Rejection
from nirvana.data.decode import reason

_SKIPPED = {"__MACOSX"}
_RUN_FILE = "run.json"


@dataclass(frozen=True)
class Found:
    """A regular file: where it is, its name inside the folder, and the stamp by which a change shows."""

    path: Path
    name: str
    stamp: tuple[int, int, int]


@dataclass(frozen=True)
class Scan:
    """The files of a folder in natural order, what could not be listed, and what was passed over."""

    files: tuple[Found, ...]
    rejected: tuple[Rejection, ...]
    left_out: tuple[Rejection, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 over names, sizes, and times of change (of content and permissions): equal means nothing is new."""
        stamps = [(file.name, *file.stamp) for file in self.files]
        return hashlib.sha256(json.dumps([stamps, self.rejected, self.left_out]).encode()).hexdigest()


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...] | str, ...]:
    """Sort key of a path: part by part, numbers by value (`2.png` before `10.png`), letters without regard to case."""
    return (*(_natural_part(part) for part in name.split("/")), name)


def _natural_part(part: str) -> tuple[tuple[int, int, str], ...]:
    pieces = re.split(r"(\d+)", part.casefold())
    return tuple((0, int(piece), "") if i % 2 else (1, 0, piece) for i, piece in enumerate(pieces) if piece)


def printable(name: str) -> str:
    """A file name as text that can be written as UTF-8, also where the file system holds other bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def scan(root: Path) -> Scan:
    """Walk `root`. Hidden names, `__MACOSX` and run folders are passed over; devices and pipes are not opened.

    Symbolic links are followed after everything that lies in the folder itself, so that a file reached twice counts
    once, under its own place. A link to a folder that contains the link is a loop and is not followed.
    """
    walk = _Walk()
    walk.folder(root, "", os.path.realpath(root))
    while walk.links:
        path, name, holder = walk.links.pop(0)
        walk.link(path, name, holder)
    files = tuple(sorted(walk.files, key=lambda file: natural(file.name)))
    return Scan(files, tuple(walk.rejected), tuple(walk.left_out))


class _Walk:
    """The state of one walk: what was found, and which real places were seen."""

    def __init__(self) -> None:
        self.files: list[Found] = []
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
            if not entry.name.startswith(".") and entry.name not in _SKIPPED:
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
            self.files.append(Found(path, printable(name), (found.st_size, found.st_mtime_ns, found.st_ctime_ns)))
