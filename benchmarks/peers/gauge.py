"""What is measured of every network in the same way: its size, its arithmetic, its deviation from float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, x, time) -> its output."""


def count_parameters(net: nn.Module) -> int:
    """How many numbers a network has."""
    return sum(parameter.numel() for parameter in net.parameters())


def training_flops(net: nn.Module, call: Call, shape: tuple[int, ...]) -> int:
    """Floating-point operations of a picture, forward and backward; attention is written out, so that it counts."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call(net, torch.randn(1, *shape), torch.full((1,), 500)).sum().backward()
    net.zero_grad(set_to_none=True)
    return counter.get_total_flops()


@torch.no_grad()
def deviation(net: nn.Module, call: Call, shape: tuple[int, ...], exact_call: Call | None = None) -> float:
    """The largest difference from the same network in float64, relative to the largest output, on two random inputs.

    The weights are moved a little first: layers that start at 0 would hide all others.
    """
    moved = copy.deepcopy(net)
    for parameter in moved.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    x, time = torch.randn(2, *shape), torch.tensor([100, 900])
    found = call(moved, x, time).double()
    exact = (exact_call or call)(moved.double(), x.double(), time)
    return float((found - exact).abs().max() / exact.abs().max())
