"""The encoder of texts that learns with the network: what its states are, and that they stay those of their tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nirvana.nn.transformer import TokenTransformer

IDS = torch.tensor([[3, 1, 4, 1], [3, 1, 5, 0]])
MASK = torch.tensor([[True, True, True, True], [True, True, True, False]])


@pytest.fixture
def encoder() -> TokenTransformer:
    torch.manual_seed(0)
    made = TokenTransformer(vocabulary=8, width=16, depth=2, length=6, head_width=8)
    for name, weight in made.named_parameters():
        if "out" in name:
            nn.init.normal_(weight, std=0.3)
    return made


def normed(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def test_a_new_one_says_the_normalised_token_and_place() -> None:
    torch.manual_seed(0)
    fresh = TokenTransformer(vocabulary=8, width=16, depth=2, length=6)
    expected = normed(fresh.tokens.weight[IDS] + fresh.places.weight[:4])
    torch.testing.assert_close(fresh(IDS, MASK), expected)


def test_states_know_their_visible_neighbours_and_no_others(encoder: TokenTransformer) -> None:
    before = encoder(IDS, MASK)
    hidden, seen = IDS.clone(), IDS.clone()
    hidden[1, 3], seen[1, 2] = 7, 7
    torch.testing.assert_close(encoder(hidden, MASK)[1, :3], before[1, :3], rtol=0, atol=0)
    assert (encoder(seen, MASK)[1, :2] - before[1, :2]).abs().amin(0).max() > 1e-3
    torch.testing.assert_close(encoder(seen, MASK)[0], before[0], rtol=0, atol=0)


def test_what_the_blocks_share_does_not_drown_the_token(encoder: TokenTransformer) -> None:
    own = normed(encoder.tokens.weight + encoder.places.weight[2])
    for block in encoder.blocks:  # all of a caption gets one and the same large vector
        nn.init.zeros_(block.feedforward.out.weight)
        nn.init.normal_(block.feedforward.out.bias, std=1e4)
    states = encoder(torch.tensor([[3, 1, 4, 1], [3, 1, 5, 1]]), MASK[:1].expand(2, 4))[:, 2]
    apart = (own[4] - own[5]).norm()
    assert (states[0] - states[1]).norm() > 0.9 * apart
