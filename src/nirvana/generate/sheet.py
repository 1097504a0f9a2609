"""A sheet: one request in many variations, along one or two of its fields."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from nirvana import files
from nirvana.errors import Refused, unknown
from nirvana.generate.images import record
from nirvana.generate.model import Model
from nirvana.generate.named import listed as whole
from nirvana.generate.named import taken
from nirvana.generate.request import SampleRequest, interval
from nirvana.modality import png
from nirvana.modality.image import mosaic
from nirvana.modality.image import sheet as drawn

FIELDS: Mapping[str, type] = {
    "steps": int,
    "guidance": float,
    "seed": int,
    "label": str,
    "prompt": str,
    "solver": str,
    "grid": str,
    "weights": str,
    "guidance_interval": str,
    "precision": str,
    "engine": str,
    "rule": str,
    "negative": str,
    "autoguidance": str,
    "classifier": str,
}
OPTIONAL = ("guidance_interval", "negative", "autoguidance", "classifier")
"""Fields that "none" leaves out."""
WITH_NUMBERS = ("solver", "rule", "autoguidance", "classifier")
"""Fields whose values are NAME:KEY=VALUE,KEY=VALUE."""

MOST_CELLS = 4096


@dataclass(frozen=True)
class Axis:
    """A field of a request, and the values it takes along one side of the sheet."""

    field: str
    values: tuple[int | float | str, ...]

    def on(self, request: SampleRequest, i: int) -> SampleRequest:
        """`request` with value i."""
        value = self.values[i]
        if self.field == "label":
            return dataclasses.replace(request, labels=(str(value),))
        if self.field == "prompt":
            return dataclasses.replace(request, prompts=(str(value),))
        if self.field in OPTIONAL and value == "none":
            value = None
        elif self.field == "guidance_interval":
            # The comma is taken.
            return dataclasses.replace(request, guidance_interval=interval(str(value).replace(":", ",")))
        elif self.field == "rule":
            rule, w = taken("rule", str(value), "w")
            return dataclasses.replace(request, rule=rule, guidance=request.guidance if w is None else w)
        return dataclasses.replace(request, **{self.field: value})  # pyright: ignore[reportArgumentType]


def axis(text: str) -> Axis:
    """The axis written as "steps=4,8,16", "guidance_interval=none,0.2:5" or "rule=cfg:w=3,apg:w=6,eta=0".

    Texts with commas are put between bars: "prompt=a cat, asleep|a dog".
    Refused on an unknown field or a value of the wrong type.
    """
    field, _, listed = text.partition("=")
    field = field.strip()
    bar = "|" if "|" in listed else ","
    values = whole(listed) if field in WITH_NUMBERS and bar == "," else [value.strip() for value in listed.split(bar)]
    if field not in FIELDS:
        raise unknown("field of a sheet", field, FIELDS)
    if not all(values):
        raise Refused(f"'{text}' is no axis of a sheet; write a field and its values, such as steps=4,8,16")
    kind = FIELDS[field]
    try:
        return Axis(field, tuple(kind(value) for value in values))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise Refused(f"{field} takes {what}, got '{listed}'; write them with commas, such as {field}=1,2") from None


@dataclass(frozen=True, eq=False)
class Sheet:
    """The pictures of a sheet, (rows, columns, n, H, W, C), and the drawn page as an image and as a PNG file."""

    array: UInt8[np.ndarray, "rows columns n h w c"]
    page: Image.Image
    png: bytes

    def save(self, path: str | Path) -> Path:
        """Write the page in one step; Refused where that cannot be."""
        target = Path(path).expanduser()
        with files.explained(target, "make room, or choose another --out"):
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(target, self.png)
        return target


def requests(
    model: Model,
    base: SampleRequest,
    x: Axis,
    y: Axis | None = None,
    searching: Callable[[int, int], None] | None = None,
) -> list[list[SampleRequest]]:
    """The request of every cell, row by row. Refused before anything runs where one of them is impossible.

    searching(done, at most) is called while a grid is searched.
    """
    if y is not None and y.field == x.field:
        raise Refused(f"both axes of the sheet are '{x.field}'; choose another field for one of them")
    if len(x.values) * (len(y.values) if y else 1) > MOST_CELLS:
        raise Refused(f"the sheet would have more than {MOST_CELLS} cells; give fewer values")
    rows = [base] if y is None else [y.on(base, i) for i in range(len(y.values))]
    cells = [[x.on(row, i) for i in range(len(x.values))] for row in rows]
    for request in itertools.chain.from_iterable(cells):
        model.check(request)
    return [[model.settled(request, searching) for request in row] for row in cells]


def sheet(
    model: Model,
    base: SampleRequest,
    x: Axis,
    y: Axis | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sheet:
    """Every cell's pictures (several are shown as a mosaic) on a page with labelled axes.

    progress(steps done, steps in all) is called after every step.
    """
    cells = requests(model, base, x, y)
    total = sum(r.steps * len(r.batches()) for row in cells for r in row)
    done = 0
    rows: list[list[UInt8[np.ndarray, "n h w c"]]] = []
    for row in cells:
        rows.append([])
        for request in row:
            batches: list[UInt8[np.ndarray, "b h w c"]] = []
            for preview in model.stream(request):
                done += 1
                if progress is not None:
                    progress(done, total)
                if preview.done:
                    batches.append(model.sampler(request.weights).finished(preview))
            rows[-1].append(np.concatenate(batches))
    array = np.asarray(rows)
    page = drawn(_shown(array), (x.field, x.values), None if y is None else (y.field, y.values))
    own = {"kind": "sheet", "x": _axis_json(x), "y": None if y is None else _axis_json(y)}
    read = {text: found for row in cells for request in row for text, found in model.origin(request).read.items()}
    source = dataclasses.replace(model.origin(base), read=read)
    data = png.to_png_bytes(np.asarray(page), record(own, base, source))
    return Sheet(array, page, data)


def _shown(array: UInt8[np.ndarray, "rows columns n h w c"]) -> UInt8[np.ndarray, "rows columns h w c"]:
    columns = int(np.ceil(np.sqrt(array.shape[2])))
    return np.asarray([[mosaic(cell, columns) for cell in row] for row in array])


def _axis_json(axis: Axis) -> dict[str, str | Sequence[int | float | str]]:
    return {"field": axis.field, "values": list(axis.values)}
