"""Encode then decode: the probability flow forwards and back again returns, at the order of the solver."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.denoiser import Denoiser
from nirvana.diffusion.exact import GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import trajectory

F64 = torch.float64
ORDERS = {
    "ddim": 1,
    "heun": 2,
    "dpmpp-3s": 3,
    "dpmpp-2m": 2,
    "dpmpp-3m": 2,
    "unipc-2": 3,
    "unipc-3": 3,
    "deis-3": 2,
    "ipndm": 2,
}
"""What each solver, which starts itself, reaches at least."""


def mixture() -> MixtureDenoiser:
    rng = torch.Generator().manual_seed(3)
    return MixtureDenoiser(
        torch.tensor([1.0, 2.0, 1.5]), torch.randn(3, 4, generator=rng, dtype=F64), torch.full((3,), 0.3)
    )


def carried(denoiser: Denoiser, x: Tensor, levels: list[Level], name: str) -> Tensor:
    noise = SeededNoise([0] * len(x), x.shape[1:], dtype=F64)
    *_, last = trajectory(denoiser, x, levels, SOLVERS[name](), cond={}, noise=noise)
    return last.x


@pytest.mark.parametrize("name", ORDERS)
def test_the_way_there_and_back_returns_at_the_order(name: str) -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(4), dtype=F64)
    errors: list[float] = []
    for n in (40, 80, 160):
        rising = walk(Level.from_lam(torch.linspace(3.0, -3.0, n + 1, dtype=F64)))
        encoded = carried(mixture(), x, rising, name)
        errors.append(float((carried(mixture(), encoded, rising[::-1], name) - x).abs().max()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(slopes) >= ORDERS[name] - 0.15, (errors, slopes)
    assert errors[-1] < 10 ** -ORDERS[name]


def test_the_code_is_where_the_flow_leads() -> None:
    """Not only back: a Gaussian is encoded to the closed form."""
    rng = torch.Generator().manual_seed(5)
    root = torch.randn(4, 4, generator=rng, dtype=F64)
    oracle = GaussianDenoiser(torch.randn(4, generator=rng, dtype=F64), root @ root.T / 4)
    x = torch.randn(8, 4, generator=rng, dtype=F64)
    rising = walk(Level.from_lam(torch.linspace(3.0, -3.0, 401, dtype=F64)))
    expected = oracle.transport(x, rising[0], rising[-1])
    assert torch.allclose(carried(oracle, x, rising, "unipc-3"), expected, rtol=0, atol=1e-5)
