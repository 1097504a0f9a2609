"""What this machine can do at most: plain 3x3 convolutions, channels-last, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from memory import keep_memory
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from worker import Facts, Order


class Convolution:
    """settings: channels, side, batch, bfloat16."""

    def __init__(self, settings: Order) -> None:
        keep_memory()
        self.shape = (settings["batch"], settings["channels"], settings["side"], settings["side"])
        self.module = nn.Conv2d(self.shape[1], self.shape[1], 3, padding=1)
        self.dtype = torch.bfloat16 if settings["bfloat16"] else torch.float32
        self.module.to(dtype=self.dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.gradient = self._random()

    def facts(self) -> Facts:
        with FlopCounterMode(display=False) as counter:
            self.prepare({})()
        return {"flops": counter.get_total_flops() // self.shape[0]}

    def prepare(self, order: Order) -> Callable[[], None]:
        del order
        x = self._random().requires_grad_()
        self.module.zero_grad(set_to_none=True)

        def run() -> None:
            self.module(x).backward(self.gradient)

        return run

    def _random(self) -> Tensor:
        return torch.randn(self.shape).to(self.dtype, memory_format=torch.channels_last)
