"""A cleaned copy of a source: the pictures that are used, upright, under the right names, with captions and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps

from nirvana.data.decode import open_picture
from nirvana.data.doctor.diagnosis import Diagnosis
from nirvana.data.doctor.picture import EXTENSIONS, Picture
from nirvana.data.doctor.subject import Subject
from nirvana.errors import Refused
from nirvana.files import explained, json_line, new_folder, remove_abandoned, write_chunks

TABLE = "metadata.jsonl"

_QUALITY = 95


def forbid_inside(place: Path, source: str, option: str) -> None:
    """Refused where `place`, what `option` names, is in the source: the original is never touched."""
    home = Path(os.path.realpath(os.path.expanduser(source)))
    if home.is_dir() and Path(os.path.realpath(place)).is_relative_to(home):
        raise Refused(f"{option} {place}: lies in {source}, which is never written to; choose another place")


def check_fix(place: Path, source: str) -> None:
    """Refused where no copy can be written to `place`: it holds something, or lies in the source."""
    forbid_inside(place, source, "--fix")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise Refused(f"--fix {place}: is there already; choose a new folder, or take it away")


def write_fixed(diagnosis: Diagnosis, place: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Write the copy to the new folder `place`, which appears with all its pictures or not at all; how many they are.

    Files that are right are copied byte for byte. Captions and labels of all go to one `metadata.jsonl`. Refused: as
    `check_fix`, or no room.
    """
    check_fix(place, diagnosis.subject.source)
    subject = diagnosis.subject
    used = [i for i, decision in enumerate(diagnosis.decisions.pictures) if decision.use]
    names = _names(subject, used)
    with explained(place, "make room, or choose another --fix"):
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        with new_folder(place) as work:
            for done, (number, data) in enumerate(_contents(subject, used), 1):
                target = work / names[number]
                target.parent.mkdir(parents=True, exist_ok=True)
                write_chunks(target, [data])
                if progress is not None:
                    progress(done, len(used))
            said = [i for i in used if subject.pictures[i].captions or subject.pictures[i].label is not None]
            if said:
                lines = (_line(names[i], subject.pictures[i]) for i in said)
                write_chunks(work / TABLE, (f"{line}\n".encode() for line in lines))
    return len(used)


def _line(name: str, picture: Picture) -> str:
    record: dict[str, str | list[str]] = {"file_name": name}
    if picture.captions:
        record["text"] = list(picture.captions)
    if picture.label is not None:
        record["label"] = picture.label
    return json_line(record)


def _names(subject: Subject, used: list[int]) -> dict[int, str]:
    """A name with the right extension for each; where two would be one, the later gets a number.

    Names are compared without regard to case, as some disks do. What has no file name is numbered. Folders stay, but of
    archives whose folders are no labels: there they would become labels.
    """
    taken = {TABLE}
    names: dict[int, str] = {}
    numbered = subject.read is None or subject.kind == "table"
    flat = subject.kind == "archive" and all(subject.pictures[i].label is None for i in used)
    for i in used:
        picture = subject.pictures[i]
        path = PurePosixPath(f"{i:06d}" if numbered else picture.name.replace("/", "_") if flat else picture.name)
        known = EXTENSIONS.get(picture.format, (".png",))
        right = path.suffix.casefold() in known
        stem, ending = (str(path.with_suffix("")), path.suffix) if right else (_stem(path), known[0])
        wanted, number = f"{stem}{ending}", 2
        while wanted.casefold() in taken:
            wanted, number = f"{stem}-{number}{ending}", number + 1
        taken.add(wanted.casefold())
        names[i] = wanted
    return names


def _stem(path: PurePosixPath) -> str:
    """The name without an extension that is one of pictures; "v1.5 final" keeps its point."""
    known = {ending for endings in EXTENSIONS.values() for ending in endings}
    return str(path.with_suffix("")) if path.suffix.casefold() in known else str(path)


def _contents(subject: Subject, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """The bytes of each file as they are to be written."""
    if subject.read is None:
        for number, shown in subject.show(numbers, 1):
            yield number, _saved(shown, "PNG")
        return
    for number, data in subject.read(numbers):
        yield number, _upright(data) if "rotated" in subject.pictures[number].found else data


def _upright(data: bytes) -> bytes:
    """The picture turned as its EXIF says, in its own format; everything else that its EXIF says stays."""
    with open_picture(BytesIO(data)) as opened:
        kind = {"MPO": "JPEG"}.get(opened.format or "", opened.format or "PNG")
        turned = ImageOps.exif_transpose(opened)
        return _saved(turned, kind, turned.getexif().tobytes(), opened.info.get("icc_profile"))


def _saved(picture: Image.Image, kind: str, exif: bytes = b"", profile: bytes | None = None) -> bytes:
    out = BytesIO()
    if kind == "JPEG":
        picture.save(out, kind, quality=_QUALITY, subsampling=0, exif=exif, icc_profile=profile)
    elif kind == "WEBP":
        picture.save(out, kind, lossless=True, exif=exif, icc_profile=profile)
    else:
        picture.save(out, kind, exif=exif, icc_profile=profile)
    return out.getvalue()
