"""Parquet files and the data sets of the Hugging Face hub, through `datasets` (the extra `hub`).

A table holds its pictures in a column of the type Image, or of structs of `bytes` and `path`. Captions and labels are
in the columns that tables beside pictures have too (`nirvana.data.captions`); a column of the type ClassLabel is a
label under any name.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import threading
from collections.abc import Generator, Sequence
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any

from nirvana.data.captions import CAPTION_COLUMNS, LABEL_COLUMNS, first_column, label_text, texts
from nirvana.data.collection import Collection, Found, Scan, Words, fingerprint, stamp
from nirvana.errors import Refused

_ENCODED = {"bytes", "path"}


def hub(name: str) -> Collection:
    """`NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT` on the hub, downloaded by `datasets` where it is not there yet.

    The split is `train` where none is given.
    """
    datasets = _datasets(f"hf:{name}")
    path, *rest = name.split(":")
    if not path or len(rest) > 2:
        raise Refused(f"hf:{name}: give hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT")
    config, split = rest if len(rest) == 2 else (None, *(rest or ["train"]))
    try:
        table = datasets.load_dataset(path, config, split=split)
    except Exception as error:  # of the network, of the hub, of a script that is gone: each says what it is
        raise Refused(f"hf:{name}: cannot be loaded ({_line(error)}); check name, split and network") from error
    state = fingerprint(table._fingerprint, len(table))
    return Collection("table", ("hub", name), state, partial(contextlib.nullcontext, _rows(table, f"hf:{name}")))


def parquet(paths: Sequence[Path], source: str) -> Collection:
    """The rows of parquet files, in the order of the files."""
    _datasets(source)
    state = fingerprint([(path.name, stamp(path.stat())) for path in paths])
    where = tuple(os.path.realpath(path) for path in paths)
    return Collection("table", where, state, partial(_parquet, [str(path) for path in paths], source))


@contextlib.contextmanager
def _parquet(paths: list[str], source: str) -> Generator[Scan]:
    datasets = _datasets(source)
    with tempfile.TemporaryDirectory(prefix="nirvana-") as folder:
        try:
            table = datasets.Dataset.from_parquet(paths, cache_dir=folder)
        except Exception as error:  # of pyarrow, of datasets, of the disk: each says what it is
            raise Refused(f"{source}: no parquet that can be read ({_line(error)}); download it again") from error
        yield _rows(table, source)


def _datasets(source: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise Refused(f"{source}: needs the extra 'hub'; install it with: pip install 'nirvana[hub]'") from error


def _line(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def _rows(table: Any, source: str) -> Scan:
    """The pictures of a table as files, with what its other columns say of them."""
    datasets = _datasets(source)
    features: dict[str, Any] = dict(table.features)
    images = [name for name, kind in features.items() if _holds_pictures(kind, datasets)]
    if not images:
        raise Refused(f"{source}: no column of pictures among {', '.join(features)}; give a table that has one")
    image = images[0]
    table = table.cast_column(image, datasets.Image(decode=False))
    captions, label = _caption_column(features), _label_column(features, datasets)
    said = table.select_columns([name for name in (captions, label) if name is not None])
    names = getattr(features.get(label or ""), "names", None)
    lock = threading.Lock()

    def opened(row: int) -> BufferedIOBase:
        with lock:
            held: dict[str, Any] = table[row][image] or {}
        data = held.get("bytes")
        if data is None:
            raise FileNotFoundError(f"row {row} has no picture")
        return BytesIO(data)

    files: list[Found] = []
    words: dict[str, Words] = {}
    for row in range(len(table)):
        record: dict[str, Any] = said[row] if said.column_names else {}
        value = record.get(label or "")
        if names is not None and value is not None:
            value = names[value] if value >= 0 else None
        found = Found(f"row {row}", partial(opened, row), size=-1)
        files.append(found)
        words[found.name] = Words(texts(record.get(captions or "")), label_text(value))
    return Scan(tuple(files), words=words)


def _holds_pictures(kind: Any, datasets: Any) -> bool:
    return isinstance(kind, datasets.Image) or (isinstance(kind, dict) and set(kind) == _ENCODED)


def _caption_column(features: dict[str, Any]) -> str | None:
    """The column of captions: texts, or lists of them."""
    held = [name for name, kind in features.items() if _dtype(kind) in ("string", "large_string")]
    return first_column(held, CAPTION_COLUMNS)


def _label_column(features: dict[str, Any], datasets: Any) -> str | None:
    """The column of labels: a ClassLabel, else integers or texts under one of the known names."""
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    held = [name for name, kind in features.items() if _dtype(kind) in ("string", "large_string", "int64", "int32")]
    return first_column(classes, LABEL_COLUMNS) or (classes[0] if classes else first_column(held, LABEL_COLUMNS))


def _dtype(kind: Any) -> str:
    """The type of the values of a column, or of the lists in it."""
    inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", kind)
    return str(getattr(inner, "dtype", ""))
