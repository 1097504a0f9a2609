"""What a network in bfloat16 changes in the pictures, beside what one more step changes.

The same seeds in float32, in bfloat16, and in float32 with one step more.
Run: python benchmarks/bf16_pictures.py runs/demo [pictures]
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from measure import DOCS, publish, table

import nirvana
from nirvana.generate import Model, SampleRequest

PICTURES = 64
STEPS = 25


@dataclass(frozen=True)
class Difference:
    """How far two sets of pictures are apart: mean and largest of a byte, and the signal to noise ratio in dB."""

    mean: float
    largest: int
    psnr: float

    @staticmethod
    def of(a: UInt8[np.ndarray, "n h w c"], b: UInt8[np.ndarray, "n h w c"]) -> Difference:
        """The difference of `a` and `b`; PSNR = 10 log10(255^2/mean squared error)."""
        off = a.astype(np.float64) - b.astype(np.float64)
        squared = float((off**2).mean())
        psnr = 10 * math.log10(255**2 / squared) if squared else math.inf
        return Difference(float(np.abs(off).mean()), int(np.abs(off).max()), psnr)

    def row(self) -> list[str]:
        """The cells of a table."""
        return [f"{self.mean:.3f}", str(self.largest), f"{self.psnr:.1f}"]


def compared(model: Model, request: SampleRequest) -> dict[str, Difference]:
    """What the number format and what one more step changes in the pictures of `request`."""
    exact = made(model, request)
    return {
        "bfloat16": Difference.of(made(model, replace(request, precision="bfloat16")), exact),
        f"{request.steps + 1} steps": Difference.of(made(model, replace(request, steps=request.steps + 1)), exact),
    }


def made(model: Model, request: SampleRequest) -> UInt8[np.ndarray, "n h w c"]:
    """The pictures of `request`."""
    return model.gather(request, model.stream(request)).array


def main(docs: Path | None = DOCS) -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit("give the folder of a trained run: python benchmarks/bf16_pictures.py runs/demo [pictures]")
    model = nirvana.load(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) == 3 else PICTURES
    rows, values = [], {}
    for name, solver in (("deterministic", "ddim"), ("stochastic", "ddpm")):
        found = compared(model, model.request(n=n, steps=STEPS, solver=solver))
        rows += [[name, change, *difference.row()] for change, difference in found.items()]
        values[name] = {
            change: {key: value for key, value in asdict(difference).items() if math.isfinite(value)}
            for change, difference in found.items()
        }
    text = table(["sampling", "instead of float32 and 25 steps", "mean byte", "largest byte", "PSNR, dB"], rows)
    text += f"\n{n} pictures, the same seeds; a byte is one of 0 to 255, and an infinite PSNR is no difference.\n"
    text += "With noise at every step another number of steps draws other noise, so that row is of other pictures.\n"
    command = " ".join(["python benchmarks/bf16_pictures.py", *sys.argv[1:]])
    publish("bf16-pictures", "What bfloat16 changes in the pictures", command, text, values, docs)


if __name__ == "__main__":
    main()
