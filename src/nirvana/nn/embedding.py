"""The noise level as a vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Sinusoidal features of a number in about 0..1000.

    [cos(x f_k), sin(x f_k)], f_k = 10000^(-k / half), k = 0..half-1. Arguments: (b,); result: (b, width).
    Source: Vaswani et al. 2017, section 3.5, as Ho et al. 2020 use it for t.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"sinusoidal features come in pairs: width {width} is odd")
        half = width // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, x: Float[Tensor, " b"]) -> Float[Tensor, "b width"]:
        phase = x.to(self.frequencies.dtype)[:, None] * self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class Positions(nn.Module):
    """Where each cell lies: [sinusoidal(1000 place/size)] of every dimension, (n, width) for n cells, first row first.

    A place is the middle of its cell, so that another size of picture has the same places. What is left of the width is
    0. Source: as `Sinusoidal`.
    """

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.features = Sinusoidal(2 * (width // (2 * dims)))
        self.rest = width % (2 * dims)

    def forward(self, sizes: Sequence[int]) -> Float[Tensor, "n width"]:
        device = self.features.frequencies.device
        lines = [1000 * (torch.arange(size, device=device) + 0.5) / size for size in sizes]
        axes = torch.meshgrid(*lines, indexing="ij")
        return nn.functional.pad(torch.cat([self.features(axis.flatten()) for axis in axes], dim=1), (0, self.rest))


class Embedding(nn.Module):
    """One vector from the noise level and, where the network has the slot, a condition vector.

    MLP(sinusoidal(noise)) + W vector. Arguments: noise (b,), vector (b, vector_dim) or None; result: (b, width).
    """

    def __init__(self, features: int, width: int, vector_dim: int) -> None:
        super().__init__()
        self.features = Sinusoidal(features)
        self.inner = nn.Linear(features, width)
        self.outer = nn.Linear(width, width)
        self.vector = nn.Linear(vector_dim, width) if vector_dim else None

    def forward(
        self, noise: Float[Tensor, " b"], vector: Float[Tensor, "b vector_dim"] | None
    ) -> Float[Tensor, "b width"]:
        features = self.features(noise).to(self.inner.weight.dtype)
        embedded = self.outer(nn.functional.silu(self.inner(features)))
        if self.vector is not None and vector is not None:
            embedded = embedded + self.vector(vector.to(embedded.dtype))
        return nn.functional.silu(embedded)
