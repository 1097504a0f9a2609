"""Oracles: distributions whose denoisers, densities and trajectories have closed forms. All float64 inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.level import Level
from nirvana.diffusion.prediction import Prediction


def _rows(level: Level, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma as float64 columns that multiply x flattened to (B, D): levels of shape () or (B,)."""
    if level.alpha.ndim > 1:
        raise ValueError(f"an exact denoiser takes one level per item, got {tuple(level.alpha.shape)}")
    return level.alpha.to(x.device).reshape(-1, 1), level.sigma.to(x.device).reshape(-1, 1)


class GaussianDenoiser:
    """x0 ~ N(mean, cov). mean: (*s); cov: (D, D) symmetric positive semidefinite, D the number of elements of mean.

    With cov = U diag(l) U^T every formula is one number per column of U.
    """

    def __init__(self, mean: Float[Tensor, "*s"], cov: Float[Tensor, "D D"]) -> None:
        self.mean = mean.double()
        values, self._basis = torch.linalg.eigh(cov.double())
        self._variance = values.clamp(min=0)

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """E[x0 | x] = mean + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha mean)."""
        del cond, nxt
        alpha, sigma = _rows(level, x)
        total = alpha**2 * self._variance + sigma**2
        gain = torch.where(total > 0, alpha * self._variance / torch.where(total > 0, total, 1.0), 0.0)
        return Prediction(self._from_basis(gain * self._to_basis(x, alpha), torch.ones_like(alpha), x))

    def transport(self, x: Float[Tensor, "b *s"], now: Level, nxt: Level) -> Float[Tensor, "b *s"]:
        """The probability-flow trajectory from x at `now`, at `nxt`, for sigma_now > 0.

        z_nxt = z * sqrt((alpha_nxt^2 l + sigma_nxt^2)/(alpha^2 l + sigma^2)), z = U^T (x - alpha mean).
        """
        alpha, sigma = _rows(now, x)
        alpha_nxt, sigma_nxt = _rows(nxt, x)
        stretch = (alpha_nxt**2 * self._variance + sigma_nxt**2) / (alpha**2 * self._variance + sigma**2)
        return self._from_basis(torch.sqrt(stretch) * self._to_basis(x, alpha), alpha_nxt, x)

    def log_prob(self, x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b"]:
        """log N(x; alpha mean, alpha^2 C + sigma^2 I), nats."""
        alpha, sigma = _rows(level, x)
        total = alpha**2 * self._variance + sigma**2
        return -0.5 * (self._to_basis(x, alpha) ** 2 / total + torch.log(2 * math.pi * total)).sum(1)

    @property
    def cov(self) -> Float[Tensor, "D D"]:
        """C."""
        return self._basis * self._variance @ self._basis.T

    def given(self, known: Bool[Tensor, "*s"], y: Float[Tensor, "K"]) -> GaussianDenoiser:
        """x0 where it is not known, given that it is y where it is: Gaussian too, of the D - K free elements.

        mean_f + C_fk C_kk^-1 (y - mean_k), C_ff - C_fk C_kk^-1 C_kf. C_kk must not be singular.
        """
        k, mean, cov, f = known.flatten(), self.mean.flatten(), self.cov, ~known.flatten()
        gain = torch.linalg.solve(cov[k][:, k], cov[k][:, f]).T
        return GaussianDenoiser(mean[f] + gain @ (y.double() - mean[k]), cov[f][:, f] - gain @ cov[k][:, f])

    def _to_basis(self, x: Tensor, alpha: Tensor) -> Tensor:
        return (x.double().flatten(1) - alpha * self.mean.flatten()) @ self._basis

    def _from_basis(self, z: Tensor, alpha: Tensor, x: Tensor) -> Tensor:
        return (z @ self._basis.T + alpha * self.mean.flatten()).reshape(x.shape).to(x.dtype)


class MixtureDenoiser:
    """x0 ~ sum_k weight_k N(mean_k, variance_k I). weights: (K,) > 0; means: (K, *s); variances: (K,) >= 0."""

    def __init__(
        self, weights: Float[Tensor, "K"], means: Float[Tensor, "K *s"], variances: Float[Tensor, "K"]
    ) -> None:
        self.weights, self.means, self.variances = weights, means, variances
        self._log_weights = torch.log(weights.double() / weights.double().sum())
        self._means, self._variances = means.double().flatten(1), variances.double()

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """E[x0 | x] = sum_k r_k (mean_k + alpha variance_k/(alpha^2 variance_k + sigma^2) (x - alpha mean_k)).

        r_k is the probability of component k given x; at sigma = 0 it is x/alpha.
        """
        del cond, nxt
        alpha, sigma = _rows(level, x)
        clean = sigma == 0 if bool((level.sigma == 0).any()) else None
        logits, deviation, total = self._log_joint(x, alpha, sigma if clean is None else torch.where(clean, 1.0, sigma))
        gain = alpha * self._variances / total
        of_each = self._means + gain[..., None] * deviation
        x0 = (torch.softmax(logits, 1)[..., None] * of_each).sum(1)
        if clean is not None:
            # Without the inner choice a derivative at alpha = 0 would be 0 * inf.
            x0 = torch.where(clean, x.double().flatten(1) / torch.where(clean, alpha, 1.0), x0)
        return Prediction(x0.reshape(x.shape).to(x.dtype))

    def log_prob(self, x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b"]:
        """log sum_k weight_k N(x; alpha mean_k, (alpha^2 variance_k + sigma^2) I), nats."""
        return torch.logsumexp(self._log_joint(x, *_rows(level, x))[0], 1)

    def given(self, known: Bool[Tensor, "*s"], y: Float[Tensor, "K"]) -> MixtureDenoiser:
        """x0 where it is not known, given that it is y where it is: a mixture too, of the D - K free elements.

        weight_k N(y; mean_k, variance_k I) for the weights; means and variances stay, since a component's elements are
        independent. All variances must be above 0.
        """
        k, y = known.flatten(), y.double()
        log_weights = self._log_weights - 0.5 * (
            (y - self._means[:, k]).square().sum(1) / self._variances + len(y) * torch.log(self._variances)
        )
        return MixtureDenoiser(torch.softmax(log_weights, 0), self._means[:, ~k], self._variances)

    def _log_joint(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(weight_k p(x | k)) (B, K), x - alpha mean_k (B, K, D), and alpha^2 variance_k + sigma^2 (B or 1, K)."""
        deviation = x.double().flatten(1)[:, None] - alpha[..., None] * self._means
        total = alpha**2 * self._variances + sigma**2
        log_normal = -0.5 * ((deviation**2).sum(2) / total + self._means.shape[1] * torch.log(2 * math.pi * total))
        return self._log_weights + log_normal, deviation, total


class DatasetDenoiser(MixtureDenoiser):
    """x0 uniform on `points` (N, *s): E[x0 | x] is their softmax mean, what a network that memorised them would say."""

    def __init__(self, points: Float[Tensor, "N *s"]) -> None:
        n = len(points)
        super().__init__(torch.full((n,), 1 / n), points, torch.zeros(n))


@dataclass(frozen=True)
class BoxDenoiser:
    """x0 uniform on [low, high] in every dimension, independently. Raises ValueError unless low < high.

    Given x, x0 is the normal N(x/alpha, (sigma/alpha)^2) kept between low and high. With the half-width w of the box,
    m the distance of x/alpha from its middle, k = w alpha/sigma and u = |m| alpha/sigma, everything is a function of
    (k, u): by the tail functions of the normal where k >= 1, and by quadrature where it is nearly flat over the box.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"there is no box from {self.low} to {self.high}: low must be below high")

    def __call__(self, x: Float[Tensor, "b *s"], level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        """E[x0 | x] = middle + sign(m) w E[y | x], y in [-1, 1] with the density exp(k u y - k^2 y^2/2) up to a factor.

        At sigma = 0 it is x/alpha.
        """
        del cond, nxt
        alpha, sigma = _rows(level, x)
        clean = sigma == 0
        middle, width = (self.low + self.high) / 2, (self.high - self.low) / 2
        noisy = torch.where(clean, 1.0, sigma)
        off = (x.double().flatten(1) - alpha * middle) / noisy  # m alpha/sigma, finite at alpha = 0
        k = (width * alpha / noisy).expand_as(off)
        sign = torch.ones_like(off).copysign(off.detach())
        x0 = middle + sign * width * _mean_in_box(k, off * sign)
        x0 = torch.where(clean, x.double().flatten(1) / torch.where(clean, alpha, 1.0), x0)
        return Prediction(x0.reshape(x.shape).to(x.dtype))

    def log_prob(self, x: Float[Tensor, "b *s"], level: Level) -> Float[Tensor, "b"]:
        """log p(x), nats: in each dimension log of (1/2 integral of N(x; alpha (middle + w y), sigma^2) over |y| < 1).

        For sigma > 0.
        """
        alpha, sigma = _rows(level, x)
        middle, width = (self.low + self.high) / 2, (self.high - self.low) / 2
        off = ((x.double().flatten(1) - alpha * middle) / sigma).abs()
        k = (width * alpha / sigma).expand_as(off)
        return (_log_mass_in_box(k, off) - torch.log(sigma)).sum(1)


_FLAT = 1.0
"""Below this k a normal is smooth over the box."""

_STEEP = 50.0
"""Up to this k*u the quadrature resolves exp(k u y)."""


def _gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """The nodes and weights that integrate polynomials of degree 2n - 1 over [-1, 1] (Golub & Welsch 1969)."""
    i = torch.arange(1, n, dtype=torch.float64)
    beside = i / torch.sqrt(4 * i**2 - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, 2 * vectors[0] ** 2


_NODES, _WEIGHTS = _gauss_legendre(64)


def _tail(z: Tensor) -> Tensor:
    """The scaled tail erfcx(-z/sqrt 2) = 2 Phi(z) exp(z^2/2); beyond z = 36, where it overflows, that of 36."""
    return torch.special.erfcx(-z.clamp(max=36) / math.sqrt(2))


def _flat(k: Tensor, u: Tensor) -> Tensor:
    return (k < _FLAT) & (k * u < _STEEP)


def _tilted(k: Tensor, u: Tensor) -> Tensor:
    """w_j exp(k u (y_j - 1) - k^2 y_j^2/2) at the nodes y_j, in a last axis."""
    k, u = k[..., None], u[..., None]
    return _WEIGHTS.to(k.device) * torch.exp(k * u * (_NODES.to(k.device) - 1) - (k * _NODES.to(k.device)) ** 2 / 2)


def _mean_in_box(k: Tensor, u: Tensor) -> Tensor:
    """E[y] for u >= 0: (u - h)/k, where h = (phi(b) - phi(a))/(Phi(b) - Phi(a)), a = -k - u, b = k - u."""
    flat = _flat(k, u)
    tilted = _tilted(torch.where(flat, k, 0.0), torch.where(flat, u, 0.0))
    smooth = (tilted * _NODES.to(k.device)).sum(-1) / tilted.sum(-1)
    k, u = torch.where(flat, 1.0, k), torch.where(flat, 0.0, u)
    near, ratio = _tail(k - u), torch.exp(-2 * k * u)  # phi(a)/phi(b)
    hazard = math.sqrt(2 / math.pi) / near  # phi(b)/Phi(b)
    h = hazard * -torch.expm1(-2 * k * u) / (1 - ratio * _tail(-k - u) / near)
    return torch.where(flat, smooth, ((u - h) / k).clamp(max=1))  # rounding grows with u


def _log_mass_in_box(k: Tensor, u: Tensor) -> Tensor:
    """log of 1/2 integral of phi(u - k y) over |y| < 1 = log((Phi(b) - Phi(a))/(2k)), for u >= 0."""
    flat = _flat(k, u)
    tilted = _tilted(torch.where(flat, k, 0.0), torch.where(flat, u, 0.0))
    smooth = torch.log(tilted.sum(-1) / 2) + torch.where(flat, k * u - u**2 / 2, 0.0) - math.log(2 * math.pi) / 2
    k, u = torch.where(flat, 1.0, k), torch.where(flat, 0.0, u)
    far = torch.exp(-2 * k * u) * _tail(-k - u) / _tail(k - u)  # Phi(a)/Phi(b)
    sharp = torch.special.log_ndtr(k - u) + torch.log1p(-far) - torch.log(2 * k)
    return torch.where(flat, smooth, sharp)
