"""What a step consists of: every operation of torch has a kind, a number of FLOPs and of bytes moved."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

CONVOLUTION = "convolution"
MATRIX = "matrix product"
ATTENTION = "attention"
NORM = "normalisation"
POINTWISE = "elementwise, reduction"
COPY = "copy, layout, filling"
RANDOM = "random numbers"
OPTIMISER = "optimiser, clipping"
EMA = "weight averages"
TRANSFER = "transfer to the device"
DATA = "data loader"
OTHER = "Python, views, dispatch"

KINDS = (CONVOLUTION, MATRIX, ATTENTION, NORM, POINTWISE, COPY, RANDOM, OPTIMISER, EMA, TRANSFER, DATA, OTHER)
WHOLE = frozenset({DATA, OPTIMISER, EMA, ATTENTION})
"""Whatever runs inside one of these belongs to it: the fused forms of torch fall back on single operations."""

_PARTS = (
    (EMA, ("foreach_lerp",)),
    (OPTIMISER, ("foreach_", "fused_adam", "fused_sgd", "Optimizer.")),
    (CONVOLUTION, ("conv",)),
    (ATTENTION, ("attention", "softmax", "bmm")),
    (NORM, ("group_norm", "layer_norm", "batch_norm", "rms_norm")),
    (RANDOM, ("normal", "uniform", "rand", "bernoulli", "dropout", "exponential", "multinomial")),
    (
        COPY,
        (
            "copy",
            "clone",
            "contiguous",
            "pin_memory",
            "stack",
            "pad_nd",
            "shuffle",
            "index",
            "gather",
            "scatter",
            "embedding",
        ),
    ),
)
"""The first kind one of whose words is in an operation's name."""

_PRODUCTS = "mm addmm matmul linear mv addmv dot mkldnn_linear"
_WRITES = """
    cat repeat roll flip fill zero zeros zeros_like ones ones_like full full_like new_zeros new_full arange
    scalar_tensor slice_backward select_backward
"""
_VIEWS = """
    view view_as reshape reshape_alias as_strided expand expand_as broadcast_to permute transpose t movedim swapaxes
    numpy_T unsqueeze squeeze flatten unflatten slice select narrow split split_with_sizes chunk unbind unsafe_view
    detach alias lift_fresh set set_data requires_grad to item local_scalar_dense is_nonzero result_type resize
    resolve_conj resolve_neg empty empty_like empty_strided new_empty new_empty_strided
"""
_NAMES = {
    **dict.fromkeys(_PRODUCTS.split(), MATRIX),
    **dict.fromkeys(_WRITES.split(), COPY),
    **dict.fromkeys(_VIEWS.split(), OTHER),
}
_UNREAD = frozenset({"copy", "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential"})
"""In-place operations that write their first argument without reading it."""


@functools.cache
def kind_of(name: str) -> str:
    """The kind of the operation called `name` ("aten::add_", "aten::convolution_backward", ...).

    Batched products and softmax count as attention: nothing else here uses them. What is no operation of torch's
    library is `OTHER`, and so is what only makes a view or an empty tensor.
    """
    if not name.startswith(("aten::", "Optimizer.")):
        return OTHER
    bare = name.removeprefix("aten::").strip("_")
    exact = _NAMES.get(bare) or _NAMES.get(bare.removesuffix("_backward"))
    return exact or next((kind for kind, words in _PARTS if any(word in bare for word in words)), POINTWISE)


def held_bytes(tensor: Tensor) -> int:
    """Bytes of the distinct elements of `tensor`: an expanded dimension counts once."""
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0)
    return math.prod(sizes) * tensor.element_size()


def _attention_flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], products: tuple[int, int]) -> int:
    """`products` = how many matrix products go over the width of q and k, and how many over that of v."""
    batch, heads, queries, width = q
    keys, out = k[-2], v[-1]
    return 2 * batch * heads * queries * keys * (products[0] * width + products[1] * out)


