"""Zip and tar archives as collections, read in place. Nothing in them is unpacked by its name.

A compressed tar can only be read from the front, so it is inflated into one unnamed temporary file while its pictures
are decoded. Refused: archives with absolute paths, `..`, links or devices, encrypted or damaged ones, and bombs.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, cast

from nirvana.data.collection import Collection, Found, Scan, fingerprint, stamp
from nirvana.data.dataset import Rejection
from nirvana.data.scan import natural, skipped
from nirvana.errors import Refused

MAX_MEMBER = 2**30
"""Larger members are no pictures and are not read."""
BOMB_BYTES, BOMB_RATIO = 2**30, 200
"""Refused where it inflates to more than the first number of bytes and more than the second times its own size."""

_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError)
_PACKED: dict[bytes, Callable[[Path], BufferedIOBase]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_BLOCK, _CHUNK = 512, 2**20


def archives(paths: Sequence[Path], source: str) -> Collection:
    """The files of zip and tar archives, in natural order. Of several archives (shards) each lends its name to them."""
    state = fingerprint([(path.name, stamp(path.stat())) for path in paths])
    where = tuple(os.path.realpath(path) for path in paths)
    return Collection("archive", where, state, partial(_opened, tuple(paths), source))


@contextlib.contextmanager
def _opened(paths: Sequence[Path], source: str) -> Generator[Scan]:
    with contextlib.ExitStack() as stack:
        files: list[Found] = []
        rejected: list[Rejection] = []
        for path in paths:
            shard = f"{path.name}/" if len(paths) > 1 else ""
            where = str(path) if shard else source
            try:
                members = stack.enter_context(_zip(path, where) if _is_zip(path) else _tar(path, where))
            except _DAMAGED as error:
                raise Refused(f"{where}: a corrupt archive ({error}); copy or download it again") from error
            for name, member in members.items():  # a name that occurs twice is the later member, as in unpacking
                if any(skipped(part) for part in name.split("/")):
                    continue
                if member.size > MAX_MEMBER:
                    rejected.append({"path": shard + name, "reason": f"larger than {MAX_MEMBER} bytes"})
                else:
                    files.append(Found(shard + name, member.open, member.size, shard))
        yield Scan(tuple(sorted(files, key=lambda file: natural(file.name))), tuple(rejected))


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _name(name: str, where: str) -> str:
    """The name of a member with forward slashes. Refused: it leads out of the archive."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        raise Refused(f"{where}: holds the path {name!r}, which leads out of it; pack the pictures again")
    return "/".join(part for part in parts if part not in ("", "."))


def _forbid(kind: str, name: str, where: str) -> Refused:
    return Refused(f"{where}: holds {name!r}, which is {kind}; pack the pictures again without it")


def _guard(inflated: int, packed: int, where: str) -> None:
    """Refuse what inflates to far more than pictures do."""
    if inflated > BOMB_BYTES and inflated > BOMB_RATIO * packed:
        raise Refused(f"{where}: its {packed} bytes inflate to more than {inflated - 1}: a decompression bomb")


@contextlib.contextmanager
def _zip(path: Path, where: str) -> Generator[dict[str, Found]]:
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _guard(sum(info.file_size for info in infos), path.stat().st_size, where)
        members: dict[str, Found] = {}
        for info in infos:
            name = _name(info.filename, where)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _forbid("a link or a device", info.filename, where)
            if info.flag_bits & 0x1:
                raise _forbid("encrypted", info.filename, where)
            members[name] = Found(name, partial(_open_zipped, archive, info), info.file_size)
        yield members


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BufferedIOBase:
    return cast(BufferedIOBase, archive.open(info))


@contextlib.contextmanager
def _tar(path: Path, where: str) -> Generator[dict[str, Found]]:
    with contextlib.ExitStack() as stack:
        plain: IO[bytes] = stack.enter_context(path.open("rb"))
        unpack = _PACKED.get(plain.read(2))
        if unpack is not None:
            plain = stack.enter_context(_inflated(stack.enter_context(unpack(path)), path, where))
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            members = {}
            for info in archive:
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _forbid("a link, a device or a sparse file", info.name, where)
                name = _name(info.name, where)
                members[name] = Found(name, partial(_section, plain.fileno(), info.offset_data, info.size), info.size)
            end = os.pread(plain.fileno(), _BLOCK, archive.offset)
        # tarfile takes a damaged header after the first for the end, and does not miss the end mark.
        if any(end) or len(end) < _BLOCK:
            raise tarfile.ReadError(f"neither a header nor the end mark at byte {archive.offset}")
        yield members


def _section(file: int, offset: int, size: int) -> BufferedIOBase:
    """The bytes of a member, read without moving the file, so that threads do not disturb each other."""
    return BytesIO(os.pread(file, size, offset))


@contextlib.contextmanager
def _inflated(stream: BufferedIOBase, path: Path, where: str) -> Generator[IO[bytes]]:
    """The whole of a compressed stream in an unnamed file, which is gone when it is closed."""
    with tempfile.TemporaryFile() as out:
        packed = path.stat().st_size
        while chunk := stream.read(_CHUNK):
            try:
                out.write(chunk)
            except OSError as error:
                place = tempfile.gettempdir()
                raise Refused(
                    f"{where}: no room to inflate it in {place} ({error}); set TMPDIR, or unpack it"
                ) from error
            _guard(out.tell(), packed, where)
        out.flush()
        yield out
