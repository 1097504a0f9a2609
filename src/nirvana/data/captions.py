"""Captions and labels that lie beside the pictures: tables and sidecar files.

Tables are `metadata.jsonl`, `metadata.csv` (as in the ImageFolder convention of Hugging Face), `captions.jsonl` and
`captions.csv`: a row names a picture, relative to the table's folder, and may hold captions and a label; several rows
of one picture add up. Sidecars have the picture's name with another ending: `.txt` and `.caption` (a caption a line),
`.json` (an object with the columns of a table) and `.cls` (a label), as in WebDataset.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from nirvana.data.collection import Found, Words
from nirvana.data.decode import reason
from nirvana.errors import Refused

FILE_COLUMNS = ("file_name", "filename", "file", "image", "image_name", "path")
CAPTION_COLUMNS = ("caption", "text", "captions", "prompt", "description")
LABEL_COLUMNS = ("label", "class", "category")
"""Names of columns, in any case; the first that a table has counts."""

_TABLES = {f"{stem}{ending}" for stem in ("metadata", "captions") for ending in (".jsonl", ".csv")}
_SIDECARS = (".txt", ".caption", ".json", ".cls")
_MAX_SIDECAR = 2**20
_MAX_TABLE = 2**30
_EXAMPLES = 3

Row = tuple[str, tuple[str, ...], str | None]
"""File, captions, label."""


@dataclass(frozen=True)
class Annotations:
    """What is said of each picture by its name, notes for the user, and files of captions that belong to no picture."""

    words: Mapping[str, Words]
    notes: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


def some(names: Sequence[str]) -> str:
    """The first of them, and whether there are more."""
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")


def first_column(columns: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The column whose name in lower case is the earliest of the `wanted`; None where there is none."""
    known = {column.strip().casefold(): column for column in columns}
    return next((known[name] for name in wanted if name in known), None)


def texts(value: object) -> tuple[str, ...]:
    """The captions in the field of a table: a text, or a list of them. Empty ones are none."""
    values = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    return tuple(text for text in (str(item).strip() for item in values if item is not None) if text)


def label_text(value: object) -> str | None:
    """The class name in the field of a table."""
    found = texts(value)
    return unicodedata.normalize("NFC", found[0]) if found else None


def annotate(files: Sequence[Found], pictures: Sequence[str], source: str) -> Annotations:
    """The captions and labels of `pictures` (names of some `files`) in the tables and sidecars among `files`.

    Refused: a table that cannot be read, or whose rows name no picture at all.
    """
    known = {_key(name): name for name in pictures}
    taken = set(pictures)
    found = _Gathered()
    for file in files:
        folder, base = posixpath.split(file.name)
        if file.name not in taken and base.casefold() in _TABLES:
            _take_table(found, file, folder, known, source)
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(_stem(name), []).append(name)
    for file in files:
        if file.name not in taken and posixpath.splitext(file.name)[1].casefold() in _SIDECARS:
            _take_sidecar(found, file, by_stem.get(_stem(file.name), []))
    return found.annotations()


@dataclass
class _Gathered:
    """What was found so far."""

    captions: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    orphans: list[str] = field(default_factory=list[str])
    unreadable: list[str] = field(default_factory=list[str])

    def add(self, picture: str, captions: tuple[str, ...], label: str | None) -> None:
        """Captions that a picture has already are not taken twice; the last label counts."""
        self.captions.setdefault(picture, {}).update(dict.fromkeys(captions))
        if label is not None:
            self.labels[picture] = label

    def annotations(self) -> Annotations:
        """The whole of it."""
        words = {name: Words(tuple(said), self.labels.get(name)) for name, said in self.captions.items()}
        if self.unreadable:
            self.notes.append(f"{len(self.unreadable)} caption files cannot be read ({some(self.unreadable)})")
        return Annotations(words, tuple(self.notes), tuple(self.orphans))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    return _key(posixpath.splitext(name)[0])


