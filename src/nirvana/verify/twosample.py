"""Tests of samples: from the same distribution as others, uniform, evenly ranked? p-values are uniform where so."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def kernel_test(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], places: Float[Tensor, "J d"], width: float) -> float:
    """The p-value of a kernel statistic in time linear in n: the mean embeddings of both, compared at J places.

    z_i = k(x_i, places) - k(y_i, places), k(a, b) = exp(-|a - b|^2/(2 width^2)); n mean(z)^T cov(z)^-1 mean(z) is
    chi-squared with J degrees where both are alike (Chwialkowski et al. 2015, eq. 14; Jitkrittum et al. 2016).
    """
    z = _kernel(x, places, width) - _kernel(y, places, width)
    mean, cov = z.mean(0), torch.cov(z.T)
    statistic = len(z) * float(mean @ torch.linalg.solve(cov, mean))
    return float(torch.special.gammaincc(torch.tensor(len(places) / 2.0), torch.tensor(statistic / 2)))


def _kernel(x: Tensor, places: Tensor, width: float) -> Tensor:
    return torch.exp(-torch.cdist(x, places).square() / (2 * width**2))


def classifier_test(x: Float[Tensor, "n f"], y: Float[Tensor, "n f"]) -> float:
    """The p-value of a logistic regression on the features x and y, fitted on the first halves, tested on the second.

    Where both are alike, the mean logits of the second halves differ by a unit normal times their error, and one of x
    is as likely above as below (Cheng & Cloninger 2022, section 2.2): p = P(normal > (mean_x - mean_y)/error).
    """
    half = len(x) // 2
    fitted = torch.cat([x[:half], y[:half]])
    mean, std = fitted.mean(0), fitted.std(0)
    labels = torch.cat([torch.ones(half), torch.zeros(half)]).to(x)
    weights = _logistic((fitted - mean) / std, labels)
    of_x, of_y = (((z[half:] - mean) / std) @ weights for z in (x, y))
    error = math.sqrt(float(of_x.var() / len(of_x) + of_y.var() / len(of_y)))
    return 0.5 * math.erfc(float(of_x.mean() - of_y.mean()) / error / math.sqrt(2))


def _logistic(features: Tensor, labels: Tensor, ridge: float = 1.0) -> Tensor:
    """The weights of a logistic regression, without intercept (both classes are as many), by Newton's method."""
    weights = features.new_zeros(features.shape[1])
    for _ in range(8):
        p = torch.sigmoid(features @ weights)
        gradient = features.T @ (p - labels) + ridge * weights
        hessian = (features.T * (p * (1 - p))) @ features + ridge * torch.eye(len(weights)).to(features)
        weights = weights - torch.linalg.solve(hessian, gradient)
    return weights


def uniformity(p_values: Float[Tensor, "n"]) -> float:
    """The p-value of "these are uniform on [0, 1]": Kolmogorov's statistic, with Stephens' correction for few values.

    P(D > d) = 2 sum_k (-1)^(k-1) exp(-2 k^2 l^2), l = (sqrt(n) + 0.12 + 0.11/sqrt(n)) d (Stephens 1970).
    """
    n = len(p_values)
    ordered = p_values.double().sort().values
    place = torch.arange(n + 1, dtype=torch.float64) / n
    d = float(torch.maximum(place[1:] - ordered, ordered - place[:-1]).max())
    scaled = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * d
    if scaled < 0.2:
        return 1.0  # the series alternates there between terms near 1
    total = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, total))


def even_ranks(ranks: Int[Tensor, "n"], most: int) -> float:
    """The p-value of "these are uniform on 0 .. most": Pearson's chi-squared, with `most` degrees."""
    seen = torch.bincount(ranks, minlength=most + 1).double()
    expected = len(ranks) / (most + 1)
    statistic = float((seen - expected).square().sum() / expected)
    return float(torch.special.gammaincc(torch.tensor(most / 2.0), torch.tensor(statistic / 2)))
