"""The named solvers: each one constructor call."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from nirvana.diffusion.solver.ancestral import Ancestral
from nirvana.diffusion.solver.coordinate import DataInLam, NoiseInLam, NoiseInRatio
from nirvana.diffusion.solver.multistep import Multistep
from nirvana.diffusion.solver.protocol import Solver

Family = Literal["exponential", "runge-kutta", "adams", "stochastic"]
"""What a solver is made of: an exponential integrator, a Runge-Kutta method, Adams, or a stochastic step of its own."""

Make = Callable[..., Solver[Any]]
"""Makes a solver from numbers given by name, all of which have a default."""


@dataclass(frozen=True, eq=False)
class Named:
    """A solver's name to choose it by: `make(eta=0.5)` makes it; `when` says in one line when to choose it.

    parameters: their names and defaults. A parameter it does not have is a ValueError that names those it has.
    """

    family: Family
    when: str
    make: Make
    parameters: Mapping[str, float]

    @property
    def __call__(self) -> Make:
        """`make`."""
        return self.make


def ddim(eta: float = 0.0) -> Multistep:
    """x_nxt = alpha_nxt*x0 + sqrt(sigma_nxt^2 - s^2)*eps + s*noise (Song, Meng & Ermon 2021, eq. 12).

    eta: 0 is deterministic, the first-order step of the probability flow, exact for a constant x0; 1 draws from the
    posterior q(x_nxt | x_now, x0) as ancestral sampling does. Raises ValueError unless 0 <= eta <= 1.
    """
    return Multistep(DataInLam(eta), points=1)


def _dpmpp_2m_sde(eta: float = 1.0) -> Multistep:
    return Multistep(DataInLam(eta, "bh2"), points=2)


def _dpmpp_3m_sde(eta: float = 1.0) -> Multistep:
    return Multistep(DataInLam(eta), points=3)


def _sa(eta: float = 1.0) -> Multistep:
    return Multistep(DataInLam(eta), points=2, corrects=True)


def _unipc(points: int, linear: Literal["bh1", "bh2"] = "bh2") -> Make:
    return lambda: Multistep(DataInLam(0.0, linear), points, corrects=True)


def _named(name: str, family: Family, when: str, make: Make) -> tuple[str, Named]:
    parameters = {p.name: p.default for p in inspect.signature(make).parameters.values()}

    def checked(**values: float) -> Solver[Any]:
        for given in values.keys() - parameters.keys():
            near = difflib.get_close_matches(given, parameters, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"'{name}' has no parameter '{given}'{hint} (it has: {', '.join(parameters) or 'none'})")
        return make(**values)

    return name, Named(family, when, checked, MappingProxyType(parameters))


SOLVERS: Mapping[str, Named] = MappingProxyType(
    dict(
        [
            _named("ddim", "exponential", "the plain first-order step; eta > 0 adds noise", ddim),
            _named(
                "dpmpp-2m",
                "exponential",
                "10 to 30 steps: the first to try after ddim",
                lambda: Multistep(DataInLam(linear="bh2"), points=2),
            ),
            _named(
                "dpmpp-3m",
                "exponential",
                "20 steps and more, little guidance",
                lambda: Multistep(DataInLam(), points=3),
            ),
            _named("unipc-1", "exponential", "very few steps or strong guidance", _unipc(1)),
            _named("unipc-2", "exponential", "5 to 15 steps", _unipc(2)),
            _named("unipc-2-bh1", "exponential", "5 to 10 steps without guidance", _unipc(2, "bh1")),
            _named("unipc-3", "exponential", "10 steps and more without guidance", _unipc(3)),
            _named(
                "deis-2",
                "exponential",
                "10 to 20 steps of a network that predicts eps",
                lambda: Multistep(NoiseInLam(), points=2),
            ),
            _named(
                "deis-3",
                "exponential",
                "as deis-2, with more steps",
                lambda: Multistep(NoiseInLam(), points=3),
            ),
            _named("dpmpp-2m-sde", "exponential", "20 to 50 steps with noise", _dpmpp_2m_sde),
            _named("dpmpp-3m-sde", "exponential", "30 steps and more with noise", _dpmpp_3m_sde),
            _named("sa-solver", "exponential", "20 steps and more with noise, the smallest error of those", _sa),
            _named(
                "ipndm",
                "adams",
                "10 steps and more on grids that are dense in sigma/alpha, such as karras",
                lambda: Multistep(NoiseInRatio(), points=4),
            ),
            _named("ddpm", "stochastic", "the chain of the original paper, small variance", lambda: Ancestral("small")),
            _named("ddpm-large", "stochastic", "as ddpm with the variance beta", lambda: Ancestral("large")),
            _named("ddpm-learned", "stochastic", "networks with a learned variance", lambda: Ancestral("learned")),
        ]
    )
)
"""Name -> how to make it."""
