"""The evidence bound of a VAE with a Gaussian likelihood whose scale is learned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LEAST_LOG_SIGMA = -6.0
_BYTES = 127.5
"""Bytes a unit of x0, which lies in [-1, 1]."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(z | x) = N(mean, exp(log_var)), one number a latent dimension, each (b, latent)."""

    mean: Float[Tensor, "b latent"]
    log_var: Float[Tensor, "b latent"]

    @staticmethod
    def of(output: Float[Tensor, "b two_latent"]) -> Posterior:
        """From the output of an encoder: means first, then logarithms of variances."""
        mean, log_var = output.float().chunk(2, dim=1)
        return Posterior(mean, log_var)

    def sample(self, eps: Float[Tensor, "b latent"]) -> Float[Tensor, "b latent"]:
        """z = mean + sigma eps for a unit normal eps (Kingma & Welling 2014, section 2.4)."""
        return self.mean + torch.exp(0.5 * self.log_var) * eps

    def kl(self) -> Float[Tensor, " b"]:
        """KL(q || N(0, I)) = sum (mean^2 + var - log var - 1)/2 in nats (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (self.mean.square() + torch.expm1(self.log_var) - self.log_var).sum(1)


def log_scale(raw: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """log sigma = -6 + softplus(raw + 6): `raw` where that is well above -6, which it never falls below.

    Source: the soft clip of Rybkin et al. 2021.
    """
    return LEAST_LOG_SIGMA + softplus(raw - LEAST_LOG_SIGMA)


@dataclass(frozen=True)
class Evidence:
    """The negative evidence bound, with the weight beta on its second term, in bits per dimension of 8-bit data.

    (-log2 N(x0; mean, sigma^2 I) + D log2(127.5) + beta KL/log 2)/D: one sigma for all numbers of all pictures, learned
    with the rest. At its optimum, the root of the mean squared error, no beta has to be tuned: that is beta = 1.
    A byte's bin is 1/127.5 wide, so that with beta = 1 this is, for sigma well above 1/255, the bound on
    -log2 P(bytes). Raises ValueError for a beta that is not positive.
    Source: Kingma & Welling 2014, equation 3; beta: Higgins et al. 2017, equation 4; sigma: Rybkin et al. 2021,
    section 3.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta is {self.beta}: the weight of the prior must be positive")

    def terms(
        self,
        x0: Float[Tensor, "b *s"],
        mean: Float[Tensor, "b *s"],
        log_sigma: Float[Tensor, ""],
        posterior: Posterior,
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """Reconstruction and KL, each in bits per dimension; the loss is the first plus beta times the second."""
        dims = x0[0].numel()
        error = ((x0 - mean.float()) * torch.exp(-log_sigma)).square().flatten(1).mean(1)
        nats = 0.5 * (error + math.log(2 * math.pi)) + log_sigma + math.log(_BYTES)
        return nats / math.log(2), posterior.kl() / (dims * math.log(2))

    def loss(self, reconstruction: Float[Tensor, " b"], kl: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Of the two terms."""
        return reconstruction + self.beta * kl
