"""How well holes are filled, against network calls: methods of inpainting on held-out pictures and four kinds of mask.

Each picture of the held-out part has a hole, the model knows its class or caption, and two seeds fill it. A model that
learned to fill holes does it by that, any other by the methods for all models; those of the same pictures share a
section of docs/editing-quality.md, which takes the place of the one before. Every cell is kept in --work, so the
command goes on where it was stopped.

python benchmarks/edit_quality.py RUN [RUN...] --work DIR [-n 64] [--guidance 1] [--precision bfloat16]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from measure import DOCS, machine, table
from PIL import Image, ImageDraw

from nirvana import load
from nirvana.codec import Identity
from nirvana.condition.concat import MASKED
from nirvana.data import Dataset, open_data
from nirvana.diffusion.inpaint import calls
from nirvana.evaluate import kernel_distance, open_space
from nirvana.evaluate.report import number
from nirvana.evaluate.space import FeatureSpace
from nirvana.files import digest_of, write_bytes, write_json, write_text
from nirvana.generate.beginning import Canvas
from nirvana.generate.changes import UNREAD, Changes
from nirvana.generate.editing import method_of
from nirvana.generate.filling import filling
from nirvana.generate.model import Model
from nirvana.generate.request import SampleRequest
from nirvana.generate.steering import solver_of
from nirvana.modality import grid, to_png_bytes

REAL = 2_000
SHOWN = 8
SETTINGS: tuple[tuple[str, int], ...] = (
    ("replacement", 25),
    ("replacement", 100),
    ("ddnm", 10),
    ("ddnm", 25),
    ("ddnm", 50),
    ("ddnm", 100),
    ("repaint:resample=4,jump=4", 25),
    ("langevin:steps=2", 10),
    ("langevin:steps=4", 10),
    ("langevin:steps=4", 25),
    ("langevin:steps=8", 25),
)
"""(method, steps) of every cell."""
COMPARED: tuple[tuple[str, int], ...] = (("ddnm", 25), ("repaint:resample=4,jump=4", 25), ("langevin:steps=4", 25))
"""Those that the sheet shows."""
LEARNED: tuple[tuple[str, int], ...] = (("learned", 10), ("learned", 25), ("learned", 50))
"""Those of a model that learned to fill holes."""

Mask = Callable[[int, np.random.Generator], np.ndarray]


def box(side: int, rng: np.random.Generator) -> np.ndarray:
    """A square of half the side, anywhere."""
    mask, edge = np.zeros((side, side), bool), side // 2
    top, left = rng.integers(0, side - edge + 1, 2)
    mask[top : top + edge, left : left + edge] = True
    return mask


def half(side: int, rng: np.random.Generator) -> np.ndarray:
    """The left, right, upper or lower half."""
    mask = np.zeros((side, side), bool)
    mask[:, : side // 2] = True
    return np.rot90(mask, int(rng.integers(4))).copy()


def free_form(side: int, rng: np.random.Generator) -> np.ndarray:
    """Three strokes of a brush an eighth of the side wide, each with three bends."""
    picture = Image.new("1", (side, side))
    draw = ImageDraw.Draw(picture)
    for _ in range(3):
        points = [tuple(map(float, point)) for point in rng.uniform(0, side, (4, 2))]
        draw.line(points, fill=1, width=max(2, side // 8), joint="curve")
    return np.asarray(picture, bool)


def checkerboard(side: int, rng: np.random.Generator) -> np.ndarray:
    """Cells of a seventh or eighth of the side, every other one."""
    cell = max(1, side // 7 if side % 7 == 0 else side // 8)
    rows, columns = np.indices((side, side)) // cell
    return (rows + columns + int(rng.integers(2))) % 2 == 0


MASKS: Mapping[str, Mask] = {"box": box, "half": half, "free-form": free_form, "checkerboard": checkerboard}


@dataclass(frozen=True, eq=False)
class Held:
    """The held-out pictures, what they show, and features of other real ones to compare with."""

    pictures: np.ndarray
    said: tuple[str, ...]
    real: np.ndarray
    space: FeatureSpace


def held_of(model: Model, n: int) -> Held:
    """n pictures that the model was not trained on, spread over the held-out part, with what they show."""
    source, side = str(model.run.data["source"]), model.parts.shape[1]
    data = open_data(f"{source}:test", size=side)
    chosen = np.linspace(0, len(data) - 1, n).round().astype(int)
    rest = np.setdiff1d(np.linspace(0, len(data) - 1, REAL + n).round().astype(int), chosen)
    said, space = tuple(_said(data, int(i), model) for i in chosen), open_space("efflite0", model.device)
    return Held(np.ascontiguousarray(data.images[chosen]), said, space(np.ascontiguousarray(data.images[rest])), space)


def _said(data: Dataset, i: int, model: Model) -> str:
    if model.labels and data.labels is not None:
        return data.names[int(data.labels[i])]
    return data.captions[i][0] if data.captions is not None else ""


def filled(model: Model, held: Held, masks: np.ndarray, request: SampleRequest, seed: int) -> np.ndarray:
    """Every hole filled; the pictures as bytes."""
    sampler = model.diffusion(request.weights, "edit")
    fill, parts = filling(sampler, request), list[np.ndarray]()
    for start in range(0, request.n, request.batch):
        batch = range(start, min(start + request.batch, request.n))
        pictures = torch.from_numpy(held.pictures[batch.start : batch.stop]).permute(0, 3, 1, 2)
        known = torch.from_numpy(~masks[batch.start : batch.stop])[:, None]
        canvas = Canvas(Identity().encode(pictures), known)
        *_, last = fill(batch, canvas, [seed + i for i in batch])
        drawn, rows = sampler.finished(last), slice(batch.start, batch.stop)
        parts.append(np.where(masks[rows, ..., None], drawn, held.pictures[rows]))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Asked:
    """Pictures a cell, the strength of guidance, and the precision of the network."""

    n: int
    guidance: float
    precision: str

    @property
    def arguments(self) -> str:
        """What they are on the command line."""
        precision = "" if self.precision == "float32" else f" --precision {self.precision}"
        return f"-n {self.n} --guidance {self.guidance:g}{precision}"


def request_of(model: Model, held: Held, method: str, steps: int, asked: Asked) -> SampleRequest:
    """The same condition, picture by picture, with this method."""
    edit = Changes(UNREAD, method=method)
    said = list(held.said)
    cond = {"label": said} if model.labels else {"prompt": said} if any(said) else {}
    guidance = asked.guidance if cond else 1.0
    return model.request(
        n=len(said), steps=steps, guidance=guidance, precision=asked.precision, edit=edit, **cast(Any, cond)
    )


def seam(pictures: np.ndarray, masks: np.ndarray) -> float:
    """Mean step from pixel to pixel across the edge of the holes, over that inside of them."""
    across, inside = list[np.ndarray](), list[np.ndarray]()
    for axis in (1, 2):
        steps = np.abs(np.diff(pictures.astype(np.float64), axis=axis)).mean(axis=-1)
        first, second = (np.take(masks, range(a, masks.shape[axis] - 1 + a), axis=axis) for a in (0, 1))
        across.append(steps[first != second])
        inside.append(steps[first & second])
    return float(np.concatenate(across).mean() / max(np.concatenate(inside).mean(), 1e-9))


def measured(model: Model, held: Held, kind: str, method: str, steps: int, asked: Asked) -> dict[str, float]:
    """A cell: KID to real pictures, distance in features to the true picture, diversity, seam, network calls."""
    rng = np.random.default_rng(0)
    masks = np.stack([MASKS[kind](held.pictures.shape[1], rng) for _ in held.pictures])
    request = request_of(model, held, method, steps, asked)
    a, b = (filled(model, held, masks, request, seed) for seed in (0, len(masks)))
    true, found = held.space(held.pictures), held.space(a)
    kid = kernel_distance(found, held.real)
    apart = np.linalg.norm(true - found, axis=1).mean() / np.linalg.norm(true - np.roll(true, 1, axis=0), axis=1).mean()
    hole = np.broadcast_to(masks[..., None], a.shape)
    levels = model.diffusion(request.weights, "edit").levels(request)
    return {
        "calls": calls(method_of(cast(Changes, request.edit)), solver_of(request), levels) or 0,
        "kid": 1000 * kid.value,
        "low": 1000 * kid.interval[0],
        "high": 1000 * kid.interval[1],
        "apart": float(apart),
        "diversity": float(np.sqrt(((a.astype(float) - b)[hole] ** 2).mean())),
        "seam": seam(a, masks),
        "real_seam": seam(held.pictures, masks),
    }


def learned(model: Model) -> bool:
    """Whether it learned to fill holes."""
    concat = model.diffusion("ema", "edit").parts.concat
    return concat is not None and concat.kind == MASKED


def cells(run: str, work: Path, kinds: Sequence[str], asked: Asked) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """(mask, method, steps, figures) of every cell; those that were measured before are read."""
    model, held = load(run), None
    for kind in kinds:
        for method, steps in LEARNED if learned(model) else SETTINGS:
            cell = [model.info()["weights_sha256"], kind, method, steps, *astuple(asked)]
            path = work / f"{digest_of({'asked': cast(Any, cell)})[:24]}.json"
            if not path.is_file():
                held = held_of(model, asked.n) if held is None else held
                print(f"{run}: {kind}, {method}, {steps} steps", file=sys.stderr, flush=True)
                write_json(path, measured(model, held, kind, method, steps, asked))
            yield kind, method, steps, json.loads(path.read_text())


def sheet(runs: Sequence[str], asked: Asked) -> bytes:
    """A row for what is given and each method: the first pictures, each kind of mask twice."""
    held = held_of(load(runs[0]), asked.n)
    rng, side = np.random.default_rng(0), held.pictures.shape[1]
    masks = np.stack([list(MASKS.values())[i * len(MASKS) // SHOWN](side, rng) for i in range(SHOWN)])
    few = Held(held.pictures[:SHOWN], held.said[:SHOWN], held.real, held.space)
    grey = np.where(masks[..., None], 128, few.pictures).astype(np.uint8)
    rows, names = [few.pictures, grey], ["true", "given"]
    for model in map(load, runs):
        for method, steps in LEARNED[1:2] if learned(model) else COMPARED:
            rows.append(filled(model, few, masks, request_of(model, few, method, steps, asked), 0))
            names.append(method.partition(":")[0])
    return to_png_bytes(np.asarray(grid(np.concatenate(rows), SHOWN, names)))


def page(runs: Sequence[str], found: Sequence[tuple[str, str, int, dict[str, float]]], asked: Asked) -> str:
    """The section of the models of one source."""
    models = [load(run) for run in runs]
    source = source_of(runs[0])
    texts = [
        f"## {source}\n",
        f"`python benchmarks/edit_quality.py {' '.join('RUN' for _ in runs)} --work DIR {asked.arguments}`, on"
        f" {machine()}. {'; '.join(map(_about, models))}."
        f" {asked.n} held-out pictures a cell, two seeds each, guidance {asked.guidance:g}.\n",
    ]
    for kind in dict.fromkeys(where for where, *_ in found):
        chosen = [(method, steps, cell) for where, method, steps, cell in found if where == kind]
        rows = [[method, str(steps), *_cells(cell)] for method, steps, cell in chosen]
        real = chosen[0][2]["real_seam"]
        texts += [
            f"### {kind}\n\nSeam of the real pictures: {real:.2f}.\n",
            table(["method", "steps", "calls", "KID x 1000", "from the true one", "diversity", "seam"], rows),
        ]
    return "\n".join(texts)


def source_of(run: str) -> str:
    """The held-out part of what it was trained on."""
    return f"{load(run).run.data['source']}:test"


def _about(model: Model) -> str:
    config = model.run.config
    start = f" from `{Path(str(config['from'])).name}`" if config.get("from") else ""
    what = "`learned` by one" if learned(model) else "The methods for all models by one"
    return f"{what} of recipe `{config['recipe']}`, {model.run.plan.images:,} images seen{start}"


def _cells(cell: Mapping[str, float]) -> list[str]:
    kid = f"{number(cell['kid'])} ({number(cell['low'])} to {number(cell['high'])})"
    return [f"{cell['calls']:g}", kid, f"{cell['apart']:.2f}", f"{cell['diversity']:.1f}", f"{cell['seam']:.2f}"]


def with_sections(text: str, sections: Mapping[str, str]) -> str:
    """The page with these sections (source -> text): in their place, or at its end; the others stay as they are."""
    _, *parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = {part.partition("\n")[0].removeprefix("## "): part for part in parts}
    return "\n".join([HEAD, *(part.rstrip() + "\n" for part in {**kept, **sections}.values())])


HEAD = """# How well holes are filled

