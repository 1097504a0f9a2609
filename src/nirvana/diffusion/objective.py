"""What a network is trained to minimise: level sampler, weight, and the variational bound for a learned variance.

Three choices that do not know of each other: how levels are drawn (`LevelSampler`), how much an error counts at each
level (`Weight`), and what the network predicts (its parameterization).

With the network's output F = p*x0 + q*eps and det = p*sigma - q*alpha, an error e of F is an error `sigma/det * e` of
x0 and `alpha/det * e` of eps. The loss is taken in the space of F, so no small alpha or sigma divides an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from nirvana.diffusion.denoiser import Cond, Output
from nirvana.diffusion.level import Level, left_align
from nirvana.diffusion.markov import Chain, require_var_frac
from nirvana.diffusion.prediction import Coefficients, Prediction, to_x0
from nirvana.diffusion.schedule import Schedule

# Levels.


@runtime_checkable
class LevelSampler(Protocol):
    """The distribution of training levels as its quantile function: u in [0, 1) -> level, noise rising with u."""

    def __call__(self, u: Float[Tensor, "b"]) -> Level:
        """The levels at the quantiles u; never an exact end (alpha = 0 or sigma = 0) by chance of u = 0."""
        ...


@dataclass(frozen=True)
class Uniform:
    """t = u: every time of the schedule alike."""

    schedule: Schedule

    def __call__(self, u: Float[Tensor, "b"]) -> Level:
        """The level of the schedule at t = u."""
        return self.schedule(_inside(u))


@dataclass(frozen=True)
class LogitNormal:
    """`t = sigmoid(mean + std * z)`, z normal: the middle of the schedule more often (Esser et al. 2024, eq. 19)."""

    schedule: Schedule
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, u: Float[Tensor, "b"]) -> Level:
        """The level at the u-quantile of t."""
        return self.schedule(torch.sigmoid(self.mean + self.std * torch.special.ndtri(_inside(u))))


@dataclass(frozen=True)
class EDMLogNormal:
    """`log(sigma/alpha) = mean + std * z`, z normal, of any schedule regardless (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, u: Float[Tensor, "b"]) -> Level:
        """The unit-norm level at the u-quantile of the ratio."""
        return Level.from_lam(-(self.mean + self.std * torch.special.ndtri(_inside(u))))


@dataclass(frozen=True, eq=False)
class DiscreteUniform:
    """t uniform over the steps 1..T of a chain (Ho et al. 2020, algorithm 1)."""

    chain: Chain

    def __call__(self, u: Float[Tensor, "b"]) -> Level:
        """The level of step floor(u * T) + 1."""
        return self.chain.level((_inside(u) * self.chain.T).floor().long() + 1)


def _inside(u: Float[Tensor, "b"]) -> Float64[Tensor, "b"]:
    """u as float64 strictly inside (0, 1): its quantiles stay finite. Raises ValueError outside [0, 1)."""
    u = u.to("cpu", torch.float64)
    if not ((u >= 0) & (u < 1)).all():
        raise ValueError("level samplers take uniforms u with 0 <= u < 1")
    return u.clamp(min=2.0**-33)  # half a step of the 32 bits a generator gives


def stratified(u: Float[Tensor, "b"], index: Int[Tensor, "b"], strata: int) -> Float64[Tensor, "b"]:
    """Uniforms with exactly one of any `strata` consecutive global indices in each stratum [k/strata, (k+1)/strata).

    `(index mod strata + u)/strata`, u the sample's own uniform: a pure function of the sample, whatever the batch. With
    `strata` = the batch (all of it, accumulation included), a loss has less variance and the same mean (the
    low-discrepancy sampler of Kingma et al. 2021, Variational Diffusion Models). Raises ValueError for strata < 1.
    """
    if strata < 1:
        raise ValueError(f"stratified needs at least 1 stratum, got {strata}")
    u = (index.to("cpu") % strata + u.to("cpu", torch.float64)) / strata
    return u.clamp(max=1 - 2.0**-53)  # the sum may round up to 1


# Weights.


@dataclass(frozen=True, eq=False)
class Gains:
    """What a squared error 1 of the network's output is as a squared error of x0 and of eps; float64, of level's shape.

    `x0 = (sigma/det)^2`, `eps = (alpha/det)^2`, so `eps = snr * x0`; `lam` as in Level. Infinite where the output says
    nothing (x0 from eps at alpha = 0), never NaN.
    """

    lam: Tensor
    x0: Tensor
    eps: Tensor

    @staticmethod
    def of(level: Level, pq: Coefficients) -> Gains:
        """The gains of an output with coefficients (p, q) at `level`."""
        p, q = pq
        det = p * level.sigma - q * level.alpha
        # where det = 0 one of p, q is 0, and the output is that multiple of x0 or eps itself
        x0 = torch.where(q == 0, 1 / p, level.sigma / det)
        eps = torch.where(p == 0, 1 / q, level.alpha / det)
        return Gains(level.lam, x0.square(), eps.square())


@runtime_checkable
class Weight(Protocol):
    """How much an error at a level counts: `weight of x0 errors(lam) * gains.x0`, arranged to be finite at the ends.

    With the gains of an x0 prediction (x0 = 1, eps = snr) it is the weight on the squared x0 error.
    """

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """The factor on the squared error of the network's output."""
        ...


@dataclass(frozen=True)
class SameSpace:
    """No weight: the plain MSE of whatever the network puts out; `(det/sigma)^2` on x0 errors."""

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """1."""
        return torch.ones_like(gains.x0)


@dataclass(frozen=True)
class Simple:
    """The MSE of eps whatever the network puts out: L_simple (Ho et al. 2020, eq. 14); `snr` on x0 errors."""

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """`snr * gain_x0`."""
        return gains.eps


