"""The named solvers: each one constructor call, and a line on when to choose it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from nirvana.diffusion.solver.ancestral import Ancestral, Renoise
from nirvana.diffusion.solver.churn import Churn
from nirvana.diffusion.solver.coordinate import DataInLam, Linear, NoiseInLam, NoiseInRatio, VelocityInAngle
from nirvana.diffusion.solver.multistep import Multistep
from nirvana.diffusion.solver.protocol import Solver
from nirvana.diffusion.solver.runge_kutta import BOGACKI_SHAMPINE, EULER, HEUN, HEUN3, MIDPOINT, RungeKutta, Tableau

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


DDIM = ddim


def _unipc(points: int, linear: Linear = "bh2") -> Make:
    return lambda: Multistep(DataInLam(0.0, linear), points, corrects=True)


def _noisy(points: int, linear: Linear = "exact", *, corrects: bool = False) -> Make:
    def make(eta: float = 1.0) -> Multistep:
        return Multistep(DataInLam(eta, linear), points, corrects)

    return make


def _single(tableau: Tableau) -> Make:
    return lambda: RungeKutta(tableau, DataInLam())


def _adaptive(tolerance: float = 1e-3) -> RungeKutta:
    return RungeKutta(BOGACKI_SHAMPINE, VelocityInAngle(), tolerance)


def _churn(s_churn: float = 40.0, s_tmin: float = 0.05, s_tmax: float = 50.0, s_noise: float = 1.0) -> Churn:
    return Churn(RungeKutta(HEUN, NoiseInRatio()), s_churn, s_tmin, s_tmax, s_noise)


def _named(name: str, family: Family, when: str, make: Make) -> Named:
    parameters = {p.name: float(p.default) for p in inspect.signature(make).parameters.values()}

    def checked(**values: float) -> Solver[Any]:
        for given in values.keys() - parameters.keys():
            near = difflib.get_close_matches(given, parameters, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"'{name}' has no parameter '{given}'{hint} (it has: {', '.join(parameters) or 'none'})")
        return make(**values)

    return Named(family, when, checked, MappingProxyType(parameters))


_EXPONENTIAL: Mapping[str, tuple[str, Make]] = {
    "ddim": ("the plain first-order step; with eta > 0 noise makes up for errors of the network", ddim),
    "dpmpp-2m": ("10 to 30 steps, also with guidance: try it first", lambda: Multistep(DataInLam(0.0, "bh2"), 2)),
    "dpmpp-3m": ("20 steps or more with little guidance", lambda: Multistep(DataInLam(), 3)),
    "unipc-1": ("5 to 10 steps with strong guidance", _unipc(1)),
    "unipc-2": ("5 to 15 steps", _unipc(2)),
    "unipc-2-bh1": ("5 to 10 steps without guidance", _unipc(2, "bh1")),
    "unipc-3": ("10 steps or more without guidance", _unipc(3)),
    "deis-2": ("10 to 20 steps of a network that predicts eps", lambda: Multistep(NoiseInLam(), 2)),
    "deis-3": ("20 steps or more of a network that predicts eps", lambda: Multistep(NoiseInLam(), 3)),
    "dpmpp-2m-sde": ("20 to 50 steps with noise", _noisy(2, "bh2")),
    "dpmpp-3m-sde": ("50 steps or more with noise", _noisy(3)),
    "sa-solver": ("20 steps or more with noise: steady also on uneven steps", _noisy(2, corrects=True)),
}

_RUNGE_KUTTA: Mapping[str, tuple[str, Make]] = {
    "euler": ("ddim under the name it has for sigma/alpha", lambda: RungeKutta(EULER, NoiseInRatio())),
    "heun": ("EDM's own: 18 steps or more on the karras grid", lambda: RungeKutta(HEUN, NoiseInRatio())),
    "dpm-2": ("results made with DPM-Solver-2 or DPM-2", lambda: RungeKutta(MIDPOINT, NoiseInLam())),
    "dpmpp-2s": ("edits at every step, which cost multistep solvers their history", _single(MIDPOINT)),
    "dpmpp-3s": ("as dpmpp-2s, to higher accuracy", _single(HEUN3)),
    "adaptive": ("reference results, encoding, likelihoods: says how exact, not how many steps", _adaptive),
}

_ADAMS: Mapping[str, tuple[str, Make]] = {
    "ipndm-2": ("5 to 10 steps on the karras grid", lambda: Multistep(NoiseInRatio(), 2)),
    "ipndm-3": ("8 steps or more on the karras grid", lambda: Multistep(NoiseInRatio(), 3)),
    "ipndm": ("10 steps or more on the karras grid", lambda: Multistep(NoiseInRatio(), 4)),
}

_STOCHASTIC: Mapping[str, tuple[str, Make]] = {
    "ddpm": ("the chain of the original paper; a hundred steps or more", lambda: Ancestral("small")),
    "ddpm-large": ("as ddpm, with the variance beta", lambda: Ancestral("large")),
    "ddpm-learned": ("networks that learned their variance; 25 steps or more", lambda: Ancestral("learned")),
    "euler-ancestral": ("ddim with eta = 1 under the name it has for sigma/alpha", _noisy(1)),
    "heun-churn": ("EDM's stochastic sampler, for hundreds of calls", _churn),
    "renoise": ("consistency models, 1 to 4 steps", Renoise),
}

SOLVERS: Mapping[str, Named] = MappingProxyType(
    {
        **{name: _named(name, "exponential", *entry) for name, entry in _EXPONENTIAL.items()},
        **{name: _named(name, "runge-kutta", *entry) for name, entry in _RUNGE_KUTTA.items()},
        **{name: _named(name, "adams", *entry) for name, entry in _ADAMS.items()},
        **{name: _named(name, "stochastic", *entry) for name, entry in _STOCHASTIC.items()},
    }
)
"""Name -> how to make it."""