def _take_table(found: _Gathered, file: Found, folder: str, known: Mapping[str, str], source: str) -> None:
    """Add the rows of a table; count those that name no picture."""
    where = f"{source}/{file.name}"
    rows = _rows(file, where)
    if rows is None:
        found.notes.append(f"{file.name} has no column {FILE_COLUMNS[0]} and was not read")
        return
    strangers: list[str] = []
    total = 0
    for name, captions, label in rows:
        total += 1
        picture = known.get(_key(posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))))
        if picture is None:
            strangers.append(name)
        else:
            found.add(picture, captions, label)
    if total and len(strangers) == total:
        raise Refused(
            f"{where} names no picture that is there: it names {some(strangers)}, and the pictures are "
            f"{some(list(known.values())) or 'none'}; its names must be relative to its own folder"
        )
    if strangers:
        found.notes.append(f"{len(strangers)} of {total} rows of {file.name} name no picture ({some(strangers)})")


def _rows(file: Found, where: str) -> Iterator[Row] | None:
    """The rows of a table; None where no column names pictures. Refused: it cannot be read."""
    if file.size > _MAX_TABLE:
        raise Refused(f"{where}: larger than {_MAX_TABLE} bytes; split it, one table a folder")
    try:
        text = file.read().decode("utf-8-sig")
    except Exception as error:  # archives raise anything on damaged members
        raise Refused(f"{where}: cannot be read as UTF-8 ({reason(error)}); mend it or take it away") from error
    records = _json_records(text, where) if file.name.casefold().endswith("l") else _csv_records(text, where)
    columns = records[0].keys() if records else ()
    name = first_column(columns, FILE_COLUMNS)
    return None if name is None else _picked(records, name)


def _picked(records: Sequence[Mapping[str, object]], name: str) -> Iterator[Row]:
    for record in records:
        captions, label = said(record)
        yield str(record.get(name) or ""), captions, label


def said(record: Mapping[str, object]) -> tuple[tuple[str, ...], str | None]:
    """Captions and label in a row, or in an object of a sidecar."""
    caption, label = first_column(record, CAPTION_COLUMNS), first_column(record, LABEL_COLUMNS)
    return texts(record[caption]) if caption else (), label_text(record[label]) if label else None


def _json_records(text: str, where: str) -> list[dict[str, object]]:
    records: list[dict[str, object]] = []
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON texts may hold other line ends
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise Refused(f"{where}: line {number} is no JSON ({error}); mend it, one object a line") from error
        if not isinstance(record, dict):
            raise Refused(f"{where}: line {number} is no JSON object; mend it, one object a line")
        records.append(cast("dict[str, object]", record))
    return records


def _csv_records(text: str, where: str) -> list[dict[str, object]]:
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise Refused(f"{where}: no CSV that can be read ({error}); put texts that hold commas in quotes") from error
    rows = [row for row in table if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise Refused(
                f"{where}: row {number} has {len(row)} fields, and the first has {len(rows[0])}; "
                "put texts that hold commas in quotes"
            )
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def _take_sidecar(found: _Gathered, file: Found, pictures: Sequence[str]) -> None:
    """Add what a sidecar says of the pictures of its name."""
    ending = posixpath.splitext(file.name)[1].casefold()
    if not pictures:
        if ending in (".txt", ".caption"):
            found.orphans.append(file.name)
        return
    try:
        captions, label = _sidecar(file, ending)
    except Exception as error:  # archives raise anything on damaged members
        found.unreadable.append(f"{file.name}: {reason(error)}")
        return
    for picture in pictures:
        found.add(picture, captions, label)


def _sidecar(file: Found, ending: str) -> tuple[tuple[str, ...], str | None]:
    if file.size > _MAX_SIDECAR:
        raise ValueError(f"larger than {_MAX_SIDECAR} bytes")
    text = file.read().decode("utf-8-sig")
    if ending == ".json":
        record = json.loads(text)
        return said(cast("dict[str, object]", record)) if isinstance(record, dict) else ((), None)
    return ((), label_text(text)) if ending == ".cls" else (texts(text.splitlines()), None)