Held-out pictures with a hole in four shapes; the model is told the class or caption of each. Calls: of the network, for
a picture. KID: of the filled pictures to other held-out ones, in EfficientNet-Lite0 features; distances below its
interval are chance. From the true one: distance in these features to the picture that was cut, over that between two
pictures; it cannot be 0 where more than one filling is right. Diversity: root mean square difference in the hole
between two seeds, of 255; of two fillings that are equally bad it is large as well. Seam: the mean step from pixel to
pixel across the edge of the hole, over that inside of it; best is that of the real pictures.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--work", type=Path, required=True, help="where finished cells are kept")
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--precision", default="float32", help="of the network: float32 or bfloat16")
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS), help="only these")
    parser.add_argument("--out", type=Path, default=DOCS)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    asked = Asked(given.n, given.guidance, given.precision)
    path, sections = given.out / "editing-quality.md", dict[str, str]()
    for source, runs in itertools.groupby(sorted(given.runs, key=source_of), source_of):
        same = sorted(runs, key=lambda run: learned(load(run)))
        found = [cell for run in same for cell in cells(run, given.work, given.masks, asked)]
        name = f"editing-{source.partition(':')[0]}.png"
        write_bytes(given.out / "images" / name, sheet(same, asked))
        sections[source] = f"{page(same, found, asked)}\n![filled](images/{name})\n"
    write_text(path, with_sections(path.read_text() if path.is_file() else "", sections))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