@dataclass(frozen=True)
class MinSNR:
    """`min(snr, gamma)` on x0 errors, whatever the network puts out (Hang et al. 2023, section 3.4)."""

    gamma: float = 5.0

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """`min(snr, gamma) * gain_x0`."""
        return torch.minimum(gains.eps, self.gamma * gains.x0)


@dataclass(frozen=True)
class EDMWeight:
    """`(ratio^2 + sigma_data^2)/(ratio * sigma_data)^2` on x0 errors (Karras et al. 2022, table 1, lambda)."""

    sigma_data: float = 0.5

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """`(1/sigma_data^2 + snr) * gain_x0`."""
        return gains.x0 / self.sigma_data**2 + gains.eps


@dataclass(frozen=True)
class FlowWeight:
    """The MSE of u = eps - x0 whatever the network puts out: `1/t^2` on x0 errors, t = sigma/(alpha + sigma).

    t counts as at least `t_min`, for a network that predicts x0 (Li & He 2025, "Back to basics", section 4.1).
    """

    t_min: float = 0.05

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """`gain_x0 / max(t, t_min)^2`."""
        return gains.x0 / torch.sigmoid(-gains.lam).clamp(min=self.t_min).square()


@dataclass(frozen=True)
class OfLam:
    """`fn(lam)` on x0 errors, for any fn of log(alpha/sigma)."""

    fn: Callable[[Tensor], Tensor]

    def __call__(self, gains: Gains) -> Float64[Tensor, "..."]:
        """`fn(lam) * gain_x0`."""
        return self.fn(gains.lam) * gains.x0


# The loss.


@dataclass(frozen=True, eq=False)
class ObjectiveLoss:
    """total: mean of per_sample over the batch, to be minimised; lam of the levels; terms: what the loss is the sum of.

    `terms["mse"]` is the weighted mean squared error; `terms["vb"]`, where the variance is learned, the unweighted
    estimate of the variational bound in bits per dimension; both (b,) and detached.
    """

    total: Float[Tensor, ""]
    per_sample: Float[Tensor, "b"]
    lam: Float64[Tensor, "..."]
    terms: Mapping[str, Float[Tensor, "b"]]


@runtime_checkable
class Trainable(Protocol):
    """A denoiser that shows its raw output (`Preconditioned`)."""

    def output(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond) -> Output:
        """The network's output and what it means."""
        ...


@dataclass(frozen=True, eq=False)
class Objective:
    """The training loss `weight * ||F - F*||^2 / dimensions + vb_weight * L_vb`, F* the output that would be right.

    sampler: the training levels; weight: how errors count. With `vb_weight` > 0 and the `chain` the levels are drawn
    from, the hybrid of Nichol & Dhariwal 2021, eq. 16: the bound trains the learned variance and nothing else (the mean
    is held fixed in it); the paper takes 0.001. `L_vb` is T times the chain's term at the drawn t, so that its mean
    over t is the bound but for the constant L_T. Raises ValueError for a vb_weight below 0 or without a chain.
    """

    sampler: LevelSampler
    weight: Weight
    chain: Chain | None = None
    vb_weight: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.vb_weight < math.inf):
            raise ValueError(f"vb_weight is {self.vb_weight}; it is a finite number of at least 0")
        if self.vb_weight > 0 and self.chain is None:
            raise ValueError("vb_weight > 0 needs the chain whose bound it weighs; give chain=..., or vb_weight=0")

    def loss(
        self, denoiser: Trainable, x0: Float[Tensor, "b *s"], eps: Float[Tensor, "b *s"], level: Level, cond: Cond
    ) -> ObjectiveLoss:
        """The loss of the network at `x = alpha*x0 + sigma*eps`.

        Raises ValueError where the weight is not finite (an end of the levels), where `level` is not the chain's in the
        hybrid, or the network has no variance output there.
        """
        at = level.like(x0)
        out = denoiser.output(at.alpha * x0 + at.sigma * eps, level, cond)
        p, q = out.pq
        error = out.F - (left_align(p, x0) * x0 + left_align(q, x0) * eps)
        factor = _finite(self.weight(Gains.of(out.level_native, out.pq)), level)
        mse = (left_align(factor, x0) * error.square()).flatten(1).mean(dim=1)
        terms = {"mse": mse}
        per_sample = mse
        if self.chain is not None and self.vb_weight > 0:
            terms["vb"] = self._bound(self.chain, out, x0, level)
            per_sample = mse + self.vb_weight * terms["vb"]
        detached = {name: value.detach() for name, value in terms.items()}
        return ObjectiveLoss(per_sample.mean(), per_sample, level.lam, detached)

    def _bound(self, chain: Chain, out: Output, x0: Tensor, level: Level) -> Tensor:
        """T * L_{t-1} with a stop-gradient on the mean (Nichol & Dhariwal 2021, section 3.1)."""
        var_frac = require_var_frac(out.var_frac)
        t = chain.step_of(level).expand(len(x0))  # on the CPU, where checking it waits for no device
        mean = to_x0(out.F.detach(), out.x_native, out.level_native, out.pq).detach()
        return chain.T * chain.term(x0, t, Prediction(mean, var_frac), "learned")


def _finite(factor: Tensor, level: Level) -> Tensor:
    """`factor`, or a ValueError that names a level where it is not finite."""
    bad = ~factor.isfinite()
    if bad.any():
        lam, bad = torch.broadcast_tensors(level.lam, bad)
        raise ValueError(
            f"the weight at lam = {lam[bad].flatten()[0].item():g} is not finite for what this network predicts; "
            "draw levels away from that end, or choose another weight or parameterization"
        )
    return factor
