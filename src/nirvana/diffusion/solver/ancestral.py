"""Ancestral sampling: draws of the reverse chain p_theta, between any two levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.markov import Reverse, Variance, require_var_frac, reverse
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver.protocol import Denoise, Step


@dataclass(frozen=True)
class Ancestral:
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
    def started_order(self) -> int:
        """A step has no history."""
        return 1

    @property
    def deterministic(self) -> bool:
        """Every step but the last draws noise."""
        return False

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise ValueError(f"unknown variance '{self.variance}' (known: {', '.join(get_args(Variance))})")

    def calls(self, levels: Sequence[Level]) -> int:
        """One call a step."""
        return len(levels) - 1

    def init(self, x: Tensor) -> None:
        """No state: a step remembers nothing."""

    def revise(self, state: None) -> None:
        """Nothing to drop."""

    def step(
        self, denoise: Denoise, x: Float[Tensor, "b *s"], now: Level, nxt: Level, state: None, noise: Noise
    ) -> tuple[Step, None]:
        """`mean(x0, x) + sqrt(variance) * noise.path(now, nxt)`."""
        del state
        posterior = reverse(now, nxt)
        prediction = denoise(x, now, nxt)
        std = self._std(posterior, x, prediction)
        mean = left_align(posterior.x0, x) * prediction.x0 + left_align(posterior.x, x) * x
        drawn = mean if nxt.is_clean else mean + std * noise.path(now, nxt).to(x)
        return Step(now, nxt, drawn, prediction), None

    def _std(self, posterior: Reverse, x: Tensor, prediction: Prediction) -> Tensor:
        """Standard deviation of the draw, shaped to multiply x; 0 where nxt is clean, whatever the variance."""
        small, large = posterior.small, torch.where(posterior.small > 0, posterior.large, 0.0)
        if self.variance == "small":
            return left_align(small.sqrt(), x)
        if self.variance == "large":
            return left_align(large.sqrt(), x)
        v = require_var_frac(prediction.var_frac)
        # sqrt(large^v * small^(1 - v)) (Nichol & Dhariwal 2021, eq. 15), without the logarithm of 0 where nxt is clean
        shrink = torch.where(small > 0, torch.log(small / large), 0.0)
        return left_align(large.sqrt(), x) * torch.exp((1 - v) * left_align(shrink / 2, x))
