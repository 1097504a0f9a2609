"""The standard problems: distributions of which denoiser, density, draws and, for a Gaussian, all else is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion import Cond, DatasetDenoiser, GaussianDenoiser, Level, MixtureDenoiser, Prediction, sample_rng

F64 = torch.float64
D = 8
"""Dimensions of the mixtures and of the data set."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A distribution of x0. draw: (n, generator) -> n exact draws, float64, of shape (n, *s)."""

    name: str
    denoiser: GaussianDenoiser | MixtureDenoiser
    draw: Callable[[int, torch.Generator], Float[Tensor, "n *s"]]

    def at(self, level: Level, n: int, seed: int) -> Float[Tensor, "n *s"]:
        """n exact draws of x = alpha*x0 + sigma*eps at `level`, a pure function of the seed."""
        generator = sample_rng(seed, 0, f"verify/{self.name}")
        x0 = self.draw(n, generator)
        return level.alpha * x0 + level.sigma * _normal(generator, *x0.shape)


@dataclass(frozen=True, eq=False)
class MixtureProblem(Problem):
    """A mixture of Gaussians."""

    denoiser: MixtureDenoiser


@dataclass(frozen=True, eq=False)
class GaussianProblem(Problem):
    """N(mean, cov): (D,), (D, D)."""

    mean: Float[Tensor, "D"]
    cov: Float[Tensor, "D D"]

    def moments(self, level: Level) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
        """Mean and covariance of x at `level`: alpha mean, alpha^2 C + sigma^2 I."""
        return level.alpha * self.mean, level.alpha**2 * self.cov + level.sigma**2 * torch.eye(
            len(self.mean), dtype=F64
        )


@dataclass(frozen=True, eq=False)
class WithVariance:
    """`denoiser` with a learned variance halfway between its bounds, so that solvers that need one can be proven."""

    denoiser: GaussianDenoiser | MixtureDenoiser

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """The prediction, with var_frac = 1/2."""
        return Prediction(self.denoiser(x, level, cond, nxt).x0, torch.full_like(x, 0.5))


def gaussian(dimensions: int = D) -> GaussianProblem:
    """N(mean, C) with standard deviations 0.4 to 1 along rotated axes."""
    generator = sample_rng(1, 0, "verify/gaussian")
    mean = 0.5 * _normal(generator, dimensions)
    axes = torch.linalg.qr(_normal(generator, dimensions, dimensions))[0]
    scale = torch.linspace(0.4, 1.0, dimensions, dtype=F64)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return mean + (scale * _normal(generator, n, dimensions)) @ axes.T

    cov = axes @ torch.diag(scale**2) @ axes.T
    return GaussianProblem("gaussian", GaussianDenoiser(mean, cov), draw, mean, cov)


def mixture() -> MixtureProblem:
    """5 components in 8 dimensions whose widths are those of their distances: smooth, for orders."""
    variances = torch.tensor([0.20, 0.25, 0.30, 0.40, 0.50], dtype=F64)
    return _mixture("mixture", 0.4 * _normal(sample_rng(2, 0, "verify/mixture"), 5, D), variances)


def near_singular() -> MixtureProblem:
    """5 components in 8 dimensions a ten-thousandth as wide as their distances: nearly points, for stability."""
    means = 0.7 * _normal(sample_rng(3, 0, "verify/near-singular"), 5, D)
    return _mixture("near-singular", means, torch.logspace(-9, -7, 5, dtype=F64))


def dataset() -> MixtureProblem:
    """Uniform on 16 points in 8 dimensions."""
    points = 0.7 * _normal(sample_rng(4, 0, "verify/dataset"), 16, D)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        return points[torch.randint(len(points), (n,), generator=generator)]

    return MixtureProblem("dataset", DatasetDenoiser(points), draw)


def odd_shape() -> Problem:
    """Uniform on 3 points of shape (3, 5, 7)."""
    points = 0.7 * _normal(sample_rng(5, 0, "verify/odd-shape"), 3, 3, 5, 7)
    return Problem("odd-shape", DatasetDenoiser(points), lambda n, rng: points[torch.randint(3, (n,), generator=rng)])


def _mixture(name: str, means: Tensor, variances: Tensor) -> MixtureProblem:
    weights = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=F64)

    def draw(n: int, generator: torch.Generator) -> Tensor:
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        return means[k] + variances[k].sqrt()[:, None] * _normal(generator, n, means.shape[1])

    return MixtureProblem(name, MixtureDenoiser(weights, means, variances), draw)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=F64)


PROBLEMS: Mapping[str, Callable[[], Problem]] = MappingProxyType(
    {
        "gaussian": gaussian,
        "mixture": mixture,
        "near-singular": near_singular,
        "dataset": dataset,
        "odd-shape": odd_shape,
    }
)
"""Name -> the problem."""
