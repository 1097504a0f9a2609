"""The noise beta_1..beta_T of a chain of T steps, as the papers give it.

References:
    [H] Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239.
    [N] Nichol, Dhariwal 2021, Improved Denoising Diffusion Probabilistic Models, arXiv:2102.09672.
    [R] Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models, arXiv:2112.10752.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float64
from torch import Tensor


def linear_betas(T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Float64[Tensor, "T"]:
    """beta_1..beta_T, evenly spaced from `first` to `last` ([H] section 4)."""
    return torch.linspace(first, last, T, dtype=torch.float64)


def scaled_linear_betas(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Float64[Tensor, "T"]:
    """beta_1..beta_T, their square roots evenly spaced, with the ends of latent diffusion ([R], its released code)."""
    return torch.linspace(math.sqrt(first), math.sqrt(last), T, dtype=torch.float64).square()


def cosine_betas(T: int = 1000, s: float = 0.008, largest: float = 0.999) -> Float64[Tensor, "T"]:
    """`beta_t = min(1 - f(t)/f(t-1), largest)`, `f(t) = cos^2((t/T + s)/(1 + s) * pi/2)` ([N] eq. 17)."""
    angle = (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * (math.pi / 2)
    a, b = angle[1:], angle[:-1]
    # 1 - cos^2(a)/cos^2(b) without the cancellation of the early steps
    return (torch.sin(a - b) * torch.sin(a + b) / torch.cos(b) ** 2).clamp(max=largest)


BETAS: Mapping[str, Callable[[int], Tensor]] = MappingProxyType(
    {"linear": linear_betas, "scaled-linear": scaled_linear_betas, "cosine": cosine_betas}
)
"""Name -> (T -> beta_1..beta_T)."""
