"""The built-in source `emoji`: 1376 concepts, each drawn in three open-licensed styles, with captions.

`noto` is by Google, `flat` is Twemoji, `3d` is Fluent by Microsoft; all stand on white. The pictures of a concept
are neighbours. A test concept is never seen in training, in no style; concepts that differ by nothing but gender or
direction ("man running", "woman running facing right") are in the same part.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from io import BytesIO
from typing import TypedDict, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana.data.held import Held, embedded
from nirvana.files import Json

TEST_SHARE = 10
"""One family of concepts in so many is held out."""

_FILE = "emoji.zip"
_GENDERLESS = {"1F468": "1F9D1", "1F469": "1F9D1"}
"""Man and woman, which stand for a person in the code points of a concept."""
_IGNORED = {"200D", "2640", "2642", "27A1"}
"""The joiner, the signs of gender, and the arrow of direction."""


class Concept(TypedDict):
    """A thing that is drawn: its code points, its English label, its group, and other words for it."""

    code: str
    label: str
    group: str
    tags: list[str]


class _Index(TypedDict):
    tile: int
    columns: int
    styles: list[str]
    concepts: list[Concept]


def family(code: str) -> str:
    """The code points of a concept without gender and direction."""
    return "-".join(_GENDERLESS.get(point, point) for point in code.split("-") if point not in _IGNORED)


def held_out(code: str) -> bool:
    """Whether a concept is one for testing: by the hash of its family alone."""
    return int(hashlib.sha256(family(code).encode()).hexdigest()[:8], 16) % TEST_SHARE == 0


def captions_of(concept: Concept, style: str) -> tuple[str, ...]:
    """The captions of a concept in a style: by its label, and with the other words for it."""
    plain = f"{concept['label']}, {style} emoji"
    return (plain, f"{concept['label']}, {', '.join(concept['tags'])}, {style} emoji") if concept["tags"] else (plain,)


def emoji(part: str) -> Held:
    """The training part (""), or "test". Labels are the groups; attributes are code, label, style, group and tags."""
    data, entry = embedded(_FILE)
    with zipfile.ZipFile(BytesIO(data)) as packed:
        index = cast(_Index, json.loads(packed.read("index.json")))
        styles = index["styles"]
        sheets = [_tiles(packed.read(f"{style}.webp"), index) for style in styles]
    concepts = index["concepts"]
    names = tuple(sorted({concept["group"] for concept in concepts}))
    chosen = [i for i, concept in enumerate(concepts) if held_out(concept["code"]) == (part == "test")]
    shown = [(concepts[i], style) for i in chosen for style in styles]
    return Held(
        pixels=np.stack([sheet[chosen] for sheet in sheets], 1).reshape(-1, index["tile"], index["tile"], 3),
        labels=np.array([names.index(concept["group"]) for concept, _ in shown], np.int64),
        names=names,
        kind="embedded",
        files=(entry,),
        captions=tuple(captions_of(concept, style) for concept, style in shown),
        attributes=[_attributes(concept, style) for concept, style in shown],
    )


def _attributes(concept: Concept, style: str) -> dict[str, Json]:
    return {
        "code": concept["code"],
        "label": concept["label"],
        "group": concept["group"],
        "tags": concept["tags"],
        "style": style,
    }


def _tiles(data: bytes, index: _Index) -> UInt8[np.ndarray, "n h w 3"]:
    """The tiles of a sheet, row by row."""
    tile, columns = index["tile"], index["columns"]
    with Image.open(BytesIO(data), formats=["WEBP"]) as picture:
        sheet = np.asarray(picture.convert("RGB"))
    rows = sheet.reshape(-1, tile, columns, tile, 3).swapaxes(1, 2)
    return rows.reshape(-1, tile, tile, 3)[: len(index["concepts"])]
