"""The ground the proof stands on: conversions, preconditioners, schedules, scores and the reference itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nirvana.diffusion import (
    NOISE_CODES,
    PARAMETERIZATIONS,
    Cond,
    Denoiser,
    GaussianDenoiser,
    Level,
    MixtureDenoiser,
    Parameterization,
    Preconditioned,
    Tabulated,
    derivative,
    left_align,
    strictly_monotone,
    to_eps,
    to_x0,
    trajectory,
    uniform,
    walk,
)
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.schedule import RectifiedFlow
from nirvana.verify.finding import Finding
from nirvana.verify.problems import F64, PROBLEMS, D
from nirvana.verify.reference import Reference
from nirvana.verify.settings import SCHEDULES
from nirvana.verify.walks import Counted, Silence

LAMS = (-3.0, -1.2, 0.0, 0.4, 3.0)
SCALES = (1.0, 0.03, 40.0)
PURE, CLEAN = Level.of(0.0, 1.0), Level.of(1.0, 0.0)

NO_X0_AT_NOISE = frozenset({"eps", "score"})
"""Parameterizations that do not determine x0 at alpha = 0."""

NO_EPS_AT_DATA = frozenset({"x0", "score"})
"""Parameterizations that do not determine eps at sigma = 0: x0, and the score -eps/sigma, which is infinite there."""


def conversion(name: str) -> Finding:
    """x0 and eps of the exact output F = p*x0 + q*eps are the oracle's to 1e-12, at interior levels and the limits."""
    of, worst, faults = PARAMETERIZATIONS[name], 0.0, list[str]()
    for level in (Level.from_lam(lam).scaled(scale) for lam, scale in itertools.product(LAMS, SCALES)):
        worst = max(worst, *_conversion_errors(of, level))
    for scale in SCALES:
        pure, clean = PURE.scaled(scale), CLEAN.scaled(scale)
        worst = max(worst, _eps_error(of, pure), _x0_error(of, clean))
        for level, error, undefined in ((pure, _x0_error, NO_X0_AT_NOISE), (clean, _eps_error, NO_EPS_AT_DATA)):
            try:
                worst = max(worst, error(of, level))
            except ValueError:
                faults += [] if name in undefined else [f"alpha = {float(level.alpha)}: refused, but determined"]
            else:
                faults += [f"alpha = {float(level.alpha)}: not determined, and not refused"] * (name in undefined)
    return _within("conversion", name, "oracle", worst, 1e-12, faults)


def _truth(of: Parameterization, level: Level) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0 and eps as the mixture's denoiser says them of an x, that x, and the exact output F."""
    problem = PROBLEMS["mixture"]()
    x = problem.at(level, 6, seed=3)
    x0 = problem.denoiser(x, level, {}).x0
    eps = torch.zeros_like(x) if level.is_clean else (x - level.alpha * x0) / level.sigma
    p, q = of(level)
    return x0, eps, x, p * x0 + q * eps


def _x0_error(of: Parameterization, level: Level) -> float:
    x0, _, x, F = _truth(of, level)
    return float((to_x0(F, x, level, of(level)) - x0).abs().max())


def _eps_error(of: Parameterization, level: Level) -> float:
    _, eps, x, F = _truth(of, level)
    return float((to_eps(F, x, level, of(level)) - eps).abs().max())


def _conversion_errors(of: Parameterization, level: Level) -> tuple[float, float]:
    return _x0_error(of, level), _eps_error(of, level)


class _Smooth(nn.Module):
    """A network without weights that mixes what it is given."""

    slots: frozenset[str] = frozenset()

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        """tanh of x and of the code."""
        del cond
        return torch.tanh(0.7 * x.flip(1) + left_align(noise, x) / 900)


@dataclass(eq=False)
class _Exact(nn.Module):
    """The network that is right everywhere: its output is that of the oracle at the level that `AngleCode` tells it."""

    oracle: GaussianDenoiser | MixtureDenoiser
    of: Parameterization
    native: str
    slots: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        """F = p*x0 + q*eps."""
        del cond
        self.calls += 1
        level = Level.from_angle(noise[0] * (math.pi / 2000))
        level = level.scaled(
            {"unit": 1.0, "ratio": 1 / level.alpha, "sum": 1 / (level.alpha + level.sigma)}[self.native]
        )
        x0 = self.oracle(x, level, {}).x0
        p, q = self.of(level)
        return p * x0 + q * (x - level.alpha * x0) / level.sigma


def scale_property(name: str) -> Finding:
    """denoise(c*x, Level(c*alpha, c*sigma)) = denoise(x, Level(alpha, sigma)), whatever the network."""
    x, worst = torch.linspace(-2, 2, 3 * D, dtype=F64).reshape(3, D), 0.0
    for native, c_in, code in itertools.product(("unit", "ratio", "sum"), ("none", "edm"), NOISE_CODES.values()):
        denoiser = Preconditioned(_Smooth(), PARAMETERIZATIONS[name], native=native, c_in=c_in, c_noise=code)
        for level, c in itertools.product(map(Level.from_lam, LAMS), (0.01, 3.0, 500.0)):
            expected = denoiser(x, level, {}).x0
            found = denoiser(c * x, level.scaled(c), {}).x0
            worst = max(worst, float((found - expected).abs().max() / expected.abs().max()))
    return _within("scale", name, "preconditioner", worst, 1e-12)


def network(name: str) -> Finding:
    """A network that is right everywhere, preconditioned, walks as its oracle does, from alpha = 0 to sigma = 0.

    One that does not determine x0 at alpha = 0 is refused there before it is called, and walks from alpha > 0.
    """
    oracle, worst, faults = PROBLEMS["mixture"]().denoiser, 0.0, list[str]()
    levels, x = uniform(RectifiedFlow(), 9), torch.linspace(-2, 2, 2 * D, dtype=F64).reshape(2, D)
    for native in ("unit", "ratio", "sum"):
        net = _Exact(oracle, PARAMETERIZATIONS[name], native)
        denoiser = Preconditioned(
            net, PARAMETERIZATIONS[name], native=native, c_in="none", c_noise=NOISE_CODES["angle"]
        )
        if name in NO_X0_AT_NOISE or native == "ratio":
            faults += _not_refused(denoiser, net, x, levels)
            found, expected = (_end(d, x, levels[1:]) for d in (denoiser, oracle))
        else:
            found, expected = (_end(d, x, levels) for d in (denoiser, oracle))
        worst = max(worst, float((found - expected).abs().max()))
    return _within("network", name, "flow uniform", worst, 1e-10, faults)


def _end(denoiser: Denoiser, x: Tensor, levels: list[Level]) -> Tensor:
    *_, last = trajectory(denoiser, x, levels, SOLVERS["ddim"](), cond={}, noise=Silence())
    return last.x


def _not_refused(denoiser: Preconditioned, net: _Exact, x: Tensor, levels: list[Level]) -> list[str]:
    try:
        _end(denoiser, x, levels)
    except ValueError as error:
        if net.calls:
            return [f"{net.native}: refused at alpha = 0 only after {net.calls} network call"]
        return [] if "alpha > 0" in str(error) else [f"the refusal does not name the way out: {error}"]
    return [f"{net.native}: an undefined x0 at alpha = 0 is not refused"]


def schedule(name: str) -> Finding:
    """Levels fall strictly with t, `time` is the inverse, and `derivative` is the slope of finite differences."""
    along, t, h = SCHEDULES[name](), torch.linspace(0.02, 0.98, 97, dtype=F64), 1e-6
    faults = [] if strictly_monotone(walk(along(t.flip(0)))) == "falling" else ["the noise does not rise with t"]
    inverse = float((along.time(along(t).lam) - t).abs().max())
    worst = 0.0
    if not isinstance(along, Tabulated):  # which has kinks
        above, below = along(t + h), along(t - h)
        slopes = zip(derivative(along, t), ("alpha", "sigma"), strict=True)
        for slope, of in slopes:
            differences = (getattr(above, of) - getattr(below, of)) / (2 * h)
            worst = max(worst, float((slope - differences).abs().max() / differences.abs().max()))
    faults += [] if worst < 1e-7 else [f"the derivative is {worst:.1e} from finite differences"]
    return _within("schedule", name, "inverse", inverse, 1e-9, faults)


def score(name: str) -> Finding:
    """(alpha E[x0 | x] - x)/sigma^2 is the gradient of log p, by differentiation, to 1e-9 of its size."""
    problem, worst = PROBLEMS[name](), 0.0
    for level in (Level.from_lam(lam).scaled(scale) for lam, scale in itertools.product(LAMS, SCALES)):
        x = problem.at(level, 5, seed=6).requires_grad_()
        (true,) = torch.autograd.grad(problem.denoiser.log_prob(x, level).sum(), x)
        found = (level.alpha * problem.denoiser(x.detach(), level, {}).x0 - x.detach()) / level.sigma**2
        worst = max(worst, float((found - true).abs().max() / true.abs().max()))
    return _within("score", name, "autograd", worst, 1e-9)


def reference(name: str) -> Finding:
    """The reference's integration reproduces the closed form of a Gaussian, and undoes itself on `name`, to 1e-11."""
    problem, noisy, clean = PROBLEMS[name](), Level.from_lam(-1.8), Level.from_lam(1.8)
    x = problem.at(noisy, 6, seed=8)
    integrated = Counted(problem.denoiser)  # which hides that it is a Gaussian
    end = Reference(integrated, x, noisy).at(clean)
    worst = float((Reference(integrated, end, clean).at(noisy) - x).abs().max())
    if isinstance(problem.denoiser, GaussianDenoiser):
        worst = max(worst, float((problem.denoiser.transport(x, noisy, clean) - end).abs().max()))
    return _within("reference", name, "trajectories", worst, 1e-11)


def _within(proof: str, subject: str, setting: str, worst: float, limit: float, faults: Sequence[str] = ()) -> Finding:
    passed = worst <= limit and not faults
    detail = faults[0] if faults else f"largest difference {worst:.1e}, limit {limit:.0e}"
    return Finding(proof, subject, setting, passed, detail, limit, worst)
