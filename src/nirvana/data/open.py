"""The one way to open a source of pictures."""

from __future__ import annotations

import glob
import gzip
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nirvana.data.archive import archives
from nirvana.data.arrays import open_arrays, read_idx_pictures, read_npy, read_npz
from nirvana.data.builtin import BUILTINS, open_builtin
from nirvana.data.collection import Collection
from nirvana.data.dataset import Dataset
from nirvana.data.decisions import Decisions
from nirvana.data.hub import hub, parquet
from nirvana.data.pictures import Progress, open_pictures
from nirvana.data.rows import Arrays, row_name
from nirvana.data.scan import folder, natural
from nirvana.errors import Refused, nearest

MAX_SIZE = 4096
HUB = "hf:"

_ARRAYS: dict[str, Callable[[Path], Arrays]] = {"npy": read_npy, "npz": read_npz, "idx": read_idx_pictures}
_COLLECTIONS: dict[str, Callable[[Sequence[Path], str], Collection]] = {"archive": archives, "parquet": parquet}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_SHARDS = 100_000


def open_data(
    source: str,
    *,
    size: int | None = None,
    allow_bad: bool = False,
    captions: bool = False,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    decisions: Decisions | None = None,
) -> Dataset:
    """Square pictures of `size` pixels, with the labels and the captions that the source has for them.

    A source is a folder (sub-folders are labels), a zip or tar archive of the same, or a pattern of archives
    (`shards/*.tar`, `shards/{000..009}.tar`), each with captions as in `nirvana.data.captions`; a `.npy`, `.npz` or
    IDX file (`nirvana.data.arrays`); parquet files or `hf:NAME` (`nirvana.data.hub`; the only source that may touch
    the network); or a built-in: `digits`, `fashion-mnist` (the full set where its files are found, else the embedded
    subset), `shapes`, `emoji`, and their parts such as `emoji:test`. A folder of the same name is written `./digits`.
    What a file is, its content says.

    `size` None takes a built-in's own size, and otherwise the rule of `open_pictures`. `captions`: refuse a source
    without any. `progress(done, total)` is called while pictures are decoded, and not at all where the cache still
    holds. `decisions`: what `nirvana data check` found of this source, which is obeyed. Refused: whatever the user can
    mend.
    """
    if size is not None and not 1 <= size <= MAX_SIZE:
        raise Refused(f"size {size}: pictures are 1 to {MAX_SIZE} pixels wide; give a size in that range, or none")
    data = _open(source, size, allow_bad, cache_dir, progress, decisions)
    if captions and data.captions is None:
        raise uncaptioned(source, len(data), data.files([0])[0], data.manifest.notes)
    return data


@dataclass(frozen=True)
class ArrayFile:
    """A file of arrays, and what reads it."""

    path: Path
    read: Callable[[Path], Arrays]


@dataclass(frozen=True)
class BuiltIn:
    """A part of a built-in set."""

    name: str
    part: str


