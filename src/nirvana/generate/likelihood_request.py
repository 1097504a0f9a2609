"""How a likelihood is to be computed, in one frozen value. It needs no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.checks import flag, number, text, whole
from nirvana.generate.request import WEIGHTS

METHODS = ("ode", "bound")
DEQUANTISE = ("noise", "uniform")
MOST = 10_000_000

STEPS = {"ode": 64, "bound": 64}
"""The steps of a method where nothing says otherwise."""

SOLVER = "unipc-3"
"""What solves the flow where nothing says otherwise."""

LEVELS = 100_000
"""The T of the bound of a continuous model: so many that it is the limit of many, of which only some are drawn."""


@dataclass(frozen=True)
class LikelihoodRequest:
    """The likelihood of pictures; picture i draws from seed `seed + i` and is the same alone and in any batch.

    method: "ode", the density of the probability flow, or "bound", the variational bound.
    dequantise: how bytes become continuous for the flow: "noise" of the first level, or "uniform" in their bins.
    steps: of the flow; for the bound the network calls of an estimate. None: `STEPS`.
    probes: independent estimates of each picture. exact: the flow with the exact divergence, one backward pass a number
    of the picture. levels: the T of the bound; None is the model's own chain, or for a continuous one `LEVELS`.
    ratio: the noise sigma/alpha of the first level, where the flow starts and the decoder stands; None is the least
    that was trained. Every ratio gives a bound; that of a network with little training at little noise is far off.
    solver: what solves the flow, by name. Raises Refused on every value out of range.
    """

    method: str = "ode"
    dequantise: str = "noise"
    steps: int | None = None
    probes: int = 1
    exact: bool = False
    levels: int | None = None
    ratio: float | None = None
    solver: str = SOLVER
    seed: int = 0
    batch: int | None = None
    weights: str = "ema"

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("dequantise", DEQUANTISE), ("weights", WEIGHTS)):
            if text(name, getattr(self, name)) not in known:
                raise unknown(name, getattr(self, name), known)
        text("solver", self.solver)
        whole("seed", self.seed, least=0)
        whole("probes", self.probes, least=1, most=MOST)
        for name, least in (("steps", 2 if self.method == "bound" else 1), ("levels", 2), ("batch", 1)):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), least=least, most=MOST)
        flag("exact", self.exact)
        if self.method == "bound" and (self.exact or self.dequantise != "noise"):
            raise Refused(
                "the bound has no divergence, and a decoder of bytes: leave exact out and dequantise at 'noise', or use"
                " the method 'ode'"
            )
        if self.ratio is not None and number("ratio", self.ratio) == 0:
            raise Refused("ratio must be above 0: the flow starts at a level with noise")
        if self.method == "ode" and self.levels is not None:
            raise Refused("levels are the T of the bound; leave them out, and give the flow its steps")

    @property
    def chosen_steps(self) -> int:
        """The steps asked for, or those of the method."""
        return STEPS[self.method] if self.steps is None else self.steps

    def to_json(self) -> dict[str, Json]:
        """All fields, as JSON values."""
        return {**dataclasses.asdict(self), "steps": self.chosen_steps}
