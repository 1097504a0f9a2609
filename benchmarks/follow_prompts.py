"""Whether a model of `shapes` draws what it is told, by the exact checker: seen and held-out combinations, by guidance.

python benchmarks/follow_prompts.py RUN [--n 300] [--guidance 1 2 4 7] [--steps 25] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import nirvana
from nirvana.data.shapes import Scene, captions, scene, score
from nirvana.data.shapes.source import SEED
from nirvana.evaluate import wilson
from nirvana.generate.model import Model

FIRST = 10**6
"""Of the scenes that are asked for: behind all that training shows."""


def measured(model: Model, scenes: list[Scene], guidance: float, steps: int | None) -> dict[str, float | str]:
    """Shares of attributes, relations and whole scenes that are right, and the diversity of the pictures."""
    prompts = [captions(one)[0] for one in scenes]
    images = model.generate(prompts, n=len(scenes), guidance=guidance, steps=steps)
    scores = [score(one, picture) for one, picture in zip(scenes, images.array, strict=True)]
    shapes, colours, sizes, relations = (
        [flag for one in scores for flag in getattr(one, name)] for name in ("shapes", "colours", "sizes", "relations")
    )
    right = {
        "count": [one.count for one in scores],
        "shape": shapes,
        "colour": colours,
        "size": sizes,
        "attributes": [*shapes, *colours, *sizes],
        "relation": relations,
        "place": [one.place for one in scores if one.place is not None],
    }
    return {name: share(flags) for name, flags in right.items() if flags}


def share(flags: list[bool]) -> str:
    """A proportion with its interval."""
    low, high = wilson(sum(flags), len(flags))
    return f"{np.mean(flags):.3f} ({low:.3f}-{high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 4.0, 7.0])
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    model = nirvana.load(options.run)
    found: dict[str, object] = {}
    for part, held_out in (("seen", False), ("held out", True)):
        scenes = [scene(SEED, FIRST + i, held_out=held_out) for i in range(options.n)]
        for w in options.guidance:
            for things in (1, 2, 3):
                chosen = [one for one in scenes if len(one.things) == things]
                row = measured(model, chosen, w, options.steps)
                found[f"{part}, {things} things, guidance {w:g}"] = row
                print(f"{part:<9}{things} things, w={w:g}: {row}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
