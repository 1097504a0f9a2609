"""Exact integrals of a polynomial through known values: the weights of exponential and of plain integrators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def exponential_moments(H: Tensor, count: int) -> list[Tensor]:
    """M_k = integral over u in [0, 1] of H exp(-H (1 - u)) u^k = k! H phi_{k+1}(-H), k = 0 .. count - 1; H of any sign.

    phi_1(z) = (exp(z) - 1)/z, phi_{k+1}(z) = (phi_k(z) - 1/k!)/z: downwards from a Taylor series where |z| <= 2, which
    is where the recurrence upwards cancels (Hochbruck & Ostermann 2010, eq. 2.10 and 2.11).
    """
    near = H.abs() <= 2
    small, large = torch.where(near, -H, 0.0), torch.where(near, 1.0, -H)
    top = torch.zeros_like(H)
    for i in reversed(range(26)):
        top = top * small + 1 / math.factorial(count + i)
    down, up = [top], [torch.expm1(large) / large]
    for k in range(1, count):
        down.insert(0, down[0] * small + 1 / math.factorial(count - k))
        up.append((up[-1] - 1 / math.factorial(k)) / large)
    return [math.factorial(k) * H * torch.where(near, down[k], up[k]) for k in range(count)]


def lagrange_weights(nodes: Sequence[Tensor], moments: Sequence[Tensor]) -> list[Tensor]:
    """w_j with sum_j w_j f(u_j) = the integral of the polynomial through the nodes, whose powers have the `moments`.

    A node at infinity has weight 0, and the polynomial goes through the others.
    """
    weights: list[Tensor] = []
    for j, u in enumerate(nodes):
        power = [torch.ones_like(moments[0])]  # of the product of (v - u_i)/(u - u_i) = 1 + (v - u)/(u - u_i)
        for inverse in (1 / (u - other) for i, other in enumerate(nodes) if i != j):
            flat, slope = 1 - u * inverse, inverse
            power = [flat * a + slope * b for a, b in zip([*power, 0.0], [0.0, *power], strict=True)]
        total = sum((a * m for a, m in zip(power, moments, strict=False)), torch.zeros_like(moments[0]))
        weights.append(torch.where(u.isfinite(), total, 0.0))
    return weights
