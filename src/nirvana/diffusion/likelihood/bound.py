"""The variational bound of any trained network, term by term: of its own chain, or of any ladder of levels.

References:
    [H] Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239.
    [K] Kingma et al. 2021, Variational Diffusion Models, arXiv:2107.00630, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.markov import Chain, Variance
from nirvana.diffusion.noise import Noise
from nirvana.diffusion.prediction import Prediction

Decoder = Callable[[Tensor, Prediction], Tensor]
"""(x0, the prediction made at level 1) -> -log p(x0 | x_1) in nats, (b,)."""


@dataclass(frozen=True, eq=False)
class Bound:
    """The variational bound on -log p(x0), in nats ([H] eq. 5, [K] eq. 9): all of shape (b,) but `diffusion` (b, n).

    prior: KL(q(x_T | x0) || N(0, I)); decoder: E[-log p(x0 | x_1)]; diffusion: the KL of the steps t, each times the
    number of steps it stands for; steps (b, n): those t, in 2..T.
    """

    prior: Float[Tensor, "b"]
    diffusion: Float[Tensor, "b n"]
    decoder: Float[Tensor, "b"]
    steps: Int[Tensor, "b n"]

    @property
    def total(self) -> Float[Tensor, "b"]:
        """The bound itself."""
        return self.prior + self.diffusion.sum(1) + self.decoder


def ladder(lam: tuple[float, float], T: int) -> Chain:
    """The chain whose levels 1..T have lam evenly spaced from lam[1] (data) down to lam[0] (noise).

    beta_t = sigma_t^2 (1 - exp(-2 h)), h = lam_{t-1} - lam_t; lam_0 is infinite. Raises ValueError where lam does not
    rise or T < 2.
    """
    if not (-math.inf < lam[0] < lam[1] < math.inf and T >= 2):
        raise ValueError(f"a ladder has at least 2 levels in a finite range of lam, got {T} in {lam}")
    rungs = torch.linspace(lam[1], lam[0], T, dtype=torch.float64)
    h = torch.cat([rungs.new_full((1,), math.inf), rungs[:-1] - rungs[1:]])
    return Chain(torch.sigmoid(-2 * rungs) * -torch.expm1(-2 * h))


def byte_decoder(chain: Chain, variance: Variance) -> Decoder:
    """The decoder of 8-bit data in [-1, 1]: the mass of N(mu_theta, Sigma_theta) in the bin of x0 ([H] eq. 13)."""

    def decode(x0: Tensor, prediction: Prediction) -> Tensor:
        return _nats(chain.term(x0, _first(x0), prediction, variance), x0)

    return decode


def density_decoder(chain: Chain, variance: Variance) -> Decoder:
    """The decoder of continuous data: the density of N(mu_theta, Sigma_theta) at x0."""

    def decode(x0: Tensor, prediction: Prediction) -> Tensor:
        log_var = chain.log_sigma_theta(x0, _first(x0), variance, prediction.var_frac)
        off = (x0 - prediction.x0) ** 2 * torch.exp(-log_var)
        return 0.5 * (off + log_var + math.log(2 * math.pi)).flatten(1).sum(1)

    return decode


def variational_bound(
    chain: Chain,
    denoiser: Denoiser,
    x0: Float[Tensor, "b *s"],
    *,
    cond: Cond,
    noise: Noise,
    decoder: Decoder,
    variance: Variance = "small",
    calls: int | None = None,
    key: int = 0,
) -> Bound:
    """The bound of x0 under the reverse chain of `denoiser`, from one noise a step: unbiased, an estimate.

    With the variance "small" the KL of step t is (SNR_{t-1} - SNR_t) |x0 - x0_theta(x_t)|^2 / 2 ([K] eq. 14). calls:
    T for the sum over all steps; below that, t = 1 and one step drawn from each of calls - 1 strata of the others. key:
    tells independent estimates with the same `noise` apart. Raises ValueError unless 2 <= calls <= T.
    """
    calls = chain.T if calls is None else calls
    if not 2 <= calls <= chain.T:
        raise ValueError(f"the bound of a chain of {chain.T} steps takes 2 to {chain.T} calls, got {calls}")

    def predicted(t: Tensor, what: int) -> Prediction:
        x_t = chain.q_jump(x0, t, noise.fresh(("bound", key, "eps", what)).to(x0))
        return denoiser(x_t, chain.level(t), cond, chain.level(t - 1))

    terms: list[Tensor] = []
    drawn: list[Tensor] = []
    with torch.no_grad():
        first = decoder(x0, predicted(_first(x0), 1))
        for stratum in _strata(chain.T, calls - 1):
            u = torch.special.ndtr(noise.fresh(("bound", key, "step", stratum.start)).flatten(1)[:, 0].double().cpu())
            t = stratum.start + (u * len(stratum)).long().clamp(max=len(stratum) - 1)
            kl = _nats(chain.term(x0, t, predicted(t, stratum.start), variance), x0)
            terms.append(len(stratum) * kl)
            drawn.append(t)
        prior = _nats(chain.prior_term(x0), x0)
    return Bound(prior, torch.stack(terms, 1), first, torch.stack(drawn, 1))


def _strata(T: int, n: int) -> list[range]:
    """The steps 2..T in n runs of nearly equal length."""
    ends = [2 + (T - 1) * i // n for i in range(n + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


def _first(x0: Tensor) -> Tensor:
    return torch.ones(len(x0), dtype=torch.int64)


def _nats(bits: Tensor, x0: Tensor) -> Tensor:
    return bits * (x0[0].numel() * math.log(2))
