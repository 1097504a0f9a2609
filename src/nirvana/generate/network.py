"""What runs a network at sampling: itself, itself in bfloat16, or compiled."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from nirvana.diffusion.denoiser import Cond, Net

BACKEND = "inductor"
"""What `torch.compile` hands its graphs to."""


def in_bfloat16(net: nn.Module) -> nn.Module:
    """A copy of `net` with its parameters in bfloat16. Buffers stay: frequencies of noise codes need more bits."""
    net = copy.deepcopy(net)
    for parameter in net.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    return net


class Compiled(nn.Module):
    """`net` through `torch.compile`, at its first call and again at other sizes; as CUDA graphs on a GPU."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.slots = cast(Net, net).slots
        self._graphs = device.type == "cuda"
        # A graph is of one size; elsewhere the second size is compiled for all others too.
        mode, dynamic = ("reduce-overhead", False) if self._graphs else (None, None)
        self._run = torch.compile(net, backend=BACKEND, mode=mode, dynamic=dynamic)

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        """F, in memory of its own: a CUDA graph writes its result to the same place at every replay."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        return self._run(x, noise, cond).clone()
