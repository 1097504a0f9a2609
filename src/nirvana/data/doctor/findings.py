"""Everything that can be found about pictures, how grave it is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Gravity(StrEnum):
    """How grave a finding is."""

    SERIOUS = "serious"
    DOUBTFUL = "worth a look"
    HARMLESS = "taken care of"


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its title, how grave it is, what training does, and whether it leaves pictures out."""

    title: str
    gravity: Gravity
    handling: str
    drops: bool = False


KINDS: Mapping[str, Kind] = {
    "corrupt": Kind("corrupt files", Gravity.SERIOUS, "left out", drops=True),
    "truncated": Kind("truncated files", Gravity.SERIOUS, "left out: a part is missing; copy them again", drops=True),
    "bomb": Kind("decompression bombs", Gravity.SERIOUS, "left out, and never decoded", drops=True),
    "leak": Kind(
        "in the training and the test set", Gravity.SERIOUS, "left out of training, or tests would praise copies", True
    ),
    "two-labels": Kind("one picture under two labels", Gravity.SERIOUS, "kept once; look which label is right", True),
    "duplicate": Kind("exact duplicates", Gravity.DOUBTFUL, "one of each is kept", drops=True),
    "near-duplicate": Kind(
        "near duplicates", Gravity.DOUBTFUL, "kept once: with a caption, and the largest", drops=True
    ),
    "tiny": Kind("tiny pictures", Gravity.DOUBTFUL, "left out: enlarged, they would teach blur", drops=True),
    "one-colour": Kind("pictures of one colour", Gravity.DOUBTFUL, "kept"),
    "extreme-aspect": Kind("extreme shapes", Gravity.DOUBTFUL, "kept, but training sees the centre square alone"),
    "unlabelled": Kind("pictures without a label", Gravity.DOUBTFUL, "training passes over them, as most have one"),
    "imbalance": Kind("unequal classes", Gravity.DOUBTFUL, "kept; add pictures to the small classes"),
    "no-caption": Kind("pictures without a caption", Gravity.DOUBTFUL, "kept"),
    "empty-caption": Kind("empty captions", Gravity.DOUBTFUL, "kept, as pictures without a caption"),
    "long-caption": Kind("over-long captions", Gravity.DOUBTFUL, "kept; text encoders read the beginning only"),
    "shared-caption": Kind("captions of several pictures", Gravity.DOUBTFUL, "kept"),
    "wrong-extension": Kind("wrong extensions", Gravity.HARMLESS, "read by their content"),
    "rotated": Kind("EXIF rotation", Gravity.HARMLESS, "turned upright"),
    "alpha": Kind("transparency", Gravity.HARMLESS, "laid on white"),
    "palette": Kind("palettes", Gravity.HARMLESS, "turned into RGB"),
    "16-bit": Kind("16-bit pictures", Gravity.HARMLESS, "brought to 8 bits"),
    "cmyk": Kind("CMYK", Gravity.HARMLESS, "turned into RGB by the plain formula; colours may shift"),
    "animated": Kind("animations and several pages", Gravity.HARMLESS, "the first picture counts"),
    "profile": Kind("ICC profiles other than sRGB", Gravity.HARMLESS, "not applied; colours may be dull"),
}
"""The kinds by the names that manifests and `--keep` use, the gravest first."""

UNREADABLE = ("corrupt", "truncated", "bomb")
"""The kinds of pictures that nobody can keep."""


@dataclass(frozen=True)
class Mention:
    """A picture in a finding: its number in the source (or in the test set), its name, and what of it.

    `reference`: nothing is wrong with it, it is what the others of its group are the same as.
    """

    number: int
    name: str
    detail: str = ""
    reference: bool = False
    in_test: bool = False


@dataclass(frozen=True)
class Finding:
    """What was found: `count` pictures or texts, in one line, and the pictures.

    `groups` are those that belong together, the one that is kept first; alone where they do not.
    """

    kind: str
    count: int
    groups: tuple[tuple[Mention, ...], ...] = ()
    text: str = ""

    @property
    def about(self) -> Kind:
        """Its kind."""
        return KINDS[self.kind]
