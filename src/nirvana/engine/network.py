"""What every engine shares: the inputs of a network in order, the traced program, the network that takes its place."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from nirvana.diffusion.denoiser import Cond, Net
from nirvana.errors import Refused
from nirvana.files import Json

SLOTS = {"vector": torch.float32, "tokens": torch.float32, "tokens_mask": torch.bool, "concat": torch.float32}
"""The conditions in the order in which they follow x and the noise code in every exported network, and their types."""

Run = Callable[[Sequence[Tensor]], Tensor]
"""An engine at work: contiguous tensors of the CPU in the order of `Inputs`, to the output F in memory of its own."""


@dataclass(frozen=True)
class Inputs:
    """Sizes of what a network takes, without the batch, which alone stays free: x (C, *s), and each slot.

    Raises ValueError on a slot that no engine knows.
    """

    x: tuple[int, ...]
    cond: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        if unknown := sorted(self.cond.keys() - SLOTS.keys()):
            raise ValueError(f"the conditions {unknown} cannot be exported (known: {', '.join(SLOTS)})")

    @classmethod
    def of(cls, x: Float[Tensor, "b c *s"], cond: Cond) -> Inputs:
        """The sizes of `x` and `cond`."""
        return cls(tuple(x.shape[1:]), {name: tuple(value.shape[1:]) for name, value in cond.items()})

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Inputs:
        """What `to_json` wrote."""
        cond = cast("Mapping[str, list[int]]", value["cond"])
        return cls(tuple(cast("list[int]", value["x"])), {name: tuple(sizes) for name, sizes in cond.items()})

    def to_json(self) -> dict[str, Json]:
        """All of it, as JSON."""
        return {"x": list(self.x), "cond": {name: list(sizes) for name, sizes in self.cond.items()}}

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the conditions, in order."""
        return tuple(name for name in SLOTS if name in self.cond)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all inputs, in order."""
        return ("x", "noise", *self.slots)

    def ordered(self, x: Tensor, noise: Tensor, cond: Cond) -> list[Tensor]:
        """The tensors as an engine takes them. Raises ValueError on other conditions or sizes than these."""
        if cond.keys() != self.cond.keys():
            raise ValueError(f"this network was exported with the conditions {self.slots}, not {tuple(cond)}")
        wanted = [self.x, (), *(self.cond[name] for name in self.slots)]
        dtypes = [torch.float32, torch.float32, *(SLOTS[name] for name in self.slots)]
        tensors: list[Tensor] = []
        for name, value, sizes, dtype in zip(
            self.names, (x, noise, *(cond[name] for name in self.slots)), wanted, dtypes, strict=True
        ):
            if tuple(value.shape) != (x.shape[0], *sizes):
                raise ValueError(
                    f"this network was exported for {name} of shape {('b', *sizes)}, it got {tuple(value.shape)}"
                )
            tensors.append(value.to("cpu", dtype).contiguous())
        return tensors

    def example(self, batch: int) -> list[Tensor]:
        """Zeros of these sizes, to trace a network with."""
        cond = {name: torch.zeros(batch, *sizes) for name, sizes in self.cond.items()}
        return self.ordered(torch.zeros(batch, *self.x), torch.zeros(batch), cond)


@runtime_checkable
class Engine(Protocol):
    """A way to run networks. native: its files hold machine code, for one kind of processor."""

    native: bool
    precisions: tuple[torch.dtype, ...]

    def version(self) -> str:
        """The version of the engine. Raises Refused where it is not there, saying how to get it."""
        ...

    def export(self, net: nn.Module, inputs: Inputs, folder: Path, precision: torch.dtype) -> None:
        """Write `net` (weights and all, in evaluation mode) into the empty `folder`."""
        ...

    def load(self, folder: Path, precision: torch.dtype) -> Run:
        """What `export` wrote, ready to run with as many threads as PyTorch uses."""
        ...


class EngineNet(nn.Module):
    """A network without parameters that an engine runs: called like the one it was made from, without gradients."""

    def __init__(self, inputs: Inputs, run: Run) -> None:
        super().__init__()
        self.inputs = inputs
        self.slots = frozenset(inputs.cond)
        self._run = run

    def forward(self, x: Float[Tensor, "b c *s"], noise: Float[Tensor, " b"], cond: Cond) -> Float[Tensor, "b d *s"]:
        """F. Raises ValueError where sizes or conditions are not those of the export."""
        return self._run(self.inputs.ordered(x, noise, cond)).to(x.device)


class _Positional(nn.Module):
    """`net` with its conditions as positional tensors; bfloat16 where `precision` says so, as in training."""

    def __init__(self, net: nn.Module, slots: tuple[str, ...], precision: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self.slots = slots
        self.precision = precision

    def forward(self, x: Tensor, noise: Tensor, *cond: Tensor) -> Tensor:
        lower = self.precision != torch.float32
        with torch.autocast("cpu", self.precision) if lower else nullcontext():
            return self.net(x, noise, dict(zip(self.slots, cond, strict=True))).float()


def traced(net: nn.Module, inputs: Inputs, precision: torch.dtype = torch.float32) -> ExportedProgram:
    """`net` as a graph of any batch size. Raises ValueError where `inputs` are not the conditions it takes."""
    slots = cast(Net, net).slots
    if frozenset(inputs.cond) != slots:
        raise ValueError(f"the network takes the conditions {sorted(slots)}, not {inputs.slots}")
    batch = Dim("batch", min=1)
    conditions = {"cond": tuple({0: batch} for _ in inputs.slots)} if inputs.slots else {}
    sizes = {"x": {0: batch}, "noise": {0: batch}, **conditions}
    # A batch of 2: sizes of 0 and 1 would be taken for constants.
    positional = _Positional(net, inputs.slots, precision).eval()
    with torch.no_grad():
        return export(positional, tuple(inputs.example(2)), dynamic_shapes=sizes, strict=False)


def package(name: str) -> ModuleType:
    """A package of the extra "engine". Raises Refused, saying how to get it, where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refused(f"this engine needs the package '{name}' ({error}); pip install 'nirvana[engine]'") from None


@contextmanager
def unwarned() -> Generator[None]:
    """Exporters warn about their own insides, which no user can mend; the parity report says whether it worked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
