"""Inpainting beside exact conditional laws: moments on Gaussians without chance, on a mixture by draws; calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion import GaussianDenoiser, Level, MixtureDenoiser, Noise, sample_rng, uniform
from nirvana.diffusion.inpaint import DDNM, Langevin, Method, Observed, RePaint, Replacement, inpainted
from nirvana.diffusion.named import SOLVERS
from nirvana.verify.distribution import UNLIKELY, Stream
from nirvana.verify.finding import Finding
from nirvana.verify.impulses import affine_map
from nirvana.verify.problems import F64, WithVariance, gaussian
from nirvana.verify.settings import SCHEDULES
from nirvana.verify.twosample import even_ranks
from nirvana.verify.walks import AnySolver, Counted, watched

SCHEDULE = "rectified-flow"

SMALL = 0.02
"""The relative error of mean and covariance below which Langevin dynamics fall."""

DRAWS = 15
"""Draws from the posterior in each case of a calibration."""

MIXTURE = "mixture"
"""The name of `staircase`."""

AMBIGUOUS = 0.05
"""What is known of `staircase` where its moments are measured: it may be of either component in the middle."""

CALIBRATED = 8
"""Langevin steps at each level that are calibrated, and the resamplings of RePaint beside them."""


@dataclass(frozen=True, eq=False)
class Conditioned:
    """A Gaussian of which some elements are known to be y."""

    denoiser: GaussianDenoiser
    known: Bool[Tensor, "D"]
    y: Float[Tensor, "D"]

    @property
    def truth(self) -> GaussianDenoiser:
        """The law of the others."""
        return self.denoiser.given(self.known, self.y[self.known])


def pair() -> Conditioned:
    """Two numbers of variance 1 and correlation 0.9, the first known: the second has mean 0.9 y and variance 0.19."""
    cov = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64)
    y = torch.tensor([1.5, 0.0], dtype=F64)
    return Conditioned(GaussianDenoiser(torch.zeros(2, dtype=F64), cov), torch.tensor([True, False]), y)


def eight() -> Conditioned:
    """The Gaussian of all proofs, in 8 dimensions, every other one known."""
    problem = gaussian()
    known = torch.arange(len(problem.mean)) % 2 == 0
    y = problem.draw(1, sample_rng(21, 0, "verify/y"))[0]
    return Conditioned(GaussianDenoiser(problem.mean, problem.cov), known, y)


GAUSSIANS: Mapping[str, Callable[[], Conditioned]] = MappingProxyType({"correlation 0.9": pair, "gaussian 8-D": eight})
"""Name -> what is known of which Gaussian."""


@dataclass(frozen=True)
class Errors:
    """Relative errors of mean and covariance of what is free, the largest of what is known, and network calls."""

    mean: float
    cov: float
    known: float
    calls: int

    @property
    def worst(self) -> float:
        """The larger of mean's and covariance's."""
        return max(self.mean, self.cov)

    def __str__(self) -> str:
        """As a report shows it."""
        exact = "what is known exact" if self.known == 0 else f"what is known off by {self.known:.1e}"
        return f"mean off by {self.mean:.2%}, covariance by {self.cov:.2%}, {exact}"


def errors(method: Method, solver: AnySolver, on: Conditioned, levels: Sequence[Level]) -> Errors:
    """What `method` with `solver` makes of `on` along `levels`, worked out with unit vectors (see `affine_map`)."""
    observed, denoiser = Observed(on.y, on.known), Counted(WithVariance(on.denoiser))

    def walk(x: Tensor, noise: Noise) -> Tensor:
        denoiser.levels.clear()
        return end(method, solver, denoiser, observed.put(x, levels[0], x / levels[0].sigma), observed, levels, noise)

    size = len(on.y)
    found, truth, free = affine_map(walk, size), on.truth, ~on.known
    start = levels[0].sigma ** 2 * torch.eye(size, dtype=F64)
    mean, cov = found.mean(torch.zeros(size, dtype=F64)), found.cov(start)
    known = (mean - on.y)[on.known].abs().max() + cov[on.known].abs().max()
    return Errors(
        float((mean[free] - truth.mean).norm() / truth.mean.norm()),
        float((cov[free][:, free] - truth.cov).norm() / truth.cov.norm()),
        float(known),
        denoiser.calls,
    )


def end(
    method: Method,
    solver: AnySolver,
    denoiser: Counted | MixtureDenoiser,
    x: Tensor,
    observed: Observed,
    levels: Sequence[Level],
    noise: Noise,
) -> Tensor:
    """x at the last level. Raises Broken where the walk raises."""
    with watched(f"inpainting in {len(levels) - 1} steps"):
        for step in inpainted(method, denoiser, x, observed, levels, solver, cond={}, noise=noise):
            x = step.x
    return x


def moments(name: str, steps: int, counts: Sequence[int], solvers: Sequence[str]) -> Iterator[Finding]:
    """All methods with `solvers` on the Gaussian `name`: each leaves what is known exact; then how the errors go.

    counts: the Langevin steps and RePaint's resamplings, rising. The errors of Langevin dynamics fall below SMALL, and
    that of RePaint's mean falls; the bias of the others is shown.
    """
    levels, on = _levels(steps), GAUSSIANS[name]()
    for of in solvers:
        rows = _methods(counts)
        found = {key: [errors(method, SOLVERS[of](), on, levels) for method in row] for key, row in rows.items()}
        yield from _all_shown(name, of, rows, found, levels)
        yield _falls(f"langevin with {of}", name, [error.worst for error in found["langevin"]], counts, SMALL)
        yield _falls(f"mean of repaint with {of}", name, [error.mean for error in found["repaint"]], counts, None)


def mixture_moments(steps: int, counts: Sequence[int], solvers: Sequence[str], draws: int) -> Iterator[Finding]:
    """All methods with `solvers` on `staircase` at `AMBIGUOUS`, by so many draws: as `moments`, but for chance."""
    levels = _levels(steps)
    for of in solvers:
        rows = _methods(counts)
        found = {key: [drawn_errors(method, of, levels, draws) for method in row] for key, row in rows.items()}
        yield from _all_shown(MIXTURE, of, rows, found, levels)
        worst = [error.worst for error in found["langevin"]]
        yield _falls(f"langevin with {of}", MIXTURE, worst, counts, SMALL + 3 * (2 / draws) ** 0.5)


def _methods(counts: Sequence[int]) -> dict[str, list[Method]]:
    return {
        "ddnm": [DDNM()],
        "replacement": [Replacement()],
        "repaint": [RePaint(n) for n in counts],
        "langevin": [Langevin(n) for n in counts],
    }


def _all_shown(
    on: str,
    solver: str,
    rows: Mapping[str, Sequence[Method]],
    found: Mapping[str, Sequence[Errors]],
    levels: Sequence[Level],
) -> Iterator[Finding]:
    for key, row in found.items():
        for method, error in zip(rows[key], row, strict=True):
            yield _shown(f"{_written(key, method)} with {solver}", on, error, method.calls(levels), levels, solver)


def drawn_errors(method: Method, solver: str, levels: Sequence[Level], draws: int) -> Errors:
    """What `method` makes of `staircase` where its first number is `AMBIGUOUS`: the moments of so many draws.

    Their relative errors have the chance of about sqrt(2/draws).
    """
    mixture, known = staircase(), torch.tensor([True, False])
    y = torch.tensor([AMBIGUOUS, 0.0], dtype=F64)
    truth, observed, denoiser = mixture.given(known, y[known]), Observed(y, known), Counted(mixture)
    noise = Stream(sample_rng(23, 0, "verify/inpainting"), draws, 2)
    drawn = end(method, SOLVERS[solver](), denoiser, observed.begun(noise, levels[0]), observed, levels, noise)
    weights, means = truth.weights, truth.means[:, 0]
    mean = (weights * means).sum()
    variance = (weights * (truth.variances + means**2)).sum() - mean**2
    free = drawn[:, 1]
    return Errors(
        float((free.mean() - mean).abs() / variance.sqrt()),
        float((free.var() - variance).abs() / variance),
        float((drawn[:, 0] - AMBIGUOUS).abs().max()),
        denoiser.calls,
    )


def _written(name: str, method: Method) -> str:
    if isinstance(method, Langevin):
        return f"{name}:steps={method.steps}"
    return f"{name}:resample={method.resample}" if isinstance(method, RePaint) else name


def _shown(subject: str, on: str, error: Errors, extra: int, levels: Sequence[Level], solver: str) -> Finding:
    """One method's errors: it passes where what is known is exact and the calls are those it declares."""
    declared = SOLVERS[solver]().calls(levels)
    if declared is None or error.calls != declared + extra:
        return Finding("inpainting", subject, on, False, f"{error.calls} network calls, declared {declared} + {extra}")
    passed = error.known == 0 and error.worst < float("inf")
    return Finding("inpainting", subject, on, passed, str(error), None, error.worst, error.calls)


