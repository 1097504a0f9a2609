"""What the user asked for, checked. It imports no torch, so that a bad number is refused at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nirvana.errors import Refused, unknown
from nirvana.files import Json

DEFAULT_MINUTES = 10.0
DEFAULT_RECIPE = "flow"
MOST_MINUTES = 31 * 24 * 60.0
MOST_IMAGES = 10**12
MOST_WIDTH = 1024
MOST_BATCH = 65_536
MOST_SIZE = 4096
CONDITIONS = ("auto", "captions", "labels", "both", "none")
FREEZABLE = ("encoder", "network")


@dataclass(frozen=True)
class Order:
    """A training as it was ordered. What is None is for the planner to choose.

    images or minutes, or neither (then `DEFAULT_MINUTES`); recipe: "auto" is that of `start`, or flow; width, batch: of
    the network and of a step; accumulate: parts a batch is computed in; `start`: the run of `--from`; freeze: parts
    that keep its weights. manifest: what `nirvana data check` wrote. condition: what the model is told of its pictures;
    encoder: of texts; templates, shuffle_tags: how captions are varied. inpaint: learn to fill what is hidden of a
    picture; target: learn to make the pictures of this source of those of `source`. Raises Refused for values out of
    range.
    """

    source: str
    size: int | None = None
    images: int | None = None
    minutes: float | None = None
    recipe: str = "auto"
    width: int | None = None
    batch: int | None = None
    accumulate: int = 1
    start: str | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    manifest: str | None = None
    condition: str = "auto"
    encoder: str = "auto"
    templates: tuple[str, ...] = ()
    shuffle_tags: bool = False
    freeze: tuple[str, ...] = ()
    inpaint: bool = False
    target: str | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.minutes is not None:
            raise Refused("both --images and --minutes were given; give one of them")
        if self.images is not None and not 1 <= self.images <= MOST_IMAGES:
            raise Refused(f"--images must be 1 to {MOST_IMAGES}, got {self.images}; it counts repetitions too")
        if self.minutes is not None and not (math.isfinite(self.minutes) and 0 < self.minutes <= MOST_MINUTES):
            raise Refused(
                f"--minutes must be more than 0 and at most {MOST_MINUTES:.0f} (31 days), got {self.minutes:g};"
                " a finished training can be continued with --from"
            )
        if self.size is not None and not 1 <= self.size <= MOST_SIZE:
            raise Refused(f"--size must be 1 to {MOST_SIZE} pixels, got {self.size}; leave it to the planner")
        for name, value, most in (("width", self.width, MOST_WIDTH), ("batch", self.batch, MOST_BATCH)):
            if value is not None and not 1 <= value <= most:
                raise Refused(f"--{name} must be 1 to {most}, got {value}; leave it to the planner")
        if not 1 <= self.accumulate <= (self.batch or MOST_BATCH):
            raise Refused(f"--accumulate must be 1 to the batch, got {self.accumulate}; it is the parts of a batch")
        if not 0 <= self.seed < 2**63:
            raise Refused(f"--seed must be in 0..2^63-1, got {self.seed}")
        if self.condition not in CONDITIONS:
            raise unknown("condition", self.condition, CONDITIONS)
        for part in self.freeze:
            if part not in FREEZABLE:
                raise unknown("part to freeze", part, FREEZABLE)
        if self.freeze and self.start is None:
            raise Refused("--freeze keeps the weights of the run that --from names; give that too, or leave it out")

        if self.inpaint and self.target is not None:
            raise Refused("--inpaint and --target are two things to learn; give one of them, and train twice for both")
        if self.target is not None and self.manifest is not None:
            raise Refused(
                "--manifest decides about the pictures of one source, and --target names a second; clean both"
                " with `nirvana data check --fix`, or leave one out"
            )

    def to_json(self) -> dict[str, Json]:
        """What the run folder stores, and compares with when the command is given again.

        Not the device: a training may go on on another one.
        """
        chosen: dict[str, Json] = {"width": self.width, "batch": self.batch}
        if self.accumulate > 1:
            chosen["accumulate"] = self.accumulate
        if self.precision != "auto":
            chosen["precision"] = self.precision
        if self.compile:
            chosen["compile"] = True
        if self.manifest is not None:
            chosen["manifest"] = self.manifest
        for name in ("condition", "encoder"):
            if getattr(self, name) != "auto":
                chosen[name] = getattr(self, name)
        for name in ("templates", "freeze"):
            if getattr(self, name):
                chosen[name] = list(getattr(self, name))
        for name in ("shuffle_tags", "inpaint"):
            if getattr(self, name):
                chosen[name] = True
        if self.target is not None:
            chosen["target"] = self.target
        return {
            "source": self.source,
            "size": self.size,
            "images": self.images,
            "minutes": self.minutes,
            "recipe": self.recipe,
            "from": self.start,
            "seed": self.seed,
            **{name: value for name, value in chosen.items() if value is not None},
        }
