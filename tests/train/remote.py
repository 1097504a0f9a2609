"""A device that is not the CPU, played by the CPU: it counts every time that the host would wait for it.

Its tensors call themselves "meta", but they have their numbers, in a tensor of the CPU that the host does not see. What
an accelerator refuses (a host tensor among its own) is refused here, and what makes the host wait is counted: reading a
number, a transfer that is not asked to go on in the background, and operations whose shape depends on numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
aten = torch.ops.aten
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select, aten.bincount}


class Remote(Tensor):
    """A tensor of the played device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Remote:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise AssertionError(f"{func} ran on the device outside of `played_device`")


class _Played(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.ran: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        remote = [leaf for leaf in given if isinstance(leaf, Remote)]
        place = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        self._count(func, args, kwargs, given, remote, place)
        if place == DEVICE:
            kwargs["device"] = torch.device("cpu")
        owners = {id(leaf.held): leaf for leaf in remote}
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        to_host = func.overloadpacket is aten.copy_ and not isinstance(args[0], Remote)
        if place != DEVICE and (place is not None or not remote or to_host):
            return result
        # What an operation changed in place stays the tensor that it was.
        return tree_map(lambda leaf: _owned(leaf, owners), result)

    def _count(
        self, func: Any, args: Any, kwargs: Any, given: list[Tensor], remote: list[Remote], place: torch.device | None
    ) -> None:
        packet = func.overloadpacket
        self.ran[packet.__name__] += 1
        if packet is aten._to_copy:
            self._transfer(bool(remote), bool(remote) if place is None else place == DEVICE, kwargs.get("non_blocking"))
        elif packet is aten.copy_:
            blocking = [*args, kwargs.get("non_blocking")]
            self._transfer(isinstance(args[1], Remote), isinstance(args[0], Remote), blocking[2])
        elif remote:
            if packet in WAITING:
                self.waits[packet.__name__] += 1
            if any(leaf.ndim and not isinstance(leaf, Remote) for leaf in given):
                raise RuntimeError(f"{func} got tensors of two devices")

    def _transfer(self, here: bool, there: bool, background: bool | None) -> None:
        """From the device (`here`) or to it (`there`)."""
        if here and not there:
            self.waits["read"] += 1
        elif there and not here and not background:
            self.waits["blocking transfer"] += 1


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Remote) else value


def _owned(value: Any, owners: Mapping[int, Remote]) -> Any:
    if not isinstance(value, Tensor):
        return value
    return owners[id(value)] if id(value) in owners else Remote(value)


@contextmanager
def played_device() -> Iterator[_Played]:
    """Inside, tensors can be sent to `DEVICE`; `waits` counts what the host waited for, `ran` all operations."""
    with _Played() as played:
        yield played


def settle(modules: nn.Module) -> None:
    """Put the weights of `modules` on the device (inside of `played_device`)."""
    for module in modules.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(
                    Remote(parameter.detach().clone(memory_format=torch.preserve_format))
                )
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Remote(buffer.detach().clone())