def _falls(subject: str, on: str, errors: Sequence[float], counts: Sequence[int], limit: float | None) -> Finding:
    """Each error is below the one before, or below the limit; and where there is a limit the last is."""
    low = 0.0 if limit is None else limit
    passed = all(after < max(before, low) for before, after in pairwise(errors))
    passed = passed and (limit is None or errors[-1] < limit)
    detail = "by steps " + ", ".join(f"{error:.2%} ({n})" for n, error in zip(counts, errors, strict=True))
    detail += "" if limit is None else f"; limit {limit:.0%}"
    return Finding("inpainting converges", subject, on, passed, detail, limit, errors[-1])


def staircase() -> MixtureDenoiser:
    """Four components along a diagonal: what is known says which, or leaves two of them."""
    means = torch.tensor([[-1.2, -1.1], [-0.4, -0.5], [0.4, 0.3], [1.2, 1.3]], dtype=F64)
    weights, variances = (
        torch.tensor([0.2, 0.3, 0.3, 0.2], dtype=F64),
        torch.tensor([0.10, 0.07, 0.05, 0.12], dtype=F64),
    )
    return MixtureDenoiser(weights, means, variances)


def p_values(method: Method, solver: str, steps: int, cases: int) -> dict[str, float]:
    """Those of "the ranks of the true x0 among draws of the method, given its known part, are uniform".

    x0 ~ p, y its first element, DRAWS draws of the second: where they are from p(x0_free | y), the rank of the true one
    is uniform on 0 .. DRAWS (Talts et al. 2018, theorem 1), by its value and by its density. Values are ranked evenly
    also by a method that ignores y, densities are not (Modrak et al. 2023, section 3).
    """
    mixture, levels, generator = staircase(), _levels(steps), sample_rng(22, 0, "verify/inpainting")
    which = torch.multinomial(mixture.weights, cases, replacement=True, generator=generator)
    spread = mixture.variances[which].sqrt()[:, None]
    x0 = mixture.means[which] + spread * torch.randn(cases, 2, generator=generator, dtype=F64)
    observed = Observed(x0.repeat_interleave(DRAWS, 0), torch.tensor([True, False]))
    noise = Stream(generator, cases * DRAWS, 2)
    drawn = end(method, SOLVERS[solver](), mixture, observed.begun(noise, levels[0]), observed, levels, noise)
    clean = Level.of(1.0, 0.0)
    of_x0 = {"value": x0[:, 1], "density": mixture.log_prob(x0, clean)}
    of_drawn = {"value": drawn[:, 1], "density": mixture.log_prob(drawn, clean)}
    return {by: even_ranks((of_drawn[by].reshape(cases, DRAWS) < of_x0[by][:, None]).sum(1), DRAWS) for by in of_x0}


