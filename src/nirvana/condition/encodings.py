"""Encoded texts on disk: a part is whole or not there, so that encoding a caption set survives being killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float16

from nirvana import files
from nirvana.errors import Refused
from nirvana.files import Json

FORMAT = 1
PART = 512
"""Texts in a file: what a kill can lose."""

Row = Float16[np.ndarray, "_ w"]
"""The states of the tokens of a text."""

Encode = Callable[[Sequence[str]], Sequence[Row]]


def encodings(
    identity: Mapping[str, Json],
    texts: Sequence[str],
    encode: Encode,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Row]:
    """The states of all `texts`, mapped from the user's cache, where `encode` puts those that are not there yet.

    identity: of the encoder. progress(done, total) is called after each part that is encoded. Refused where the cache
    cannot be written.
    """
    ordered = sorted(dict.fromkeys(texts), key=lambda text: (len(text), text))  # alike in length: little padding
    key = files.digest_of({"format": FORMAT, "identity": identity, "texts": ordered})
    folder = files.cache_folder("encodings") / key
    found: dict[str, Row] = {}
    for number, part in enumerate(_parts(ordered)):
        path = folder / f"{number:06d}.npy"
        rows = _read(path, len(part))
        if rows is None:
            with files.explained(path, "make room there, or choose another cache with XDG_CACHE_HOME"):
                _write(path, encode(part))
            rows = _read(path, len(part))
            progress(len(found) + len(part), len(ordered))
        if rows is None:
            raise Refused(f"{path} changes while it is read; run the same command again")
        found.update(zip(part, rows, strict=True))
    return found


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + PART] for start in range(0, len(texts), PART))


def _write(path: Path, rows: Sequence[Row]) -> None:
    """The states of a part behind each other, and then what completes it: their lengths and the sha256 of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_temporaries(path.parent)
    data = BytesIO()
    np.save(data, np.concatenate(list(rows)), allow_pickle=False)
    written = files.replace_chunks(path, [data.getvalue()])
    lengths: list[Json] = [len(row) for row in rows]
    about = {"format_version": FORMAT, "lengths": lengths, "sha256": written.sha256}
    files.write_json(path.with_suffix(".json"), files.sealed(about))


def _read(path: Path, count: int) -> list[Row] | None:
    """The rows of a part, mapped; None where it is missing or damaged: then it is made anew."""
    try:
        about = files.read_sealed(path.with_suffix(".json"), "it is made anew", FORMAT)
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == about["sha256"]
        states = np.load(path, mmap_mode="r", allow_pickle=False)
    except (Refused, OSError, EOFError, ValueError, KeyError):
        return None
    lengths = cast("list[int]", about["lengths"])
    if not whole or len(lengths) != count or sum(lengths) != len(states):
        return None
    return np.split(states, np.cumsum(lengths)[:-1].tolist())
