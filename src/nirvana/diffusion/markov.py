"""The original formulation: a Markov chain of T small noising steps, its reverse, and the variational bound.

Notation: `alpha_t = 1 - beta_t`, `alpha_bar_t = alpha_1 * ... * alpha_t`, `beta~_t` the posterior variance. Steps are
t = 1..T; `t = 0` is data. Tables are float64 and `1 - alpha_bar` is computed without cancellation.

References:
    [H] Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239.
    [N] Nichol, Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models, arXiv:2102.09672.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.level import Level, moved
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.schedule import Tabulated

Variance = Literal["small", "large", "learned"]
"""Sigma_theta: `small` is beta~ (right for data that is one point), `large` is beta (right for data that is N(0, I)),
`learned` lies between them by the network's `var_frac`."""

HALF_BIN = 1 / 255
"""Half the distance of two values of 8-bit data in [-1, 1]."""


class Gaussian(NamedTuple):
    """A diagonal Gaussian; `log_var` broadcasts against `mean`."""

    mean: Tensor
    log_var: Tensor


@dataclass(frozen=True, eq=False)
class Bound:
    """The variational bound on -log p(x0), term by term, in bits per dimension ([H] eq. 5).

    `prior` (b,) is L_T; column t - 1 of `terms` (b, T) is L_{t-1}: the decoder L_0 first.
    """

    prior: Tensor
    terms: Tensor

    @property
    def total(self) -> Tensor:
        """The bound itself (b,)."""
        return self.prior + self.terms.sum(dim=1)


