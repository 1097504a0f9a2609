"""How long, how fast, how often: the plan of a training. All positions count images, not steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from itertools import pairwise

from nirvana.errors import Refused, unknown
from nirvana.files import Json

PRECISIONS = ("auto", "float32", "bfloat16")
DECAYS = ("linear", "cosine")
SNAPSHOTS = tuple(Fraction(part, 16) for part in (1, 2, 4, 8, 12, 16))
"""Fractions of the run at which the EMA profiles are kept, for autoguidance (the early ones) and post-hoc EMA.

With the profiles 0.10 and 0.05, a synthesized profile is within 4% (L2) of the one asked for from 0.07 to 0.12.
"""


@dataclass(frozen=True)
class TrainPlan:
    """A training run of `images` images in batches of `batch` (the last one may be smaller).

    lr          peak learning rate; scaled by `factor`
    accumulate  parts a batch is split into, to save memory; the result changes by rounding only (and by torch's own
                dropout masks, which are drawn a part)
    warmup      images of linear warm-up from 0
    decay       fraction of the run, at its end, over which the rate falls to 0
    decay_shape "linear" or "cosine"
    clip        largest global norm of a phase's gradients; None for no clipping
    ema         sigma_rel of the tracked EMA profiles; the first one is what samples are drawn with
    checkpoint_every, sample_every   images; None: only at the end
    keep        scheduled checkpoints that stay on the disk
    read_every  steps between two looks at the loss (a look waits for the device)
    precision   "float32", "bfloat16" or "auto": the quicker one where it runs (`nirvana train` decides it once)
    compile     whether `torch.compile` makes kernels of the network; worth its minutes on a GPU only

    Raises Refused for values that make no sense.
    """

    images: int
    batch: int = 64
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 0
    decay: float = 0.5
    decay_shape: str = "linear"
    clip: float | None = 1.0
    ema: tuple[float, ...] = (0.10, 0.05)
    checkpoint_every: int | None = None
    sample_every: int | None = None
    keep: int = 2
    read_every: int = 10
    seed: int = 0
    precision: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("images", "batch", "accumulate", "keep", "read_every"):
            _at_least(name, getattr(self, name), 1)
        for name in ("checkpoint_every", "sample_every"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            _at_least(name, getattr(self, name), 0)
        if self.seed >= 2**63:
            raise Refused(f"the plan's seed is {self.seed}; give one below 2**63")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise Refused(f"the plan's lr is {self.lr}; give a positive number")
        if not 0 <= self.decay <= 1:
            raise Refused(f"the plan's decay is {self.decay}; give a fraction of the run, 0 to 1")
        if self.clip is not None and not self.clip > 0:
            raise Refused(f"the plan's clip is {self.clip}; give a positive norm, or none")
        if self.decay_shape not in DECAYS:
            raise unknown("decay shape", self.decay_shape, DECAYS)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if not self.ema or not all(0 < sigma_rel < 0.288 for sigma_rel in self.ema):
            raise Refused(f"the plan's ema is {self.ema}; give one or more lengths between 0 and 0.288 (0.1 is usual)")

    def factor(self, images: int) -> float:
        """What the peak rate is multiplied by in the step that starts after `images` images.

        The smaller of the warm-up min(1, (images + batch)/warmup) and the decay: with r = remaining/(decay * total)
        cut at 1, linear is r, cosine is (1 - cos(pi r))/2. Positive in every step.
        """
        warm = 1.0 if self.warmup == 0 else min(1.0, (images + self.batch) / self.warmup)
        length = self.decay * self.images
        rest = 1.0 if length == 0 else min(1.0, (self.images - images) / length)
        if self.decay_shape == "cosine":
            rest = 0.5 * (1 - math.cos(math.pi * rest))
        return min(warm, rest)

    def next_indices(self, images: int) -> range:
        """Global sample indices of the step that starts after `images` images."""
        return range(images, min(images + self.batch, self.images))

    def step_of(self, images: int) -> int:
        """Number of steps done after `images` images."""
        return -(-images // self.batch)

    def parts(self, indices: range) -> list[range]:
        """`indices` in `accumulate` parts of nearly the same size (fewer where there are fewer samples)."""
        count = min(self.accumulate, len(indices))
        edges = [len(indices) * part // count for part in range(count + 1)]
        return [indices[a:b] for a, b in pairwise(edges)]

    def passes(self, every: int | None, images: int) -> bool:
        """Whether the step that ended at `images` passed a multiple of `every`, or the end of the run."""
        if images == self.images:
            return True
        before = (self.step_of(images) - 1) * self.batch
        return every is not None and images > 0 and images // every > before // every

    def is_scheduled(self, images: int) -> bool:
        """Whether a scheduled checkpoint lies at `images`. The start is one: a run can always be rolled back to it."""
        return images == 0 or self.passes(self.checkpoint_every, images)

    def snapshots_at(self, images: int) -> list[Fraction]:
        """Fractions of the run that the step that ended at `images` has passed."""
        before = max(0, self.step_of(images) - 1) * self.batch
        return [part for part in SNAPSHOTS if before < part * self.images <= images]

    def snapshot_images(self, fraction: Fraction) -> int:
        """Images seen when the snapshot at `fraction` is taken: the first step's end at or after it."""
        return min(self.images, -(-math.ceil(fraction * self.images) // self.batch) * self.batch)

    def to_json(self) -> dict[str, Json]:
        """The plan as a JSON object."""
        values: dict[str, Json] = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "ema": list(self.ema)}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> TrainPlan:
        """The plan that `to_json` wrote. Raises TypeError for unknown or missing fields, Refused for bad values."""
        ema = value.get("ema")
        if not isinstance(ema, (list, tuple)):
            raise TypeError("ema must be a list")
        return cls(**{**value, "ema": tuple(ema)})  # pyright: ignore[reportArgumentType]


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise Refused(f"the plan's {name} is {value}; give {least} or more")
