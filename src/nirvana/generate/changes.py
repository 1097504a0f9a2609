"""What is done to a picture: the part of a request that makes it an edit. No torch here."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.checks import check_fields, entries, flag, number, text, whole
from nirvana.generate.named import parse

if TYPE_CHECKING:
    from nirvana.edit import Photo

METHOD = "auto"
"""How a hole is filled where nobody says: as the model has learned to, or else by Langevin dynamics."""
TRANSLATED = "paired"
"""The method that draws a picture from another one, by a model of pairs."""
MOST_SIDE = 2**16


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


@dataclass(frozen=True)
class Changes:
    """An edit of `picture`: where the mask is white, or all of it, new content that agrees with what stays.

    mask: white changes; None: everything, or with margins the margins. left, top, right, bottom: pixels that are added.
    method: how what is new comes to agree with what is known, a name of `METHODS` with its numbers ("auto" until it is
    decided for a model), or with the whole picture ("paired"). strength: the level that drawing begins at, its angle
    atan(sigma/alpha) in units of pi/2: 1 is pure noise, less keeps more of what was there. encode: begin with the noise
    that the picture is the picture of, the end of its flow, in place of a seed's; source: the text or class it is
    encoded under, None without any. context: pixels of what is known that a window of the model's canvas sees at least,
    where one does not hold everything. feather: pixels, inside the mask, over which the new fades in. invert: black
    changes. fit: a mask of another size is stretched.
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

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom", "context", "feather"):
            whole(name, getattr(self, name), least=0, most=MOST_SIDE)
        parse("method", text("method", self.method))
        if not 0 < number("strength", self.strength) <= 1:
            raise Refused(f"strength must be more than 0 (nothing changes) and at most 1, got {self.strength:g}")
        if self.source is not None and not self.encode:
            raise Refused("a source is what a picture is encoded under; leave it out, or encode the picture")
        if self.method == TRANSLATED and (self.mask or any(self.margins) or self.strength < 1 or self.encode):
            raise Refused("a translated picture is all new; leave mask, margins, strength and encode out")
        if self.mask is None and (self.invert or self.fit):
            raise Refused("there is no mask to invert or to fit; give one")

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom)."""
        return self.left, self.top, self.right, self.bottom

    def to_json(self) -> dict[str, Json]:
        """All fields."""
        return {**dataclasses.asdict(self), "strength": float(self.strength)}

    @staticmethod
    def from_json(value: object) -> Changes:
        """What `to_json` wrote. Refused on anything missing, unknown or ill-typed."""
        fields = entries("the edit of the request", value)
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
            **sides,
        )
