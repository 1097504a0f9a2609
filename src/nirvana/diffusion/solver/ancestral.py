"""Ancestral sampling: draws of the reverse chain p_theta, between any two levels; and x0 with all its noise anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, between, combined, left_align
from nirvana.diffusion.markov import Variance, require_var_frac, reverse
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.solver.protocol import Denoise, Memoryless, Step


@dataclass(frozen=True)
class _Coefficients:
    """(of_x0, of_x, std, shrink): mean = of_x0*x0 + of_x*x, standard deviation std*exp((1 - v)*shrink).

    The `learned` one is sqrt(large^v * small^(1 - v)) (Nichol & Dhariwal 2021, eq. 15), without the logarithm of 0
    where nxt is clean; the others have no v. Where nxt is clean it is 0, whatever the variance.
    """

    variance: Variance

    def __call__(self, now: Level, nxt: Level) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        posterior = reverse(now, nxt)
        small, large = posterior.small, torch.where(posterior.small > 0, posterior.large, 0.0)
        shrink = torch.where(small > 0, torch.log(small / large), 0.0) / 2
        return posterior.x0, posterior.x, (small if self.variance == "small" else large).sqrt(), shrink


@dataclass(frozen=True)
class Ancestral(Memoryless):
    """x_nxt ~ q(x_nxt | x_now, x0 = predicted), its variance `small`, `large` or `learned` (see `markov.Variance`).

    On the levels of a chain each step is exactly the chain's p_theta(x_{t-1} | x_t), and on every s-th of them that of
    the respaced chain (Ho et al. 2020, algorithm 2; Nichol & Dhariwal 2021, section 4). Starts at alpha = 0 and ends at
    sigma = 0 without approximation; the last step to sigma = 0 draws nothing and gives the predicted x0 times alpha.
    Raises ValueError for an unknown variance, in a step to more noise, and for `learned` where the prediction has no
    `var_frac`.
    """

    variance: Variance = "small"

    @property
    def order(self) -> int:
        """First order, in the mean and in the covariance."""
        return 1

    @property
    def deterministic(self) -> bool:
        """Every step but the last draws noise."""
        return False

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise ValueError(f"unknown variance '{self.variance}' (known: {', '.join(get_args(Variance))})")

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: None, noise: Noise
    ) -> tuple[Step, None]:
        """`mean(x0, x) + sqrt(variance) * noise.path(now, nxt)`."""
        del state
        of_x0, of_x, std, shrink = between(_Coefficients(self.variance), now, nxt)
        prediction = denoise(x, now, nxt)
        scale = left_align(std, x)
        if self.variance == "learned":
            scale = scale * torch.exp((1 - require_var_frac(prediction.var_frac)) * left_align(shrink, x))
        mean = combined((of_x, x), (of_x0, prediction.x0))
        drawn = mean if nxt.is_clean else mean + scale * noise.path(now, nxt).to(x)
        return Step(now, nxt, drawn, prediction), None


@dataclass(frozen=True)
class Renoise(Memoryless):
    """x_nxt = alpha_nxt*x0 + sigma_nxt*noise: the predicted x0, noised anew (Song et al. 2023, algorithm 1).

    The multistep sampler of consistency models, whose x0 is a draw of the data: exact for those in any number of steps.
    With E[x0 | x] for x0 it does not converge to the data, since a mean has not their spread: its order is 0.
    """

    @property
    def order(self) -> int:
        """0: smaller steps do not help."""
        return 0

    @property
    def deterministic(self) -> bool:
        """Every step but the last draws noise."""
        return False

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: None, noise: Noise
    ) -> tuple[Step, None]:
        """`alpha_nxt*x0 + sigma_nxt*noise.path(now, nxt)`."""
        prediction, (alpha, sigma) = denoise(x, now, nxt), nxt.like(x)
        drawn = alpha * prediction.x0
        if not nxt.is_clean:
            drawn = drawn + sigma * noise.path(now, nxt).to(x)
        return Step(now, nxt, drawn, prediction), state
