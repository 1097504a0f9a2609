"""Files that are whole or not there: written to a temporary name, flushed to the disk, renamed.

Only `os` functions touch the disk on the way in, so a test can make each of them fail in turn.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from nirvana.errors import Refused

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]

TEMPORARY = ".tmp-"
"""Prefix of everything half-written. A leftover after a crash is safe to delete and is ignored by all readers."""

DIGEST = "digest"
"""Key under which a sealed JSON file carries the sha256 of all the rest."""


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/nirvana/NAME` where that is an absolute path, else `~/.cache/nirvana/NAME`."""
    own = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(own) if os.path.isabs(own) else Path.home() / ".cache"
    return base / "nirvana" / name


class Written(NamedTuple):
    """Size in bytes and sha256 (hexadecimal) of what was written."""

    size: int
    sha256: str


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; a rename survives a power cut only after this."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes | memoryview) -> None:
    # A full disk shows as a short write first and as an error only at the next one.
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Write and flush `chunks` to the new file `path`: durable, but atomic only inside `new_folder`.

    Streams, so a large file costs no second copy in memory. Raises OSError.
    """
    size, digest = 0, hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for chunk in chunks:
            _write_all(handle, chunk)
            digest.update(chunk)
            size += len(chunk)
        os.fsync(handle)
    finally:
        os.close(handle)
    return Written(size, digest.hexdigest())


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


def replace_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> Written:
    """Replace `path` by `chunks` in one step: readers see the old file or the new one, never a part.

    Raises OSError, and then the old one is still there.
    """
    temporary = _temporary(path)
    try:
        written = write_chunks(temporary, chunks)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return written


def write_bytes(path: Path, data: bytes) -> None:
    """`replace_chunks` of one chunk."""
    replace_chunks(path, [data])


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def json_text(value: Json) -> str:
    """Indented JSON, with infinities and NaN refused (ValueError): they are no JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def json_line(value: Json) -> str:
    """JSON on one line, for JSONL files; infinities and NaN are refused (ValueError)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, value: Json) -> None:
    """`write_text` of `json_text`."""
    write_text(path, json_text(value))


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Generator[Path, None, None]:
    """A temporary folder to fill, which becomes `path` in one step when the block ends, and vanishes when it raises.

    `replace` puts it in the place of an existing `path`; a crash between the two renames leaves neither, so use it
    only for what can be made again. Files inside must be flushed by the writer (`write_chunks`). Raises OSError.
    """
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        os.makedirs(temporary)
        yield temporary
        sync_folder(temporary)
        if replace and path.exists():
            remove_folder(path)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create the folder `path` with `files` in one step: it appears with all of them or not at all."""
    with new_folder(path) as temporary:
        for name, data in files.items():
            write_chunks(temporary / name, [data])


def remove_folder(path: Path) -> None:
    """Delete a folder so that no reader ever sees a part of it: it loses its name first. Raises OSError."""
    doomed = path.with_name(f"{TEMPORARY}{os.getpid()}-old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append one line, the whole or (OSError) nothing of it; `durable` waits until it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(handle).st_size
        try:
            _write_all(handle, line.encode() + b"\n")
            if durable:
                os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def repair_lines(path: Path) -> None:
    """Drop what follows the last line end of `path`: a line that a killed process left half-written."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        write_bytes(path, data[:whole])


def remove_temporaries(folder: Path) -> None:
    """Delete what a killed process left half-written directly inside `folder`."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        _remove(leftover)


def _remove(leftover: Path) -> None:
    if leftover.is_dir() and not leftover.is_symlink():
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        leftover.unlink(missing_ok=True)


def read_json(path: Path, way_out: str) -> dict[str, Json]:
    """The JSON object in `path`. Raises Refused, naming the file and the `way_out`, where it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(f"{path} is missing; {way_out}") from None
    except (ValueError, OSError) as error:
        raise Refused(f"{path} is damaged ({error}); {way_out}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path} is damaged (it holds no JSON object); {way_out}")
    return cast("dict[str, Json]", value)


def read_lines(path: Path, way_out: str) -> list[dict[str, Json]]:
    """The objects of a JSONL file, none if it is not there. A half-written last line is ignored, damage is Refused."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    values: list[dict[str, Json]] = []
    for number, line in enumerate(lines, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Refused(f"{path} is damaged in line {number}; {way_out}")
        values.append(cast("dict[str, Json]", value))
    return values


def digest_of(value: Json) -> str:
    """sha256 of the canonical JSON text of `value`."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(value: Mapping[str, Json]) -> dict[str, Json]:
    """`value` with its own digest, so that `read_sealed` notices any edit."""
    return {**value, DIGEST: digest_of(value)}


def read_sealed(path: Path, way_out: str, newest: int) -> dict[str, Json]:
    """The object that `sealed` made, without its digest.

    Raises Refused where the file is missing, damaged or edited, or has a `format_version` above `newest`.
    """
    value = read_json(path, way_out)
    version = value.get("format_version")
    if isinstance(version, int) and version > newest:
        raise Refused(f"{path} has format version {version}, this nirvana reads up to {newest}; update nirvana")
    digest = value.pop(DIGEST, None)
    if digest != digest_of(value) or not isinstance(version, int):
        raise Refused(f"{path} is damaged or was edited (its digest does not fit); {way_out}")
    return value


def remove_abandoned(path: Path) -> None:
    """Delete what a process that has ended left half-written on the way to `path`; to all of a folder: FOLDER / "*"."""
    for leftover in path.parent.glob(f"{TEMPORARY}*-{path.name}"):
        process = leftover.name.removeprefix(TEMPORARY).partition("-")[0]
        if process.isdigit() and not _alive(int(process)):
            _remove(leftover)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def locked(path: Path, refusal: str) -> Generator[None, None, None]:
    """Hold the lock file `path`, which a killed holder frees. Raises Refused(`refusal`) where another one holds it."""
    with explained(path, "free some space there, or make it writable, and run the same command again"):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(refusal) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def explained(where: Path, way_out: str) -> Generator[None, None, None]:
    """Turn an OSError inside the block into one line that names the place, the reason and the `way_out`."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "no space left on the disk" if full else (error.strerror or str(error))
        place = error.filename if isinstance(error.filename, str) else where
        raise Refused(f"cannot write {place}: {reason}; {way_out}") from error
