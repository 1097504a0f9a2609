"""Which pictures of a source are used, as `nirvana data check` decided it and its user changed it.

The file is JSON with one picture a line, `use` and the reason `because`; a training obeys it as it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from nirvana.data.dataset import FileEntry, Rejection
from nirvana.errors import Refused
from nirvana.files import Json, digest_of, json_line, read_json, write_text

MANIFEST = "manifest.json"
STORED = "decisions"
"""Their place in the manifest of the data of a run."""
VERSION = 1
_AGAIN = "check the source again with `nirvana data check`"


@dataclass(frozen=True)
class Decision:
    """Whether a picture is used: its name, the sha256 of its file (of its pixels where it has none), why it is not
    used, and the kinds of everything that was found about it."""

    path: str
    sha256: str
    use: bool
    because: str = ""
    found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decisions:
    """The decisions about all pictures of a source. `about` says when and how they were made."""

    source: str
    pictures: tuple[Decision, ...]
    about: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def digest(self) -> str:
        """sha256 over what a training obeys: names, hashes and uses."""
        return digest_of([[d.path, d.sha256, d.use, "" if d.use else d.because] for d in self.pictures])

    @property
    def by_name(self) -> dict[str, Decision]:
        """The decisions by the names of the pictures."""
        return {decision.path: decision for decision in self.pictures}

    def left_out(self, names: Iterable[str], source: str) -> tuple[Rejection, ...]:
        """Those of the pictures `names` that are not to be used. Refused: one of them was not checked."""
        known = self.by_name
        given = list(names)
        strange = [name for name in given if name not in known]
        if strange:
            raise Refused(
                f"{source}: {len(strange)} pictures are not in the manifest (first: {strange[0]}): they came after"
                f" the check; {_AGAIN}"
            )
        chosen = (known[name] for name in given)
        return tuple({"path": d.path, "reason": f"manifest: {d.because or 'not used'}"} for d in chosen if not d.use)

    def confirm(self, entries: Iterable[FileEntry], source: str) -> None:
        """Refused where a picture is not the one that was checked."""
        known = self.by_name
        for entry in entries:
            if known[entry["path"]].sha256 != entry["sha256"]:
                raise Refused(f"{source}: {entry['path']} is not the picture that was checked; {_AGAIN}")

    def to_json(self) -> dict[str, Json]:
        """As JSON, which `from_json` reads."""
        pictures: list[Json] = [_to_json(decision) for decision in self.pictures]
        return {"format_version": VERSION, "source": self.source, **self.about, "pictures": pictures}

    @classmethod
    def from_json(cls, held: Mapping[str, Json]) -> Decisions:
        """What `to_json` made, whoever edited it since. ValueError, KeyError or TypeError: it is something else."""
        pictures = tuple(_from_json(item) for item in cast("list[dict[str, Json]]", held["pictures"]))
        if held["format_version"] != VERSION or len({decision.path for decision in pictures}) != len(pictures):
            raise ValueError("a picture is in it twice")
        about = {name: value for name, value in held.items() if name not in ("format_version", "source", "pictures")}
        return cls(str(held["source"]), pictures, about)

    def write(self, path: Path) -> None:
        """Write them in one step, a picture a line. OSError where that cannot be."""
        held = self.to_json()
        lines = ",\n".join(json_line(picture) for picture in cast("list[Json]", held.pop("pictures")))
        fields = "".join(f"{json_line(name)}: {json_line(value)},\n" for name, value in held.items())
        write_text(path, f'{{\n{fields}"pictures": [\n{lines}\n]\n}}\n')


def read_decisions(path: Path) -> Decisions:
    """The decisions in a file, or in the `manifest.json` of a folder. Refused: missing, damaged, or newer than this."""
    place = path / MANIFEST if path.is_dir() else path
    held = read_json(place, "name the folder or the manifest that `nirvana data check` wrote")
    version = held.get("format_version")
    if isinstance(version, int) and version > VERSION:
        raise Refused(f"{place} has format version {version}, this nirvana reads up to {VERSION}; update nirvana")
    try:
        return Decisions.from_json(held)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"{place} is no manifest of a check ({error}); {_AGAIN}") from None


def stored(data: Mapping[str, Json]) -> Decisions | None:
    """The decisions in the manifest of the data of a run, where it obeyed some."""
    held = data.get(STORED)
    return Decisions.from_json(cast("Mapping[str, Json]", held)) if held is not None else None


def sha256(data: bytes) -> str:
    """The hash of a picture's file, or of its pixels where it has none."""
    return hashlib.sha256(data).hexdigest()


def _to_json(decision: Decision) -> dict[str, Json]:
    record: dict[str, Json] = {"path": decision.path, "sha256": decision.sha256, "use": decision.use}
    if decision.because:
        record["because"] = decision.because
    if decision.found:
        record["found"] = list(decision.found)
    return record


def _from_json(item: Mapping[str, Json]) -> Decision:
    use = item["use"]
    if not isinstance(use, bool):
        raise ValueError(f"'use' is {use!r}, neither true nor false")
    found = cast("list[str]", item.get("found", []))
    return Decision(str(item["path"]), str(item["sha256"]), use, str(item.get("because", "")), tuple(found))
