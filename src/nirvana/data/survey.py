"""What a collection of files holds: its pictures, and what is said of each, before any of them is decoded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from nirvana.data.captions import annotate, some
from nirvana.data.collection import Found, Scan, Words
from nirvana.data.dataset import Rejection
from nirvana.data.decisions import Decisions
from nirvana.data.decode import EXTENSIONS, Header, PictureError, read_header, reason
from nirvana.data.labelling import Labelling, label, label_by
from nirvana.data.parallel import parallel
from nirvana.errors import Refused

_CONTAINERS = {".zip", ".tar", ".tgz", ".gz", ".npy", ".npz", ".parquet"}


@dataclass(frozen=True)
class Survey:
    """The pictures of a collection with their headers, what is said of those of which anything is, and their labels.

    Pictures that are not used are in `left_out` and have no label; `notes` are for the user.
    """

    pictures: tuple[Found, ...]
    headers: Mapping[str, Header]
    words: Mapping[str, Words]
    labelling: Labelling
    rejected: tuple[Rejection, ...]
    left_out: tuple[Rejection, ...]
    notes: tuple[str, ...]

    @property
    def used(self) -> tuple[Found, ...]:
        """The pictures that a training takes."""
        return tuple(file for file in self.pictures if file.name in self.labelling.labels)


def survey(
    listing: Scan,
    kind: str,
    source: str,
    decisions: Decisions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Read all headers and everything that is said of the pictures. `progress(done, total)` counts files.

    Refused: nothing in it, a table that fits no picture, sub-folders that are splits, pictures without a decision.
    """
    if not listing.files and not listing.rejected:
        raise Refused(f"{source}: the {kind} is empty; put at least 2 pictures into it")
    rejected = list(listing.rejected)
    headers: dict[str, Header] = {}
    with quiet():
        for done, (file, header) in enumerate(zip(listing.files, parallel(_probe, listing.files), strict=True), 1):
            if isinstance(header, Header):
                headers[file.name] = header
            elif header:
                rejected.append({"path": file.name, "reason": header})
            if progress is not None:
                progress(done, len(listing.files))
    if not headers:
        _point_inside(listing, source)
    words, notes = _words(listing, list(headers), source)
    decided = () if decisions is None else decisions.left_out(headers, source)
    absent = {item["path"] for item in decided}
    labelling, more = _labelling(listing, [name for name in headers if name not in absent], words, source)
    return Survey(
        pictures=tuple(file for file in listing.files if file.name in headers),
        headers=headers,
        words=words,
        labelling=labelling,
        rejected=tuple(rejected),
        left_out=(*listing.left_out, *decided, *labelling.left_out),
        notes=(*notes, *more, *labelling.notes),
    )


def _point_inside(listing: Scan, source: str) -> None:
    """Refuse a source without a picture that holds archives, arrays or tables: these are opened by their own names."""
    inside = [file.name for file in listing.files if PurePosixPath(file.name).suffix.casefold() in _CONTAINERS]
    if inside:
        more = f" (and {len(inside) - 1} more)" if len(inside) > 1 else ""
        raise Refused(f"{source}: holds no picture but {inside[0]}{more}; give one of them as the source, or a pattern")


def _words(listing: Scan, pictures: list[str], source: str) -> tuple[Mapping[str, Words], tuple[str, ...]]:
    """What is said of pictures, and notes."""
    if listing.words is not None:
        return listing.words, ()
    found = annotate(listing.files, pictures, source)
    # A text beside pictures may be anything; half as many as there are pictures are meant as their captions.
    many = len(found.orphans) > 1 and 2 * len(found.orphans) >= len(pictures) > 0
    if not found.orphans or not (many or any(words.captions for words in found.words.values())):
        return found.words, found.notes
    note = f"{len(found.orphans)} caption files belong to no picture (first: {some(found.orphans)})"
    if not any(words.captions for words in found.words.values()):
        note += f", and {len(pictures)} pictures have no caption (first: {some(pictures)}): give both the same names"
    return found.words, (*found.notes, note)


def _labelling(
    listing: Scan, pictures: list[str], words: Mapping[str, Words], source: str
) -> tuple[Labelling, tuple[str, ...]]:
    """The labels that are said; where there are none, those of the folders inside each shard."""
    stated = {name: words[name].label if name in words else None for name in pictures}
    said = label_by(stated)
    if said is not None:
        return said, ()
    notes = ("fewer than half of the pictures have a stated label, so these are not used",)
    notes = notes if any(stated.values()) else ()
    if listing.words is not None:
        return Labelling(dict.fromkeys(pictures)), notes
    shards = {file.name: file.shard for file in listing.files}
    inner = {name: name.removeprefix(shards[name]) for name in pictures}
    by_folder = label(list(dict.fromkeys(inner.values())), source)
    reasons = {item["path"]: item["reason"] for item in by_folder.left_out}
    labels = {name: by_folder.labels[place] for name, place in inner.items() if place in by_folder.labels}
    left_out: list[Rejection] = [
        {"path": n, "reason": reasons[place]} for n, place in inner.items() if place in reasons
    ]
    return Labelling(labels, tuple(left_out), by_folder.notes), notes


def _probe(file: Found) -> Header | str:
    """The header of a picture; else why it is unreadable, or "" for a file that does not claim to be a picture."""
    claims = PurePosixPath(file.name).suffix.casefold() in EXTENSIONS
    if file.size == 0:
        return "an empty file" if claims else ""
    try:
        with file.open() as opened:
            return read_header(opened)
    except Exception as error:  # Pillow raises anything on damaged files; each is named in the manifest
        return reason(error) if claims or isinstance(error, PictureError) else ""


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """No warnings of Pillow's about large or odd pictures: our own limit and the manifest say what matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield
