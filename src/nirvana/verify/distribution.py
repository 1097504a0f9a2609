"""Samples of a solver beside exact draws of the mixture, and the same with a denoiser that is told a wrong level."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion import Cond, Denoiser, Level, MixtureDenoiser, Prediction, sample_rng, uniform
from nirvana.diffusion.noise import BrownianPath, Key
from nirvana.verify.finding import Finding
from nirvana.verify.impulses import affine
from nirvana.verify.problems import F64, D, MixtureProblem, WithVariance, gaussian, mixture
from nirvana.verify.settings import SCHEDULES
from nirvana.verify.twosample import classifier_test, kernel_test, uniformity
from nirvana.verify.walks import AnySolver, ended

SAMPLES = 1000
"""In each sample of each seed."""

TOLD = 1.02
"""The ratio sigma/alpha that a wrong denoiser is told, over the true one."""

UNLIKELY = 1e-3
"""p-values whose uniformity is less likely than this are not uniform."""

BIAS = 8e-3
"""The relative error of the covariance that a solver's own steps may leave among 20 seeds: a fifth of what TOLD does.

Among more seeds a smaller one shows, as the root of their number.
"""

_MOST_STEPS = 4096
_KEPT = 16_000_000
"""Numbers that one Brownian path keeps at most."""

_AT_ONCE = 20_000
"""Samples walked at once: more no longer fit the processor's caches."""


