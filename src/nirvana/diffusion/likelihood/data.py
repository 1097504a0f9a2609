"""From densities to bits: what 8-bit data become before a density is evaluated, and the unit of the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.likelihood.bound import Bound, Decoder
from nirvana.diffusion.likelihood.flow import Trace, flow_density
from nirvana.diffusion.markov import HALF_BIN
from nirvana.diffusion.solver import Solver

Terms = Mapping[str, Tensor]
"""The terms of -log P(x0) by name, in nats, each (b,); they add up to an estimate of an upper bound on it."""


@dataclass(frozen=True, eq=False)
class Flow:
    """A probability flow: the denoiser under a condition, the rising levels it is solved along, and the solver."""

    denoiser: Denoiser
    cond: Cond
    levels: Sequence[Level]
    solver: Solver[Any]

    def log_prob(self, x: Float[Tensor, "b *s"], trace: Trace) -> Float[Tensor, "b"]:
        """log p(x) of x at the first level, in nats."""
        return flow_density(self.denoiser, x, self.levels, self.solver, cond=self.cond, trace=trace).log_prob


def uniform_terms(flow: Flow, x0: Float[Tensor, "b *s"], trace: Trace, normal: Float[Tensor, "b *s"]) -> Terms:
    """The terms for 8-bit data x0 in [-1, 1] under the density p(z) of z = x/alpha at the first level of the flow.

    z = x0 + 2/255 (Phi(normal) - 1/2) is uniform in the bin of x0 for a unit `normal`, and
    -log P(x0) <= E[-log p(z)] - D log(2/255) (Theis et al. 2016, section 3.1): `flow` and `bins`. In bits per dimension
    `bins` is log2(127.5) = 6.994.
    """
    first, dims = flow.levels[0], x0[0].numel()
    z = x0 + 2 * HALF_BIN * (torch.special.ndtr(normal) - 0.5)
    alpha = left_align(first.alpha, x0)
    log_prob = flow.log_prob(alpha * z, trace) + dims * torch.log(alpha)
    return {"flow": -log_prob, "bins": torch.full_like(log_prob, -dims * math.log(2 * HALF_BIN))}


def noise_terms(
    flow: Flow, x0: Float[Tensor, "b *s"], trace: Trace, normal: Float[Tensor, "b *s"], decoder: Decoder
) -> Terms:
    """The terms for 8-bit data x0 in [-1, 1] that the noise of the first level spreads, as it does in training.

    With x = alpha x0 + sigma normal at that level, q its distribution given x0, p that of the flow and the decoder's
    P(x0 | x): -log P(x0) <= E[log q(x | x0) - log p(x)] + E[-log P(x0 | x)]: `flow` and `decoder`. That is the
    variational bound with the flow in place of all its steps but the last.
    """
    first = flow.levels[0]
    alpha, sigma = first.like(x0)
    x = alpha * x0 + sigma * normal
    log_q = -0.5 * (normal**2 + torch.log(2 * math.pi * sigma**2)).flatten(1).sum(1)
    with torch.no_grad():
        decoded = decoder(x0, flow.denoiser(x, first, flow.cond))
    return {"flow": log_q - flow.log_prob(x, trace), "decoder": decoded}


def bound_terms(bound: Bound) -> Terms:
    """`prior`, `diffusion` (the sum of its steps) and `decoder`."""
    return {"prior": bound.prior, "diffusion": bound.diffusion.sum(1), "decoder": bound.decoder}


def bits_per_dim(nats: Float[Tensor, "..."], dims: int) -> Float[Tensor, "..."]:
    """nats/(dims log 2)."""
    return nats / (dims * math.log(2))


@dataclass(frozen=True, eq=False)
class Estimate:
    """The mean (b,) of independent estimates and its standard error (b,), which is NaN where there is one estimate."""

    mean: Float64[Tensor, "b"]
    standard_error: Float64[Tensor, "b"]

    @staticmethod
    def of(estimates: Float[Tensor, "n b"]) -> Estimate:
        """From n estimates of each item; s/sqrt(n), s with n - 1 degrees of freedom."""
        n, values = len(estimates), estimates.double()
        spread = values.std(0) if n > 1 else torch.full_like(values[0], math.nan)
        return Estimate(values.mean(0), spread / math.sqrt(n))
