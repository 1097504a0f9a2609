"""Layers in one, two or three spatial dimensions: convolution, normalisation, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d}
"""Channels last is what GPUs and wide layers are fast in; on a CPU in float32 it is no loss (docs/benchmarks.md)."""


def conv(dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """A convolution in `dims` dimensions that keeps the size at stride 1 (kernel odd)."""
    return CONVOLUTIONS[dims](inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def zeroed(module: M) -> M:
    """`module` with all its parameters set to 0: its branch starts as nothing (Goyal et al. 2017, section 5.1)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def group_norm(channels: int, group_width: int, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation with the most groups of at least `group_width` channels that divide `channels`.

    Few, wide groups: many narrow ones are several times slower in channels-last (docs/benchmarks.md).
    """
    groups = next(g for g in range(max(channels // group_width, 1), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-5, affine=affine)


def unshuffle(x: Float[Tensor, "b c *s"], factor: int) -> Float[Tensor, "b c_times_f *s_over_f"]:
    """Move every `factor`-sided cell of neighbours into channels (space to depth, Shi et al. 2016), in any dimension.

    (b, c, s...) -> (b, c f^d, s/f...); channel order: c outermost, then the offset inside the cell. Each size must be
    a multiple of f.
    """
    if factor == 1:
        return x
    dims = x.ndim - 2
    sizes = [size // factor for size in x.shape[2:]]
    split = x.reshape(*x.shape[:2], *(part for size in sizes for part in (size, factor)))
    order = [0, 1, *(3 + 2 * d for d in range(dims)), *(2 + 2 * d for d in range(dims))]
    return split.permute(order).reshape(x.shape[0], x.shape[1] * factor**dims, *sizes)


def shuffle(x: Float[Tensor, "b c_times_f *s"], factor: int) -> Float[Tensor, "b c *s_times_f"]:
    """The inverse of `unshuffle` (depth to space): (b, c f^d, s...) -> (b, c, s f...)."""
    if factor == 1:
        return x
    dims = x.ndim - 2
    channels = x.shape[1] // factor**dims
    split = x.reshape(x.shape[0], channels, *[factor] * dims, *x.shape[2:])
    order = [0, 1, *(axis for d in range(dims) for axis in (2 + dims + d, 2 + d))]
    return split.permute(order).reshape(x.shape[0], channels, *(size * factor for size in x.shape[2:]))


def pad_to_multiple(x: Float[Tensor, "b c *s"], multiple: int) -> Float[Tensor, "b c *padded"]:
    """`x` with the last cells of each dimension repeated up to a multiple; `x` itself where every size is one."""
    missing = [-size % multiple for size in x.shape[2:]]
    if not any(missing):
        return x
    # index_select and not F.pad: it may be wider than the picture, and is the same in every dimension.
    for axis, (size, more) in enumerate(zip(x.shape[2:], missing, strict=True), start=2):
        if more:
            x = x.index_select(axis, torch.arange(size + more, device=x.device).clamp_max(size - 1))
    return x


def crop_to(x: Float[Tensor, "b c *padded"], sizes: Sequence[int]) -> Float[Tensor, "b c *s"]:
    """The first `sizes` cells of each dimension: what `pad_to_multiple` added is cut off again."""
    for axis, size in enumerate(sizes, start=2):
        x = x.narrow(axis, 0, size)
    return x


class Downsample(nn.Module):
    """Halve every size by a strided 3-wide convolution: (b, c, s...) -> (b, c_out, s/2...)."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(dims, inputs, outputs, stride=2)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c_out *half"]:
        return self.conv(x)


class Upsample(nn.Module):
    """Double every size by a transposed convolution of kernel 2: (b, c, s...) -> (b, c_out, 2s...).

    It has a quarter of the arithmetic of nearest-neighbour + convolution and starts as it (every offset in the cell
    begins with the same kernel), so no checkerboard is there at the start of training.
    """

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = conv(dims, inputs, outputs * 2**dims, kernel=1)
        cells = len(list(product(range(2), repeat=dims)))
        with torch.no_grad():
            for values in (self.expand.weight, self.expand.bias):
                if values is not None:
                    values.copy_(values[::cells].repeat_interleave(cells, dim=0))

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c_out *double"]:
        return shuffle(self.expand(x), 2)