def calibration(solvers: Sequence[str], steps: int, cases: int, inner: int) -> Iterator[Finding]:
    """Langevin dynamics pass simulation-based calibration with `inner` steps a level; replacement is found out.

    What RePaint and `DDNM` come to is shown.
    """
    methods: tuple[tuple[str, Method, bool | None], ...] = (
        ("langevin", Langevin(inner), True),
        ("replacement", Replacement(), False),
        ("repaint", RePaint(inner), None),
        ("ddnm", DDNM(), None),
    )
    levels = _levels(steps)
    for solver in solvers:
        for name, method, sound in methods:
            found = p_values(method, solver, steps, cases)
            lowest = min(found.values())
            shown = ", ".join(f"{p:.2g} ({by})" for by, p in found.items())
            seen = "uniform" if lowest > UNLIKELY else "found out"
            detail = f"{cases} cases of {DRAWS} draws: ranks {seen} with p = {shown}"
            calls = (SOLVERS[solver]().calls(levels) or 0) + method.calls(levels)
            passed = sound in (None, lowest > UNLIKELY)
            subject = f"{_written(name, method)} with {solver}"
            yield Finding("inpainting calibration", subject, MIXTURE, passed, detail, UNLIKELY, lowest, calls)


def _levels(steps: int) -> list[Level]:
    return list(uniform(SCHEDULES[SCHEDULE](), steps))
