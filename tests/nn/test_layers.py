"""Layers against written-out oracles."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, interpolate

from nirvana.nn.layers import (
    Downsample,
    Upsample,
    conv,
    crop_to,
    group_norm,
    pad_to_multiple,
    shuffle,
    unshuffle,
    zeroed,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sizes", [(6,), (4, 6), (2, 4, 6)])
def test_unshuffle_puts_each_cell_where_it_says_and_shuffle_is_its_inverse(sizes: tuple[int, ...]) -> None:
    x = torch.arange(2 * 3 * torch.tensor(sizes).prod().item()).reshape(2, 3, *sizes).float()
    moved = unshuffle(x, 2)
    for c in range(3):
        for k, offset in enumerate(
            torch.cartesian_prod(*[torch.arange(2)] * len(sizes)).reshape(-1, len(sizes)).tolist()
        ):
            picked = x[(slice(None), c, *(slice(o, None, 2) for o in offset))]
            assert torch.equal(moved[:, c * 2 ** len(sizes) + k], picked)
    assert torch.equal(shuffle(moved, 2), x)
    assert unshuffle(x, 1) is x and shuffle(x, 1) is x


def test_padding_repeats_the_last_cells_and_cropping_takes_them_off() -> None:
    x = torch.randn(2, 3, 5, 8, generator=rng())
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (2, 3, 8, 8)
    assert torch.equal(padded[:, :, :5], x)
    assert torch.equal(padded[:, :, 5:], x[:, :, 4:5].expand(-1, -1, 3, -1))
    assert torch.equal(crop_to(padded, (5, 8)), x)
    whole = torch.randn(1, 1, 8, 4, generator=rng())
    assert pad_to_multiple(whole, 4) is whole


def test_padding_may_be_wider_than_the_picture() -> None:
    assert torch.equal(pad_to_multiple(torch.tensor([[[7.0]]]), 8), torch.full((1, 1, 8), 7.0))


@pytest.mark.parametrize(
    ("channels", "width", "groups"), [(64, 16, 4), (48, 16, 3), (64, 32, 2), (20, 16, 1), (8, 16, 1), (96, 20, 4)]
)
def test_groups_are_the_most_that_divide_and_are_wide_enough(channels: int, width: int, groups: int) -> None:
    norm = group_norm(channels, width)
    assert norm.num_groups == groups
    x = torch.randn(2, channels, 3, 3, generator=rng())
    split = norm(x).reshape(2, groups, -1)
    torch.testing.assert_close(split.mean(-1), torch.zeros(2, groups), atol=1e-5, rtol=0)
    torch.testing.assert_close(split.var(-1, unbiased=False), torch.ones(2, groups), atol=1e-3, rtol=0)


def test_zeroed_silences_weight_and_bias() -> None:
    layer = zeroed(conv(2, 3, 4))
    assert not any(parameter.any() for parameter in layer.parameters())


def test_downsample_is_a_strided_convolution() -> None:
    layer = Downsample(2, 3, 5)
    x = torch.randn(2, 3, 6, 8, generator=rng())
    torch.testing.assert_close(layer(x), conv2d(x, layer.conv.weight, layer.conv.bias, stride=2, padding=1))
    assert layer(x).shape == (2, 5, 3, 4)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_upsample_starts_as_nearest_neighbour_and_a_pointwise_map(dims: int) -> None:
    layer = Upsample(dims, 4, 6)
    x = torch.randn(2, 4, *range(3, 3 + dims), generator=rng())
    weight, bias = layer.expand.weight[:: 2**dims].flatten(1), layer.expand.bias
    assert bias is not None
    small = torch.einsum("oc,bc...->bo...", weight, x) + bias[:: 2**dims].reshape(1, -1, *[1] * dims)
    torch.testing.assert_close(layer(x), interpolate(small, scale_factor=2, mode="nearest"))
    with torch.no_grad():  # and each offset in a cell has a kernel of its own
        layer.expand.weight[0] += 1
    changed = (layer(x) - interpolate(small, scale_factor=2, mode="nearest")).abs() > 1e-3
    assert changed[:, 0][(slice(None), *[slice(0, None, 2)] * dims)].any()
    assert not changed[:, 0][(..., slice(1, None, 2))].any() and not changed[:, 1:].any()
