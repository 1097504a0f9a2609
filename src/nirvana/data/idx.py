"""IDX files, plain or gzipped: the format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nirvana.data.dataset import FileEntry
from nirvana.errors import Refused

_DAMAGED = (OSError, EOFError, zlib.error, struct.error, ValueError, OverflowError)
_UNSIGNED_BYTE = 0x08
_GZIP = b"\x1f\x8b"


def read_idx(path: Path, way_out: str) -> tuple[UInt8[np.ndarray, "..."], FileEntry]:
    """The unsigned bytes of an IDX file in the shape it states, and its entry for the manifest.

    Refused, with the `way_out`: damaged, other than it states, or of another type than unsigned bytes.
    """
    try:
        packed = path.read_bytes()
        with gzip.open(path) if packed[:2] == _GZIP else path.open("rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if zeros or kind != _UNSIGNED_BYTE:
                raise ValueError("wrong magic number")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            size = int(np.prod(shape, dtype=object))
            # One byte more than stated tells too long from right, and bounds what a bomb can inflate to.
            values = np.frombuffer(file.read(size + 1), np.uint8)
        if len(values) != size:
            raise ValueError(f"{'more' if len(values) > size else 'less'} than the {size} bytes it states")
    except _DAMAGED as error:
        raise Refused(f"{path}: no IDX file that can be read ({error}); {way_out}") from error
    entry: FileEntry = {"path": path.name, "sha256": hashlib.sha256(packed).hexdigest(), "label": None}
    return values.reshape(shape), entry
