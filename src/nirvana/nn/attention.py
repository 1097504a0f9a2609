"""Attention over the cells of a picture, and from them to tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from nirvana.nn.embedding import Positions
from nirvana.nn.layers import group_norm, zeroed

PLAIN_KEYS = 128
"""On a CPU the written-out product is the faster kernel up to about this many keys (docs/benchmarks.md)."""


def plain_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m d"],
    mask: Bool[Tensor, "b 1 1 m"] | None,
) -> Float[Tensor, "b h n d"]:
    """softmax(q k^T / sqrt(d)) v, written out; `mask` is True where a key may be seen (Vaswani et al. 2017, eq. 1)."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v


def attend(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h m d"],
    v: Float[Tensor, "b h m d"],
    mask: Bool[Tensor, "b 1 1 m"] | None,
) -> Float[Tensor, "b h n d"]:
    """Attention by the kernel that measured fastest: written out for few keys on a CPU, fused elsewhere."""
    if q.device.type == "cpu" and k.shape[-2] <= PLAIN_KEYS:
        return plain_attention(q, k, v, mask)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def heads_of(channels: int, head_width: int) -> int:
    """The number of heads of at least `head_width` channels that divides `channels`; at least 1."""
    return next(h for h in range(max(channels // head_width, 1), 0, -1) if channels % h == 0)


def split(x: Float[Tensor, "b n c"], heads: int) -> Float[Tensor, "b h n d"]:
    """The channels of every cell or token dealt out to the heads."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merged(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b n c"]:
    """The inverse of `split`."""
    return x.transpose(1, 2).flatten(2)


def _cells(x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b n c"]:
    return x.flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    """x + W_o attention(norm(x)) over all cells; W_o starts at 0. (b, c, s...) -> the same shape."""

    def __init__(self, channels: int, head_width: int, group_width: int) -> None:
        super().__init__()
        self.heads = heads_of(channels, head_width)
        self.norm = group_norm(channels, group_width)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        q, k, v = self.qkv(_cells(self.norm(x))).chunk(3, dim=-1)
        mixed = attend(split(q, self.heads), split(k, self.heads), split(v, self.heads), None)
        return x + self.out(merged(mixed)).transpose(1, 2).reshape(x.shape)


def token_entry(token_dim: int, width: int) -> nn.Sequential:
    """W norm(tokens), once for all layers of a network: (b, l, token_dim) -> (b, l, width)."""
    return nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, width))


class TokenAttention(nn.Module):
    """W_o attention(q from x; k, v from tokens), to be added to x; W_o starts at 0.

    x (b, n, width) normalised, tokens (b, l, token_dim), mask (b, l) True where a token counts. A learned null token is
    always visible, so a row whose tokens are all masked attends to it instead of to nothing (which would be NaN).
    """

    def __init__(self, width: int, token_dim: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads_of(width, head_width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(token_dim, 2 * width)
        self.null = nn.Parameter(torch.zeros(1, 1, token_dim))
        self.out = zeroed(nn.Linear(width, width))

    def forward(
        self, x: Float[Tensor, "b n w"], tokens: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b n w"]:
        seen = torch.cat([self.null.expand(x.shape[0], 1, -1).to(tokens.dtype), tokens], dim=1)
        if mask is not None:
            mask = nn.functional.pad(mask, (1, 0), value=True)[:, None, None, :]
        k, v = (split(part, self.heads) for part in self.kv(seen).chunk(2, dim=-1))
        return self.out(merged(attend(split(self.q(x), self.heads), k, v, mask)))


class CrossAttention(nn.Module):
    """x + the attention of norm(x) + positions to tokens: (b, c, s...) -> the same shape.

    Without positions a cell could not know that "on the left" means it: convolutions see no place but the edges.
    """

    def __init__(self, channels: int, token_dim: int, head_width: int, group_width: int, dims: int = 2) -> None:
        super().__init__()
        self.norm = group_norm(channels, group_width)
        self.positions = Positions(dims, channels)
        self.attention = TokenAttention(channels, token_dim, head_width)

    def forward(
        self, x: Float[Tensor, "b c *s"], tokens: Float[Tensor, "b l e"], mask: Bool[Tensor, "b l"] | None
    ) -> Float[Tensor, "b c *s"]:
        normed = _cells(self.norm(x))
        added = self.attention(normed + self.positions(x.shape[2:]).to(normed.dtype), tokens, mask)
        return x + added.transpose(1, 2).reshape(x.shape)