@dataclass(frozen=True, eq=False)
class Swift:
    """A mixture's denoiser by matrix products: equal to `MixtureDenoiser` to rounding where no component is narrow."""

    mixture: MixtureDenoiser

    def __call__(self, x: Float[Tensor, "b d"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """E[x0 | x] = sum_k r_k ((1 - alpha g_k) mean_k + g_k x), g_k as in `MixtureDenoiser`."""
        del cond, nxt
        # One level for all, or one each.
        m, alpha, sigma = self.mixture, level.alpha.reshape(-1, 1), level.sigma.reshape(-1, 1)
        total = alpha**2 * m.variances + sigma**2
        gain = alpha * m.variances / total
        bias = torch.log(m.weights) - m.means.shape[1] / 2 * torch.log(total)
        bias = bias - alpha**2 * m.means.square().sum(1) / (2 * total)
        logits = alpha / total * (x @ m.means.T) + bias - x.square().sum(1, keepdim=True) / (2 * total)
        r = torch.softmax(logits, 1)
        x0 = (r * (1 - alpha * gain)) @ m.means + (r * gain).sum(1, keepdim=True) * x
        return Prediction(x0, torch.full_like(x, 0.5))


@dataclass(frozen=True)
class Told:
    """`denoiser`, told that the ratio is `factor` times what it is."""

    denoiser: Denoiser
    factor: float

    def __call__(self, x: Float[Tensor, "b d"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction at (alpha, factor*sigma)."""
        return self.denoiser(x, Level(level.alpha, self.factor * level.sigma), cond, nxt)


class Stream:
    """Noise for many items of D numbers at once, from one generator."""

    def __init__(self, generator: torch.Generator, items: int, dimensions: int = D) -> None:
        self._draw: Callable[[], Tensor] = lambda: torch.randn(items, dimensions, generator=generator, dtype=F64)
        self._initial: list[Tensor] = []
        self._path = BrownianPath(self._draw, self._draw)
        self._kept: dict[Key, Tensor] = {}

    def initial(self) -> Tensor:
        """A unit normal, the same at every call."""
        if not self._initial:
            self._initial.append(self._draw())
        return self._initial[0]

    def path(self, now: Level, nxt: Level) -> Tensor:
        """The increment of one Brownian path."""
        return self._path.increment(float(now.snr), float(nxt.snr))

    def fresh(self, key: Key) -> Tensor:
        """A unit normal, the same for the same key."""
        if key not in self._kept:
            self._kept[key] = self._draw()
        return self._kept[key]


def distribution(solver: AnySolver, name: str, schedule: str, seeds: int) -> Finding:
    """p-values of both tests over `seeds` seeds are uniform for the solver's samples: from noise to data."""
    n = steps_needed(solver, schedule, BIAS * math.sqrt(20 / seeds))
    p_values = _p_values(solver, name, schedule, n, seeds, 1.0)
    uniform_ps = {test: uniformity(p) for test, p in p_values.items()}
    detail = f"{n} steps, {seeds} seeds of {SAMPLES}: p-values uniform with " + _shown(uniform_ps)
    lowest = min(uniform_ps.values())
    return Finding("distribution", name, schedule, lowest > UNLIKELY, detail, UNLIKELY, lowest)


def power(solver: AnySolver, name: str, schedule: str, seeds: int) -> Finding:
    """A denoiser that is told TOLD times the ratio is rejected; the power is the part of seeds with p < 0.05.

    The solver's own error may hide the fault, and its noise make up for a part of it: where that many steps and seeds
    do not reject it, four times as many of both have to. What is proven is the test: all solvers have the same numbers.
    """
    n, together, p_values = steps_needed(solver, schedule), 1.0, dict[str, Tensor]()
    for more in (1, 4):
        if together >= UNLIKELY:
            n, seeds = more * n, more * seeds
            p_values = _p_values(solver, "told", schedule, n, seeds, TOLD)
            together = min(uniformity(p) for p in p_values.values())
    powers = {test: float((p < 0.05).double().mean()) for test, p in p_values.items()}
    detail = f"ratio x {TOLD}, {n} steps, {seeds} seeds of {SAMPLES}: power at 0.05 {_shown(powers)}"
    return Finding("power", name, schedule, together < UNLIKELY, detail, UNLIKELY, together)


def calibration(seeds: int) -> Finding:
    """The tests themselves: p-values of exact draws beside exact draws are uniform."""
    problem = mixture()
    x = problem.draw(seeds * SAMPLES, sample_rng(11, 0, "verify/x"))
    uniform_ps = {test: uniformity(p) for test, p in _tests(problem, "exact", x, seeds).items()}
    detail = f"{seeds} seeds of {SAMPLES} exact draws: p-values uniform with " + _shown(uniform_ps)
    lowest = min(uniform_ps.values())
    return Finding("calibration", "two-sample tests", "exact draws", lowest > UNLIKELY, detail, UNLIKELY, lowest)


def steps_needed(solver: AnySolver, schedule: str, bias: float = BIAS) -> int:
    """So many steps that a Gaussian's covariance, worked out exactly, is right to `bias`; from 64 on by its order."""
    along, problem = SCHEDULES[schedule](), gaussian(2)
    error = math.inf
    for n in (16, 32, 64):
        levels = uniform(along, n)
        start, end = problem.moments(levels[0])[1], problem.moments(levels[-1])[1]
        found = affine(solver, WithVariance(problem.denoiser), 2, levels).cov(start)
        error = float((found - end).norm() / end.norm())
        if error <= bias:
            return n
    factor = (error / bias) ** (1 / max(1, solver.started_order))
    return min(_MOST_STEPS, math.ceil(64 * factor))


def _p_values(solver: AnySolver, name: str, schedule: str, n: int, seeds: int, told: float) -> dict[str, Tensor]:
    # Every solver has numbers of its own: one unlucky draw would be the same verdict on all of them.
    problem, levels = mixture(), uniform(SCHEDULES[schedule](), n)
    denoiser = Told(Swift(problem.denoiser), told)
    at_once = _AT_ONCE if solver.deterministic else max(SAMPLES, min(_AT_ONCE, _KEPT // (D * n)))
    ends: list[Tensor] = []
    total = seeds * SAMPLES
    for first in range(0, total, at_once):
        items = min(at_once, total - first)
        x = problem.at(levels[0], items, seed=_seed(name, first))
        noise = Stream(sample_rng(12, first, f"verify/noise/{name}"), items)
        ends.append(ended(solver, denoiser, x, levels, noise))
    return _tests(problem, name, torch.cat(ends), seeds)


def _seed(name: str, first: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{name}/{first}".encode()).digest()[:7], "little")


def _tests(problem: MixtureProblem, name: str, samples: Tensor, seeds: int) -> dict[str, Tensor]:
    """The p-values of both tests of each seed's part of `samples` beside as many exact draws."""
    density = problem.denoiser
    draws = problem.draw(seeds * SAMPLES, sample_rng(13, 0, f"verify/draws/{name}"))
    pairs = list(zip(samples.split(SAMPLES), draws.split(SAMPLES), strict=True))
    kernel = [kernel_test(x, y, density.means, 2.0) for x, y in pairs]
    classifier = [classifier_test(_features(density, x), _features(density, y)) for x, y in pairs]
    return {"kernel": torch.tensor(kernel, dtype=F64), "classifier": torch.tensor(classifier, dtype=F64)}


def _features(density: MixtureDenoiser, x: Tensor) -> Tensor:
    """x and its exact log-density: what a classifier of a wrong width needs to see."""
    return torch.cat([x, density.log_prob(x, Level.of(1.0, 0.0))[:, None]], 1)


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.2g} ({test})" for test, value in values.items())
