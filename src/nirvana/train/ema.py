"""Power-function averages of weights, and the average of any length made after the training.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3, appendix C.
Time here counts images, which makes the averages independent of the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def gamma_of(sigma_rel: float) -> float:
    """The exponent of the profile of relative width `sigma_rel` = std of the profile / its end.

    sigma_rel = (gamma+1)^(1/2) (gamma+2)^(-1) (gamma+3)^(-1/2), so gamma is the largest real root of
    gamma^3 + 7 gamma^2 + (16 - sigma_rel^-2) gamma + (12 - sigma_rel^-2) = 0 (algorithm 2).
    Raises ValueError outside of 0 < sigma_rel < 1/sqrt(12), where gamma is not positive.
    """
    if not 0 < sigma_rel < 1 / math.sqrt(12):
        raise ValueError(f"sigma_rel is {sigma_rel}; it lies between 0 and 0.288")
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


@dataclass(frozen=True, eq=False)
class Average:
    """The average of weights up to `images` with the profile of width `sigma_rel`."""

    images: int
    sigma_rel: float
    tensors: Mapping[str, Tensor]


class PowerEMA:
    """Running averages of the same tensors with several profiles, p(tau) ~ tau^gamma on [0, images] (equation 1).

    A step over n images that ends at N images: average = beta * average + (1 - beta) * weights with
    beta = (1 - n/N)^(gamma+1) (equation 2, in images). Weights after a step count for the images of that step:
    each then has exactly the weight that p has on its interval, whatever the sizes of the batches.
    """

    def __init__(self, tensors: Mapping[str, Tensor], sigma_rels: Sequence[float]) -> None:
        self.sigma_rels = tuple(sigma_rels)
        self._gammas = [gamma_of(sigma_rel) for sigma_rel in sigma_rels]
        self._averages = [{name: tensor.detach().clone() for name, tensor in tensors.items()} for _ in sigma_rels]

    def tensors(self, profile: int = 0) -> dict[str, Tensor]:
        """The averages of a profile (the live tensors, which the next update changes)."""
        return self._averages[profile]

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step_images: int, images: int) -> None:
        """Take in the weights after a step over `step_images` images that ended at `images`."""
        for gamma, average in zip(self._gammas, self._averages, strict=True):
            # -expm1((gamma+1) log(1 - n/N)) keeps 1 - beta exact where N is large; at n = N it is 1.
            share = -math.expm1((gamma + 1) * math.log1p(-step_images / images)) if step_images < images else 1.0
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - torch's only fused form
                [average[name] for name in tensors], list(tensors.values()), share
            )

    @torch.no_grad()
    def load(self, profile: int, tensors: Mapping[str, Tensor]) -> None:
        """Set the averages of a profile in place. Raises KeyError where a name is missing."""
        for name, average in self._averages[profile].items():
            average.copy_(tensors[name])


def overlap(images_a: float, gamma_a: float, images_b: float, gamma_b: float) -> float:
    """Integral of p_a(tau) p_b(tau), p(tau) = (gamma+1) tau^gamma / images^(gamma+1) on [0, images] (appendix C.2)."""
    shorter = min(images_a, images_b)
    ratio = (shorter / images_a) ** gamma_a * (shorter / images_b) ** gamma_b
    total = gamma_a + gamma_b + 1
    return (gamma_a + 1) * (gamma_b + 1) / total * ratio * shorter / (images_a * images_b)


def synthesis_weights(kept: Sequence[tuple[int, float]], images: int, sigma_rel: float) -> list[float]:
    """Coefficients of the kept averages (images, sigma_rel) whose sum is nearest to the average asked for.

    Least squares between the profiles (algorithm 3), under the constraint that the coefficients sum to 1, so that
    what did not change in training is reproduced exactly however few averages were kept.
    """
    profiles = [(float(at), gamma_of(width)) for at, width in kept]
    wanted = (float(images), gamma_of(sigma_rel))
    size = len(profiles)
    system = np.zeros((size + 1, size + 1))
    right = np.ones(size + 1)
    # Times `images`, all entries are of order one and the constraint's row does not spoil the conditioning.
    system[:size, :size] = [[overlap(*a, *b) * images for b in profiles] for a in profiles]
    system[size, :size] = system[:size, size] = 1.0
    right[:size] = [overlap(*a, *wanted) * images for a in profiles]
    solution = np.linalg.lstsq(system, right, rcond=1e-12)[0]
    return [float(value) for value in solution[:size]]


def synthesize(kept: Sequence[Average], images: int, sigma_rel: float) -> dict[str, Tensor]:
    """The average up to `images` with width `sigma_rel`, from kept averages of other widths and moments.

    The sum is taken in float64 and returned in the tensors' own types. Raises ValueError where nothing was kept.
    """
    if not kept:
        raise ValueError("no averages were kept to make one from")
    weights = synthesis_weights([(average.images, average.sigma_rel) for average in kept], images, sigma_rel)
    result: dict[str, Tensor] = {}
    for name, first in kept[0].tensors.items():
        total = torch.zeros(first.shape, dtype=torch.float64)
        for weight, average in zip(weights, kept, strict=True):
            total.add_(average.tensors[name].to("cpu", torch.float64), alpha=weight)
        result[name] = total.to(first.dtype)
    return result