def locate(source: str) -> Collection | ArrayFile | BuiltIn:
    """What a source is and where. Refused: nothing there, or nothing that holds pictures."""
    name, _, part = source.partition(":")
    if name in BUILTINS:
        return BuiltIn(name, part)
    if source.startswith(HUB):
        return hub(source.removeprefix(HUB))
    paths = _paths(source)
    if paths[0].is_dir():
        return folder(paths[0])
    kinds = [_kind(path) for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind is None or kind != kinds[0]:
            what = "not a folder, archive, array or table" if kind is None else f"of another kind than {paths[0]}"
            raise Refused(f"{path}: {what}; give the folder that holds the pictures, such as {path.parent}")
    kind = kinds[0] or ""
    if kind in _COLLECTIONS:
        return _COLLECTIONS[kind](paths, source)
    if len(paths) > 1:
        raise Refused(f"{source}: {len(paths)} files of arrays; give one of them, or join them into one")
    return ArrayFile(paths[0], _ARRAYS[kind])


def _open(
    source: str,
    size: int | None,
    allow_bad: bool,
    cache_dir: Path | None,
    progress: Progress | None,
    decisions: Decisions | None,
) -> Dataset:
    place = locate(source)
    if isinstance(place, Collection):
        return open_pictures(place, source, size, allow_bad, cache_dir, progress, decisions)
    if isinstance(place, ArrayFile):
        return open_arrays(place.path, place.read, source, size, cache_dir, progress, decisions)
    data = open_builtin(place.name, place.part, size, cache_dir, progress)
    if decisions is None:
        return data
    left_out = decisions.left_out((row_name(row) for row in range(len(data))), source)
    return data.without((int(item["path"].removeprefix("#")) for item in left_out), left_out)


def _paths(source: str) -> list[Path]:
    """The folder or file that `source` names, or the files that it matches as a pattern, in natural order."""
    expanded = os.path.expanduser(source)
    if source and os.path.exists(expanded):
        return [Path(expanded)]
    patterns = _numbered(expanded)
    found = {path for pattern in patterns for path in _matching(pattern)}
    if not found:
        hint = nearest(source, BUILTINS) or f"; give a folder of pictures or a built-in ({', '.join(sorted(BUILTINS))})"
        raise Refused(f"{source or repr(source)}: no such folder, and no built-in of that name{hint}")
    missing = [pattern for pattern in patterns if not _matching(pattern)]
    if missing:
        raise Refused(
            f"{source}: {missing[0]} is missing ({len(missing)} of {len(patterns)} are); copy it, or ask for less"
        )
    return [Path(path) for path in sorted(found, key=natural)]


def _matching(pattern: str) -> list[str]:
    try:
        return [path for path in glob.glob(pattern) if os.path.isfile(path)]
    except ValueError:  # a NUL byte
        return []


def _numbered(pattern: str) -> list[str]:
    """`{000..123}` written out, as shells and WebDataset do."""
    found = _RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    if not int(first) <= int(last) < int(first) + _MAX_SHARDS:
        raise Refused(f"{pattern}: the range {found[0]} must rise, over at most {_MAX_SHARDS} files")
    numbers = [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    return [whole for n in numbers for whole in _numbered(f"{pattern[: found.start()]}{n}{pattern[found.end() :]}")]


def _kind(path: Path) -> str | None:
    """What a file holds, by its first bytes: "npy", "npz", "idx", "parquet", "archive"; None for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(path) as packed:
                start = packed.read(512)
            return "idx" if _is_idx(start) else "archive"
        if start.startswith(b"PK"):
            return "npz" if _only_arrays(path) else "archive"
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror or error}); copy or download it again") from error
    except (EOFError, zlib.error) as error:
        raise Refused(f"{path}: a corrupt archive ({error}); copy or download it again") from error
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(b"PAR1"):
        return "parquet"
    packed_tar = start.startswith((b"BZh", b"\xfd7zXZ"))
    named = path.suffix.casefold() in (".tar", ".zip")  # damaged in its first bytes, and refused as such
    return "idx" if _is_idx(start) else "archive" if packed_tar or start[257:262] == b"ustar" or named else None


def _is_idx(start: bytes) -> bool:
    return start[:3] == b"\0\0\x08" and start[3:4] in (b"\x03", b"\x04")


def _only_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return path.suffix.casefold() == ".npz"
    return bool(names) and all(name.endswith(".npy") for name in names)


def uncaptioned(source: str, pictures: int, first: str, notes: Sequence[str]) -> Refused:
    """The refusal of a source without captions, whose first picture has this name."""
    said = "".join(f"; {note}" for note in notes)
    return Refused(
        f"{source}: no captions for its {pictures} pictures (first: {first}){said}; put a text of the same name beside"
        f" each ({Path(first).stem}.txt), or a metadata.jsonl with file_name and text"
    )
