"""Files that can be read at random, wherever they lie: what folders, archives and tables have in common."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedIOBase

from nirvana.data.dataset import Rejection

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """A file of a source: its name there, how to open it, its size in bytes, and where its name is inside its shard.

    `shard` is the part of the name (with its "/") that says which of several archives holds it.
    """

    name: str
    open: Callable[[], BufferedIOBase]
    size: int
    shard: str = ""

    def read(self) -> bytes:
        """All bytes."""
        with self.open() as file:
            return file.read()


@dataclass(frozen=True)
class Words:
    """What is said of a picture: its captions and the name of its class."""

    captions: tuple[str, ...] = ()
    label: str | None = None


@dataclass(frozen=True)
class Scan:
    """The files of a source in order, what could not be listed, and what was passed over.

    `words` says what a table holds of its pictures by their names; None where captions and labels are found beside the
    pictures.
    """

    files: tuple[Found, ...]
    rejected: tuple[Rejection, ...] = ()
    left_out: tuple[Rejection, ...] = ()
    words: Mapping[str, Words] | None = None


@dataclass(frozen=True)
class Collection:
    """Files that can be read at random: those of a folder, of archives, or of a table.

    `identity` says which place this is, `fingerprint` in which state it is (equal means nothing is new), and `files`
    lists them; they can be opened inside its context.
    """

    kind: str
    identity: tuple[str, ...]
    fingerprint: str
    files: Callable[[], AbstractContextManager[Scan]]


def stamp(found: os.stat_result) -> Stamp:
    """Size, and times of change of content and of permissions."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def fingerprint(*state: object) -> str:
    """sha256 over anything that JSON can hold."""
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()
