"""Whether a model of `shapes` draws what it is told, by the exact checker: combinations seen and held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from nirvana.data.shapes import Scene, captions, scene, score
from nirvana.data.shapes.source import SEED
from nirvana.evaluate import Interval, wilson
from nirvana.files import Json
from nirvana.generate.model import Model
from nirvana.generate.sampler import PictureSampler, Sampler
from nirvana.generate.spec import build
from nirvana.train.checkpoint import earlier_moments, load_earlier, newest
from nirvana.train.plot import Line
from zoo.card import COLOURS, Section, drawing, table

GUIDANCE = (1.0, 2.0, 4.0, 7.0)
USUAL = 4.0
"""Guidance where it is not what is varied."""
SCENES = 300
"""Scenes of each part: a third of one object, of two, of three."""
FIRST = 10**6
"""Of the scenes that are asked for: behind all that training shows."""
PAIRS = 100
"""Prompts that are drawn twice, for diversity."""

PARTS = {"seen": False, "held out": True}
OBJECTS = {1: "one object", 2: "two objects", 3: "three objects"}
ATTRIBUTES = ("count", "shapes", "colours", "sizes", "relations", "place")
LINES = {
    "one object, attributes": (1, "attributes"),
    "two objects, attributes": (2, "attributes"),
    "two objects, relation": (2, "relations"),
    "held out, two objects": (2, "attributes"),
}

Flags = Mapping[str, Sequence[bool]]


def following(packed: Model, trained: Model) -> list[Section]:
    """What is right at each guidance, how much two pictures of a prompt differ, and how it came with training."""
    at = {w: {part: shown(packed.sampler(), scenes_of(held), w) for part, held in PARTS.items()} for w in GUIDANCE}
    spread = {w: diversity(packed.sampler(), w) for w in GUIDANCE}
    return [_by_guidance(at, spread), _by_images(packed, trained)]


def scenes_of(held_out: bool) -> list[Scene]:
    """Scenes that training did not show; held_out: each with a combination that it never showed."""
    return [scene(SEED, FIRST + i, held_out=held_out) for i in range(SCENES)]


def shown(sampler: PictureSampler[Any], scenes: Sequence[Scene], guidance: float) -> dict[int, Flags]:
    """For scenes of one, two and three objects, the flags of each kind of attribute."""
    pictures = drawn(sampler, [captions(one)[0] for one in scenes], guidance)
    found: dict[int, dict[str, list[bool]]] = {}
    for one, picture in zip(scenes, pictures, strict=True):
        right = score(one, picture)
        flags = found.setdefault(len(one.things), {name: [] for name in (*ATTRIBUTES, "attributes")})
        for name in ATTRIBUTES:
            flags[name] += [bool(flag) for flag in np.atleast_1d(getattr(right, name)) if flag is not None]
        flags["attributes"] += [*right.shapes, *right.colours, *right.sizes]
    return dict(found)


def drawn(
    sampler: PictureSampler[Any], prompts: Sequence[str], guidance: float, seed: int = 0
) -> UInt8[ndarray, "n h w c"]:
    """A picture of each prompt."""
    return sampler.pictures(sampler.request(prompts, n=len(prompts), guidance=guidance, seed=seed))


def diversity(sampler: PictureSampler[Any], guidance: float) -> float:
    """Root mean square difference, of 255, between two pictures of one prompt with different noise."""
    prompts = [captions(one)[0] for one in scenes_of(held_out=False)[:PAIRS]]
    a, b = (drawn(sampler, prompts, guidance, seed).astype(np.float64) for seed in (0, PAIRS))
    return float(np.sqrt(((a - b) ** 2).mean()))


def share(flags: Sequence[bool]) -> tuple[float, Interval]:
    """The share that is right, with its 95% interval."""
    return sum(flags) / len(flags), wilson(sum(flags), len(flags))


Found = Mapping[float, Mapping[str, Mapping[int, Flags]]]


def _by_guidance(found: Found, spread: Mapping[float, float]) -> Section:
    rows = list(_rows(found))
    lines = [
        Line(
            name,
            [(w, share(found[w]["held out" if "held" in name else "seen"][n][kind])[0]) for w in GUIDANCE],
            style,
            dots=True,
        )
        for (name, (n, kind)), style in zip(LINES.items(), COLOURS, strict=True)
    ]
    differ = Line("difference of two pictures of a prompt, of 255", list(spread.items()), "a", dots=True)
    text = (
        f"{SCENES} prompts of each part, behind all that training shows; `held out` scenes have a combination of shape,"
        " colour and relation that training never showed. Read by the exact checker of `shapes`.\n\n"
        "![right](right.svg)\n\n![diversity](diversity.svg)\n\n"
        "In each cell: combinations seen / held out, with their 95% intervals.\n\n" + _pivot(found)
    )
    figures: list[Json] = [
        {"guidance": w, "part": part, "objects": n, "attribute": name, "right": value, "interval": list(interval)}
        for w, part, n, name, value, interval in rows
    ]
    files = {"right.svg": drawing(lines, "guidance"), "diversity.svg": drawing([differ], "guidance")}
    return Section(
        "What is asked for", text, files, {"following": figures, "diversity": {f"{w:g}": d for w, d in spread.items()}}
    )


def _pivot(found: Found) -> str:
    """A row for each attribute of scenes of so many objects, a column for each guidance."""

    def cell(w: float, n: int, name: str) -> str:
        return " / ".join(percent(*share(found[w][part][n][name])) for part in PARTS)

    names = [(n, name) for n in OBJECTS for name in found[USUAL]["seen"][n] if found[USUAL]["seen"][n][name]]
    rows = [[OBJECTS[n], name, *(cell(w, n, name) for w in GUIDANCE)] for n, name in names]
    return table(["scenes of", "", *(f"guidance {w:g}" for w in GUIDANCE)], rows)


def percent(value: float, interval: Interval) -> str:
    """93% (88-96)."""
    return f"{value:.0%} ({100 * interval[0]:.0f}-{100 * interval[1]:.0f})"


def _rows(found: Found) -> Iterator[tuple[float, str, int, str, float, Interval]]:
    for w, parts in found.items():
        for part, by_objects in parts.items():
            for n in sorted(by_objects):
                for name, flags in by_objects[n].items():
                    if flags:
                        yield w, part, n, name, *share(flags)


def _by_images(packed: Model, trained: Model) -> Section:
    """Accuracy against images seen, from the averages that the run kept on its way."""
    moments: list[tuple[int, PictureSampler[Any]]] = [
        (images, _earlier(trained, at)) for at, images in sorted(earlier_moments(trained.run).items())
    ]
    moments.append((newest(packed.run).images, packed.sampler()))
    found = [(images, shown(sampler, scenes_of(held_out=False), USUAL)) for images, sampler in moments]
    chosen = [(name, of) for name, of in LINES.items() if "held" not in name]
    lines = [
        Line(name, [(images, share(flags[n][kind])[0]) for images, flags in found], style, dots=True)
        for (name, (n, kind)), style in zip(chosen, COLOURS, strict=False)
    ]
    rows = [[f"{images:,}", *(f"{share(flags[n][kind])[0]:.1%}" for _, (n, kind) in chosen)] for images, flags in found]
    text = f"Guidance {USUAL:g}.\n\n![images](images.svg)\n\n" + table(
        ["images seen", *(name for name, _ in chosen)], rows
    )
    return Section("Against images seen", text, {"images.svg": drawing(lines, "images seen")})


def _earlier(trained: Model, at: Any) -> Sampler:
    parts = build(trained.run.model_spec)
    parts.load(load_earlier(trained.run, at), str(trained.run.path))
    return Sampler(parts, trained.device, str(trained.run.path))