def _cpu_attention(
    q: Sequence[int], k: Sequence[int], v: Sequence[int], *_rest: object, out_shape: object = None
) -> int:
    """softmax(q k^T) v is two products."""
    del out_shape
    return _attention_flops(q, k, v, (1, 1))


def _cpu_attention_backward(
    _grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_rest: object, out_shape: object = None
) -> int:
    """q k^T again, then the gradients of q and k; those of the weights and of v."""
    del out_shape
    return _attention_flops(q, k, v, (3, 2))


def _formulas() -> Mapping[object, Callable[..., int]]:
    """torch's formulas for FLOPs, and those of the fused attention on the CPU, which it does not count."""
    aten = torch.ops.aten
    own: dict[object, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _without_options(_cpu_attention),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _without_options(_cpu_attention_backward),
    }
    return FlopCounterMode(display=False, custom_mapping=own).flop_registry


def _without_options(formula: Callable[..., int]) -> Callable[..., int]:
    """Shapes are all that decides: the kernel's options (mask, scale, ...) are left out."""

    def counted(*shapes: object, **options: object) -> int:
        return formula(*shapes, out_shape=options.get("out_shape"))

    return counted


class Tally(TorchDispatchMode):
    """Counts what runs inside of `with Tally()`: calls, FLOPs and bytes by kind, FLOPs by dtype.

    FLOPs are those of products and convolutions, 2 for a multiplication and addition. Bytes are the tensors an
    operation reads and those it writes, as if none were in a cache; views and empty tensors move none. What runs
    while `inside()` names a kind is of that kind.
    """

    def __init__(self, inside: Callable[[], str | None] = lambda: None) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.flops_by_dtype: Counter[torch.dtype] = Counter()
        self._inside, self._formulas = inside, _formulas()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func` and count it, or its parts where it is made of others."""
        del types
        options = dict(kwargs or {})
        # Without gradients composed operations arrive whole (conv2d, linear, scaled_dot_product_attention).
        if func.overloadpacket not in self._formulas:
            with self:
                parts = func.decompose(*args, **options)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **options)
        self._count(func, args, options, out)
        return out

    def _count(self, func: Any, args: tuple[Any, ...], options: Mapping[str, Any], out: Any) -> None:
        read, written = _traffic(func, args, options, out)
        kind = self._inside() or kind_of(f"aten::{func.overloadpacket.__name__}")
        if kind == COPY and len({tensor.device.type for tensor in (*read, *written) if tensor.dim()}) > 1:
            kind = TRANSFER
        self.calls[kind] += 1
        self.bytes[kind] += sum(map(held_bytes, (*read, *written)))
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            flops = int(formula(*args, **options, out_val=out))
            self.flops[kind] += flops
            self.flops_by_dtype[next(iter(_tensors([out]))).dtype] += flops

    @property
    def dtype(self) -> torch.dtype | None:
        """What most FLOPs were computed in; None where there were none."""
        return max(self.flops_by_dtype, key=self.flops_by_dtype.__getitem__, default=None)


def _traffic(
    func: Any, args: tuple[Any, ...], options: Mapping[str, Any], out: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors that an operation reads, and those that it writes."""
    name = func.overloadpacket.__name__.strip("_")
    if func.is_view or kind_of(f"aten::{name}") == OTHER:
        return [], []
    changed: list[Tensor] = []
    read: list[Tensor] = []
    for position, declared in enumerate(func._schema.arguments):
        value = args[position] if position < len(args) else options.get(declared.name)
        tensors = list(_tensors([value]))
        writes = declared.alias_info is not None and declared.alias_info.is_write
        changed += tensors if writes else []
        read += [] if writes and (declared.is_out or (position == 0 and name in _UNREAD)) else tensors
    known = {id(tensor) for tensor in changed}
    return read, changed + [tensor for tensor in _tensors([out]) if id(tensor) not in known]


def _tensors(values: Iterable[object]) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(cast("Iterable[object]", value))