@dataclass(frozen=True, eq=False)
class Chain:
    """The forward chain q of beta_1..beta_T, its posterior, the reverse chain p_theta and the bound that ties them.

    Raises ValueError unless T >= 2 and every beta lies strictly between 0 and 1.
    """

    beta: Float64[Tensor, "T"]

    def __post_init__(self) -> None:
        beta = self.beta.detach().to("cpu", torch.float64)
        if beta.ndim != 1 or len(beta) < 2:
            raise ValueError(f"a chain has at least 2 steps; beta has shape {tuple(beta.shape)}, give (T,) with T >= 2")
        bad = ~((beta > 0) & (beta < 1))
        if bad.any():
            t = int(bad.nonzero()[0])
            raise ValueError(f"beta_{t + 1} is {beta[t].item():g}; every beta lies strictly between 0 and 1")
        object.__setattr__(self, "beta", beta)

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.beta)

    # The tables below have T + 1 entries: entry t belongs to step t, entry 0 to the data.

    @cached_property
    def _beta(self) -> Tensor:
        return torch.cat([self.beta.new_zeros(1), self.beta])

    @cached_property
    def _log_alpha_bar(self) -> Tensor:
        return torch.log1p(-self._beta).cumsum(0)

    @cached_property
    def _one_minus_alpha_bar(self) -> Tensor:
        return -torch.expm1(self._log_alpha_bar)

    @cached_property
    def _beta_tilde(self) -> Tensor:  # [H] eq. 7: beta~_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) * beta_t
        before, after = self._one_minus_alpha_bar[:-1], self._one_minus_alpha_bar[1:]
        return torch.cat([before.new_zeros(1), before / after * self.beta])

    @cached_property
    def _log_beta_tilde(self) -> Tensor:  # beta~_1 = 0 has no logarithm: beta~_2 stands in, as in [N]
        return torch.cat([self._beta_tilde[2:3].expand(2), self._beta_tilde[2:]]).log()

    def _at(self, table: Tensor, t: Int[Tensor, "b"], x: Tensor) -> Tensor:
        """Entry t of a table, cast to x and padded on the right to its dimensions."""
        if ((t < 1) | (t > self.T)).any():
            raise ValueError(f"t = {t.tolist()} leaves 1..{self.T}; steps of this chain are counted from 1 to T")
        return moved(table[t.cpu()], x.device, x.dtype).reshape(-1, *[1] * (x.ndim - 1))

    @cached_property
    def _table(self) -> Tabulated:
        return Tabulated.from_beta(self.beta)

    def schedule(self) -> Tabulated:
        """The chain as a schedule over continuous time; t/T is exactly level t."""
        return self._table

    def level(self, t: Int[Tensor, "*b"]) -> Level:
        """`Level(sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t))` of t in 0..T; 0 is data."""
        if ((t < 0) | (t > self.T)).any():
            raise ValueError(f"t = {t.tolist()} leaves 0..{self.T}; steps of this chain are counted from 1 to T")
        t = t.cpu()
        return Level(self._table.alpha[t], self._table.sigma[t])

    def step_of(self, level: Level) -> Int[Tensor, "*b"]:
        """The t whose level this is, at any norm. Raises ValueError for a level that is not the chain's own."""
        lam = level.lam
        t = self._table.index(lam).round().long()
        bad = ~((self.level(t).lam - lam).abs() < 1e-6)  # data too: inf - inf
        if bad.any():
            worst = lam[bad].flatten()[0].item()
            raise ValueError(f"lam = {worst:g} is no level of this chain; draw levels with DiscreteUniform(chain)")
        return t

    # The forward process q.

    def q_step(
        self, x_prev: Float[Tensor, "b *s"], t: Int[Tensor, "b"], eps: Float[Tensor, "b *s"]
    ) -> Float[Tensor, "b *s"]:
        """A draw of q(x_t | x_{t-1}): `sqrt(1 - beta_t) * x_prev + sqrt(beta_t) * eps` ([H] eq. 2)."""
        return self._at((1 - self._beta).sqrt(), t, x_prev) * x_prev + self._at(self._beta.sqrt(), t, x_prev) * eps

    def q_jump(
        self, x0: Float[Tensor, "b *s"], t: Int[Tensor, "b"], eps: Float[Tensor, "b *s"]
    ) -> Float[Tensor, "b *s"]:
        """A draw of q(x_t | x_0): `sqrt(alpha_bar_t) * x0 + sqrt(1 - alpha_bar_t) * eps` ([H] eq. 4)."""
        signal = self._at((self._log_alpha_bar / 2).exp(), t, x0)
        return signal * x0 + self._at(self._one_minus_alpha_bar.sqrt(), t, x0) * eps

    @cached_property
    def _posterior_x0(self) -> Tensor:  # [H] eq. 7: sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t)
        before, noise = (self._log_alpha_bar[:-1] / 2).exp(), self._one_minus_alpha_bar[1:]
        return torch.cat([noise.new_zeros(1), before * self.beta / noise])

    @cached_property
    def _posterior_x(self) -> Tensor:  # [H] eq. 7: sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
        before, noise = self._one_minus_alpha_bar[:-1], self._one_minus_alpha_bar[1:]
        return torch.cat([noise.new_zeros(1), (1 - self.beta).sqrt() * before / noise])

    def q_posterior(
        self, x0: Float[Tensor, "b *s"], x_t: Float[Tensor, "b *s"], t: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b *s"], Float[Tensor, "b *ones"]]:
        """Mean mu~ and variance beta~ of q(x_{t-1} | x_t, x_0) ([H] eq. 6 and 7); the variance is 0 at t = 1."""
        mean = self._at(self._posterior_x0, t, x0) * x0 + self._at(self._posterior_x, t, x_t) * x_t
        return mean, self._at(self._beta_tilde, t, x_t)

    # The reverse process p_theta.

    def x0_from_eps(
        self, x_t: Float[Tensor, "b *s"], t: Int[Tensor, "b"], eps: Float[Tensor, "b *s"]
    ) -> Float[Tensor, "b *s"]:
        """`x0 = (x_t - sqrt(1 - alpha_bar_t) * eps) / sqrt(alpha_bar_t)` ([H] eq. 15)."""
        noise = self._at(self._one_minus_alpha_bar.sqrt(), t, x_t)
        return (x_t - noise * eps) / self._at((self._log_alpha_bar / 2).exp(), t, x_t)

    def mu_theta(
        self, x_t: Float[Tensor, "b *s"], t: Int[Tensor, "b"], eps: Float[Tensor, "b *s"]
    ) -> Float[Tensor, "b *s"]:
        """`mu_theta = (x_t - beta_t / sqrt(1 - alpha_bar_t) * eps) / sqrt(alpha_t)` ([H] eq. 11)."""
        step = self._at(self._beta / self._one_minus_alpha_bar.sqrt(), t, x_t)
        return (x_t - step * eps) / self._at((1 - self._beta).sqrt(), t, x_t)

    def log_sigma_theta(
        self, x: Float[Tensor, "b *s"], t: Int[Tensor, "b"], variance: Variance, var_frac: Tensor | None = None
    ) -> Float[Tensor, "b *_"]:
        """Logarithm of the reverse variance, shaped to broadcast with x ([H] section 3.2; `learned`: [N] eq. 15).

        `learned`: `v * log beta_t + (1 - v) * log beta~_t` with v the raw `var_frac`; beta~_1 counts as beta~_2.
        Raises ValueError for `learned` without a `var_frac`.
        """
        small, large = self._at(self._log_beta_tilde, t, x), self._at(self._beta.log(), t, x)
        if variance == "small":
            return small
        if variance == "large":
            return large
        v = require_var_frac(var_frac)
        return v * large + (1 - v) * small

    def p_mean_variance(
        self, x_t: Float[Tensor, "b *s"], t: Int[Tensor, "b"], prediction: Prediction, variance: Variance
    ) -> Gaussian:
        """p_theta(x_{t-1} | x_t) = N(mu_theta, Sigma_theta) ([H] eq. 1); mu_theta is mu~ at the predicted x0."""
        mean, _ = self.q_posterior(prediction.x0, x_t, t)
        return Gaussian(mean, self.log_sigma_theta(x_t, t, variance, prediction.var_frac))

    # The variational bound, in bits per dimension.

    def prior_term(self, x0: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
        """L_T = KL(q(x_T | x_0) || N(0, I)) ([H] eq. 5)."""
        alpha_bar, log_var = self._log_alpha_bar[-1].exp().item(), self._one_minus_alpha_bar[-1].log().item()
        return _bits(0.5 * (alpha_bar * (x0**2 - 1) - log_var))

    def term(
        self, x0: Float[Tensor, "b *s"], t: Int[Tensor, "b"], prediction: Prediction, variance: Variance
    ) -> Float[Tensor, "b"]:
        """L_{t-1} of the prediction made at x_t ([H] eq. 5): a KL for t >= 2, the decoder at t = 1 ([H] eq. 13).

        x_t itself cancels: both means weigh it alike, and at t = 1 neither contains it.
        """
        log_var = self.log_sigma_theta(x0, t, variance, prediction.var_frac)
        off = self._at(self._posterior_x0, t, x0) * (x0 - prediction.x0)
        gap = log_var - self._at(self._log_beta_tilde, t, x0)
        # KL of two Gaussians: (exp(-gap) - 1 + gap + off^2 / var) / 2
        kl = _bits(0.5 * (torch.expm1(-gap) + gap + off**2 * torch.exp(-log_var)))
        first = t == 1
        if not first.any():
            return kl
        first = moved(first, x0.device)
        # The other rows get a harmless mean: theirs may be far enough off that the decoder's gradient is NaN.
        mean = torch.where(first.reshape(-1, *[1] * (x0.ndim - 1)), prediction.x0, x0)
        return torch.where(first, _bits(-decoder_log_prob(x0, Gaussian(mean, log_var))), kl)

    @torch.no_grad()
    def vlb(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "b *s"],
        noise: Callable[[int], Tensor],
        cond: Cond,
        variance: Variance,
    ) -> Bound:
        """The bound of 8-bit data x0 in [-1, 1], with T calls of the denoiser; `noise(t)` gives the eps of step t."""
        terms: list[Tensor] = []
        for step in range(1, self.T + 1):
            t = torch.full((len(x0),), step)
            x_t = self.q_jump(x0, t, noise(step))
            prediction = denoiser(x_t, self.level(t), cond, self.level(t - 1))
            terms.append(self.term(x0, t.to(x0.device), prediction, variance))
        return Bound(self.prior_term(x0), torch.stack(terms, dim=1))


def require_var_frac(var_frac: Tensor | None) -> Tensor:
    """The learned variance fraction, or a ValueError that says what to do without one."""
    if var_frac is None:
        raise ValueError(
            "variance 'learned' needs a network with a variance output, and this prediction has none; "
            "use variance 'small' or 'large', or train with learned_variance=True"
        )
    return var_frac


def _bits(nats: Float[Tensor, "b *s"]) -> Float[Tensor, "b"]:
    return nats.flatten(1).mean(dim=1) / math.log(2)


def decoder_log_prob(x0: Float[Tensor, "b *s"], p: Gaussian) -> Float[Tensor, "b *s"]:
    """log p(x_0 | x_1) in nats: the mass of the Gaussian in the bin of each 8-bit value x0 ([H] eq. 13).

    Bins are 2/255 wide, the outermost ones open. Exact far into the tails, where a difference of two cdfs is 0.
    """
    scale = torch.exp(-0.5 * p.log_var)
    low, high = (x0 - HALF_BIN - p.mean) * scale, (x0 + HALF_BIN - p.mean) * scale
    mirrored = low + high > 0  # the mass of (low, high) is that of (-high, -low): keep to the tail where cdfs are small
    near = torch.special.log_ndtr(torch.where(mirrored, -low, high))
    far = torch.special.log_ndtr(torch.where(mirrored, -high, low))
    # Far out in float32 both tails round to the same number; log(0) would be infinite and its gradient NaN.
    inside = near + torch.log(-torch.expm1((far - near).clamp(max=-1e-12)))
    below, above = torch.special.log_ndtr(high), torch.special.log_ndtr(-low)
    return torch.where(x0 < HALF_BIN - 1, below, torch.where(x0 > 1 - HALF_BIN, above, inside))


# One reverse step between any two levels.


@dataclass(frozen=True, eq=False)
class Reverse:
    """q(x_nxt | x_now, x0) for any pair of levels: mean `x0 * x0 + x * x_now`, variance `small`; float64.

    `large` is the variance of the forward step nxt -> now, at the norm of nxt. Between neighbours of a chain these are
    mu~, beta~ and beta.
    """

    x0: Tensor
    x: Tensor
    small: Tensor
    large: Tensor


def reverse(now: Level, nxt: Level) -> Reverse:
    """The posterior of x_nxt given x_now and x0, exact at alpha = 0 (now) and sigma = 0 (nxt); at any norm.

    With `h = lam_nxt - lam_now > 0` and `f = 1 - exp(-2h)`, the share of now's variance that the step nxt -> now adds:
    mean `alpha_nxt * f * x0 + sigma_nxt/sigma_now * exp(-h) * x_now`, variance `sigma_nxt^2 * f`
    ([H] eq. 6 and 7 with `beta = 1 - alpha_bar_now / alpha_bar_nxt`, [N] eq. 19).
    Raises ValueError where noise does not fall.
    """
    h = nxt.lam - now.lam
    if not (h > 0).all():
        bad = ~(h > 0)
        pair = (now.ratio.expand(h.shape)[bad][0].item(), nxt.ratio.expand(h.shape)[bad][0].item())
        raise ValueError(f"noise must fall in an ancestral step, but sigma/alpha goes {pair[0]:g} -> {pair[1]:g}")
    f = -torch.expm1(-2 * h)
    return Reverse(
        x0=nxt.alpha * f,
        x=nxt.sigma / now.sigma * torch.exp(-h),
        small=nxt.sigma**2 * f,
        large=(now.sigma * nxt.norm / now.norm) ** 2 * f,
    )
