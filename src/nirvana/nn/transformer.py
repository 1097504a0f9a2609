"""Transformers over tokens: their parts, and a small one that reads texts."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu

from nirvana.nn.attention import attend, heads_of, merged, split
from nirvana.nn.layers import zeroed


class Feedforward(nn.Module):
    """W_out gelu(W_in x), `ratio` times as wide inside; W_out starts at 0 (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.enter = nn.Linear(width, ratio * width)
        self.out = zeroed(nn.Linear(ratio * width, width))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return self.out(gelu(self.enter(x), approximate="tanh"))


class MultiHead(nn.Module):
    """W_o attention(x) among tokens, to be added to x; W_o starts at 0. (b, n, width) -> the same shape."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = heads_of(width, head_width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Float[Tensor, "b n w"], mask: Bool[Tensor, "b 1 1 n"] | None = None) -> Float[Tensor, "b n w"]:
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(merged(attend(q, k, v, mask)))


class TokenBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)): (b, l, width) -> the same (Xiong et al. 2020)."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = MultiHead(width, head_width)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = Feedforward(width)

    def forward(self, x: Float[Tensor, "b l w"], mask: Bool[Tensor, "b 1 1 l"]) -> Float[Tensor, "b l w"]:
        x = x + self.attention(self.norm_attention(x), mask)
        return x + self.feedforward(self.norm_feedforward(x))


class TokenTransformer(nn.Module):
    """Token numbers to states that know their neighbours, in both directions: norm(e) + W norm(blocks(e)).

    e: of the token, and of its place. W starts at 0, and whatever the blocks add, a state stays that of its token: what
    they share of a caption outgrows in a residual stream what tells two words apart, and a network that learns together
    with them then takes "left" and "right" for the same for as long as it trains.
    vocabulary: how many numbers there are; length: the most places; depth: blocks. Each row needs a visible token.
    """

    def __init__(self, vocabulary: int, width: int, depth: int, length: int, head_width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.5)
        nn.init.normal_(self.places.weight, std=0.5)
        self.norm_tokens = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(TokenBlock(width, head_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b l w"]:
        """The states; those at places where `mask` is False mean nothing."""
        x = tokens = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        visible = mask[:, None, None, :]
        for block in self.blocks:
            x = block(x, visible)
        return self.norm_tokens(tokens) + self.out(self.norm(x))
