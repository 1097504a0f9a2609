"""Attention against a written-out loop and against the fused kernel."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import nirvana.nn.attention as attention
from nirvana.nn.attention import CrossAttention, SelfAttention, heads_of, plain_attention


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3, generator=rng(3))
    return module.double()


def test_plain_attention_is_the_formula_row_by_row_and_the_fused_kernel() -> None:
    q, k, v = (torch.randn(2, 3, n, 4, generator=rng(n), dtype=torch.float64) for n in (5, 7, 7))
    mask = torch.rand(2, 1, 1, 7, generator=rng()) < 0.6
    mask[..., 0] = True
    got = plain_attention(q, k, v, mask)
    for b, h, i in [(0, 0, 0), (1, 2, 4), (1, 0, 3)]:
        scores = [math.exp(float(q[b, h, i] @ k[b, h, j]) / 2) if mask[b, 0, 0, j] else 0.0 for j in range(7)]
        expected = sum(s * v[b, h, j] for j, s in enumerate(scores)) / sum(scores)
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(got[b, h, i], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(got, scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        plain_attention(q, k, v, None), scaled_dot_product_attention(q, k, v), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("keys", [0, 10_000])
def test_both_kernels_are_the_same_layer(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = randomised(SelfAttention(32, 16, 16))
    x = torch.randn(2, 32, 3, 5, generator=rng(), dtype=torch.float64)
    expected = layer(x)
    monkeypatch.setattr(attention, "PLAIN_KEYS", keys)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("channels", "width", "heads"), [(128, 64, 2), (64, 64, 1), (48, 64, 1), (96, 32, 3), (100, 64, 1), (160, 64, 2)]
)
def test_heads_are_wide_enough(channels: int, width: int, heads: int) -> None:
    assert heads_of(channels, width) == heads


def test_self_attention_sees_every_cell_and_knows_no_order() -> None:
    layer = randomised(SelfAttention(16, 8, 8))
    x = torch.randn(1, 16, 4, 4, generator=rng(), dtype=torch.float64)
    order = torch.randperm(16, generator=rng(1))
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = layer(x).flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(layer(shuffled), expected, atol=1e-12, rtol=0)
    other = x.clone()
    other[0, :, 3, 3] += 1 + torch.arange(16)
    assert ((layer(other) - layer(x))[0, :, 0, 0].abs() > 1e-6).all()


def test_self_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 16, 5, generator=rng())
    assert torch.equal(SelfAttention(16, 8, 8)(x), x)


def test_masked_tokens_do_not_exist() -> None:
    layer = randomised(CrossAttention(16, 6, 8, 8))
    x = torch.randn(2, 16, 3, 3, generator=rng(), dtype=torch.float64)
    tokens = torch.randn(2, 4, 6, generator=rng(1), dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False], [True, False, True, False]])
    changed = torch.where(mask[..., None], tokens, 100.0)
    torch.testing.assert_close(layer(x, changed, mask), layer(x, tokens, mask), atol=1e-12, rtol=0)
    alone = layer(x[:1], tokens[:1, :2], None)
    torch.testing.assert_close(layer(x, tokens, mask)[:1], alone, atol=1e-12, rtol=0)
    assert (layer(x, tokens * 1.5 + tokens.flip(1), mask) - layer(x, tokens, mask)).abs().amax() > 1e-3


def test_without_any_token_the_null_token_is_seen() -> None:
    layer = randomised(CrossAttention(16, 6, 8, 8, dims=1))
    assert isinstance(layer, CrossAttention)
    x = torch.randn(2, 16, 3, generator=rng(), dtype=torch.float64)
    nothing = layer(x, torch.zeros(2, 3, 6, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.bool))
    attention = layer.attention
    value = attention.kv(attention.null)[0, 0, 16:]  # attention to a single token returns its value
    torch.testing.assert_close(nothing, x + attention.out(value)[None, :, None], atol=1e-12, rtol=0)


def test_a_text_can_say_where() -> None:
    layer = randomised(CrossAttention(16, 6, 8, 8))
    x, tokens = torch.ones(1, 16, 4, 5, dtype=torch.float64), torch.randn(1, 3, 6, generator=rng(), dtype=torch.float64)
    cells = layer(x, tokens, None)[0].flatten(1).T
    assert (torch.cdist(cells, cells) + torch.eye(20) > 1e-6).all()
