"""What is done to a picture: the part of a request that makes it an edit. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.checks import Since, check_fields, check_later, entries, flag, later, number, text, whole
from nirvana.generate.named import parse

if TYPE_CHECKING:
    from nirvana.edit import Photo

METHOD = "auto"
"""How a hole is filled where nobody says: as the model has learned to, or else by Langevin dynamics."""
TRANSLATED = "paired"
"""The method that draws a picture from another one, by a model of pairs."""
STRENGTH = 0.6
"""How much a picture is varied where nobody says."""
ENCODER = "dpmpp-2m"
"""The solver that encodes and draws where nobody says: without noise of its own, and of the second order."""
MOST_SIDE = 2**16
MOST_FEATHER = 2**10

_SINCE: Since = {7: {"end": None, "end_source": None}}


@dataclass(frozen=True)
class Taken:
    """A picture that an edit begins with: where it was read (None: from memory), and the digest of its pixels."""

    path: str | None
    sha256: str

    @staticmethod
    def of(photo: Photo, path: str | Path | None = None) -> Taken:
        """What is written down of `photo`."""
        state = hashlib.sha256(f"{photo.pixels.dtype} {photo.pixels.shape}".encode())
        state.update(photo.pixels.tobytes())
        state.update(b"" if photo.alpha is None else photo.alpha.tobytes())
        return Taken(None if path is None else str(Path(path).expanduser().resolve()), state.hexdigest())

    @staticmethod
    def from_json(value: object) -> Taken:
        """Refused where it is none."""
        fields = entries("the picture of the edit", value)
        check_fields("the picture of the edit", fields, Taken)
        path = fields["path"]
        return Taken(None if path is None else text("path", path), text("sha256", fields["sha256"]))


UNREAD = Taken(None, "")
"""A picture that is still to be read: what else is wrong is refused before that."""


@dataclass(frozen=True)
class Changes:
    """An edit of `picture`: where the mask is white, or all of it, new content that agrees with what stays.

    mask: white changes; None: everything, or with margins the margins. left, top, right, bottom: pixels that are added.
    method: how what is new comes to agree with what is known, a name of `METHODS` with its numbers ("auto" until it is
    decided for a model), or with the whole picture ("paired"). strength: the level that drawing begins at, its angle
    atan(sigma/alpha) in units of pi/2: 1 is pure noise, less keeps more of what was there. encode: begin with the noise
    that the picture is the picture of, the end of its flow, in place of a seed's; source: the text or class it is
    encoded under, None without any. end: the picture that a blend ends at, encoded under end_source; the noises between
    those of the two give the pictures between them. context: pixels of what is known that a window of the model's
    canvas sees at least, where one does not hold everything. feather: pixels, inside the mask, over which the new fades
    in. invert: black changes. fit: a mask of another size is stretched, an end is scaled and cropped.
    Raises Refused on every value out of range.
    """

    picture: Taken
    mask: Taken | None = None
    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0
    method: str = METHOD
    strength: float = 1.0
    encode: bool = False
    source: str | None = None
    context: int = 0
    feather: int = 0
    invert: bool = False
    fit: bool = False
    end: Taken | None = None
    end_source: str | None = None

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom", "context"):
            whole(name, getattr(self, name), least=0, most=MOST_SIDE)
        whole("feather", self.feather, least=0, most=MOST_FEATHER)
        parse("method", text("method", self.method))
        if not 0 < number("strength", self.strength) <= 1:
            raise Refused(f"strength must be more than 0 (nothing changes) and at most 1, got {self.strength:g}")
        if self.source is not None and not self.encode:
            raise Refused("a source is what a picture is encoded under; leave it out, or encode the picture")
        if self.method == TRANSLATED and (self.fills or self.strength < 1 or self.encode):
            raise Refused("a translated picture is all new; leave mask, margins, strength and encode out")
        if self.end is not None:
            self._check_blend()
        elif self.end_source is not None:
            raise Refused("there is no picture to end at that the second source says something of; leave it out")
        elif self.mask is None and self.fit:
            raise Refused("there is no mask to fit; give one")
        if self.mask is None and self.invert:
            raise Refused("there is no mask to invert; give one")

    def _check_blend(self) -> None:
        if self.fills:
            raise Refused("a blend goes from all of a picture to all of another; leave mask and margins out")
        if not self.encode or self.strength != 1:
            raise Refused("a blend lies between the noises of its two pictures; encode them, at strength 1")

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom

    @property
    def fills(self) -> bool:
        """Whether there is a hole to fill: what is new has to agree with what is known."""
        return self.mask is not None or any(self.margins)

    @property
    def sources(self) -> tuple[str | None, ...]:
        """What each picture that is encoded is encoded under."""
        if not self.encode:
            return ()
        return (self.source,) if self.end is None else (self.source, self.end_source)

    def walked(self, steps: int) -> int:
        """The steps in all, where drawing takes `steps`: a flow backwards begins at the last level with noise."""
        return steps + len(self.sources) * (steps - 1)

    def check_version(self, version: int) -> None:
        """Refused where it says something that a request of `version` cannot."""
        check_later("the edit of a request", self, _SINCE, version)

    def to_json(self, version: int) -> dict[str, Json]:
        """All fields of that version of the request."""
        fields: dict[str, Json] = {**dataclasses.asdict(self), "strength": float(self.strength)}
        return {name: value for name, value in fields.items() if name not in later(_SINCE, version)}

    @staticmethod
    def from_json(value: object, version: int) -> Changes:
        """What `to_json` wrote. Refused on anything missing, unknown or ill-typed."""
        fields = {**later(_SINCE, version), **entries("the edit of the request", value)}
        check_fields("the edit of the request", fields, Changes)
        sides = {name: whole(name, fields[name], least=0) for name in ("left", "top", "right", "bottom")}
        return Changes(
            picture=Taken.from_json(fields["picture"]),
            mask=None if fields["mask"] is None else Taken.from_json(fields["mask"]),
            method=text("method", fields["method"]),
            strength=number("strength", fields["strength"]),
            encode=flag("encode", fields["encode"]),
            source=None if fields["source"] is None else str(fields["source"]),
            context=whole("context", fields["context"], least=0),
            feather=whole("feather", fields["feather"], least=0),
            invert=flag("invert", fields["invert"]),
            fit=flag("fit", fields["fit"]),
            end=None if fields["end"] is None else Taken.from_json(fields["end"]),
            end_source=None if fields["end_source"] is None else str(fields["end_source"]),
            **sides,
        )


def varying(strength: float | None = None, *, encode: bool = False, source: str | None = None) -> Changes:
    """A picture drawn again: `STRENGTH` unless it is said, or with `encode` all the way from its own noise."""
    level = (1.0 if encode else STRENGTH) if strength is None else strength
    return Changes(UNREAD, strength=level, encode=encode, source=source)


def blending(source: str | Sequence[str] = (), *, fit: bool = False) -> Changes:
    """A blend of two pictures. source: what both show, or what each of them does. Refused where it is more than two."""
    said = (source,) if isinstance(source, str) else tuple(source)
    if len(said) > 2:
        raise Refused(f"a blend has two pictures, and {len(said)} sources were given; give one for each, or for both")
    first, last = (said[0], said[-1]) if said else (None, None)
    return Changes(UNREAD, encode=True, source=first, end=UNREAD, end_source=last, fit=fit)


def check_extent(margins: Sequence[int], size: tuple[int, int] | None) -> None:
    """Refused unless a picture grows by `margins` or to a `size`, (width, height), one of the two."""
    # Of a caller without types it may be anything.
    if size is not None and (not isinstance(size, tuple | list) or len(size) != 2):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Refused(f"a size is (width, height), such as (512, 256), got {size!r}")
    for side in size or ():
        whole("the size to extend to", side, least=1)
    if (size is None) == (not any(margins)):
        raise Refused("say how far the picture grows: with --left, --right, --top, --bottom, or with --to and a size")
