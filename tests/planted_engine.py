"""An engine for tests, which says what the network says, but for a planted change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nirvana.engine import Inputs

Change = Callable[[Tensor], Tensor]


class Kept:
    """An engine that keeps the network in this process and changes what it says."""

    native = False
    precisions: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)

    def __init__(self, change: Change = lambda output: output) -> None:
        self.change = change
        self.made_by = "1.0"
        self.fails: dict[str, BaseException] = {}
        self.nets: dict[str, Callable[[list[Tensor]], Tensor]] = {}

    def version(self) -> str:
        return self.made_by

    def export(self, net: nn.Module, inputs: Inputs, folder: Path, precision: torch.dtype) -> None:
        kept, number = copy.deepcopy(net), str(len(self.nets))
        self.nets[number] = lambda tensors: kept(*tensors[:2], dict(zip(inputs.slots, tensors[2:], strict=True)))
        (folder / "network").write_text(number)
        if "export" in self.fails:
            raise self.fails["export"]

    def load(self, folder: Path, precision: torch.dtype) -> Callable[[Any], Tensor]:
        if "load" in self.fails:
            raise self.fails["load"]
        run = self.nets[(folder / "network").read_text()]
        return lambda tensors: self.change(run(tensors))
