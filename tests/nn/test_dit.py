"""The transformer: its block against the formula, what it sees, and that any size goes through."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from nirvana.nn import DiT, DiTConfig
from nirvana.nn.dit import DiTBlock


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.2, generator=rng(3))
    return module.double()


def net(**changes: int) -> DiT:
    made = randomised(
        DiT(DiTConfig(**{"channels": 2, "out_channels": 3, "width": 16, "depth": 2, "patch": 2, **changes}))
    )
    assert isinstance(made, DiT)
    return made


def test_a_block_is_the_formula() -> None:
    block = randomised(DiTBlock(DiTConfig(1, 1, width=8, head_width=4, token_dim=6), reads=True))
    assert isinstance(block, DiTBlock) and block.tokens is not None and block.norm_tokens is not None
    x, c, text = randn(2, 5, 8), randn(2, 8, seed=1), randn(2, 3, 8, seed=2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    got = block(x, c, text, mask)
    a, s, g, a2, s2, g2 = (
        part[:, None] for part in (c @ block.modulation.weight.T + block.modulation.bias).split(8, 1)
    )

    def heads(y: Tensor) -> Tensor:
        return torch.stack(y.split(4, dim=-1), dim=1)

    h = layer_norm(x, (8,)) * (1 + a) + s
    q, k, v = (heads(part) for part in block.attention.qkv(h).split(8, dim=-1))
    h = torch.cat(scaled_dot_product_attention(q, k, v).unbind(1), dim=-1)
    x = x + g * block.attention.out(h)
    tokens = block.tokens
    seen = torch.cat([tokens.null.expand(2, 1, 8), text], dim=1)
    k, v = (heads(part) for part in tokens.kv(seen).split(8, dim=-1))
    visible = torch.cat([torch.ones(2, 1, dtype=torch.bool), mask], dim=1)[:, None, None]
    h = scaled_dot_product_attention(heads(tokens.q(block.norm_tokens(x))), k, v, attn_mask=visible)
    x = x + tokens.out(torch.cat(h.unbind(1), dim=-1))
    h = layer_norm(x, (8,)) * (1 + a2) + s2
    x = x + g2 * block.feedforward.out(gelu(block.feedforward.enter(h), approximate="tanh"))
    torch.testing.assert_close(got, x, atol=1e-10, rtol=1e-8)


def test_a_fresh_block_is_the_identity_and_all_of_it_learns() -> None:
    torch.manual_seed(0)
    block = DiTBlock(DiTConfig(1, 1, width=8, token_dim=6), reads=True).double()
    x, c, text = randn(2, 5, 8), randn(2, 8, seed=1), randn(2, 3, 8, seed=2)
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(block(x, c, text, mask), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=1.0)
    for _ in range(2):  # the gates move first, then what is behind them
        optimizer.zero_grad()
        (block(x, c, text, mask) - randn(2, 5, 8, seed=5)).square().sum().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.any() for name, p in block.named_parameters() if "norm_tokens" not in name)


def test_a_fresh_network_gives_zero_and_sees_every_patch_of_a_trained_one() -> None:
    fresh = DiT(DiTConfig(2, 3, width=16, depth=1, patch=2))
    assert not fresh(torch.randn(1, 2, 4, 4, generator=rng()), torch.tensor([5.0]), {}).any()
    made, x, noise = net(), randn(1, 2, 6, 4), torch.tensor([300.0])
    before = made(x, noise, {})
    for row in range(6):
        for column in range(4):
            other = x.clone()
            other[0, :, row, column] += 1
            assert ((made(other, noise, {}) - before)[0].abs().amax(0) > 1e-9).all()


def test_places_are_told_apart_in_every_dimension() -> None:
    made = net()
    x = torch.ones(1, 2, 6, 6, dtype=torch.float64)
    out = (
        made(x, torch.tensor([300.0]), {})[0].unfold(1, 2, 2).unfold(2, 2, 2).flatten(3).permute(1, 2, 0, 3).flatten(2)
    )
    patches = out.flatten(0, 1)
    assert (torch.cdist(patches, patches) + torch.eye(9) > 1e-6).all()


@pytest.mark.parametrize(("dims", "size"), [(1, (7,)), (2, (5, 8)), (3, (3, 4, 5))])
def test_any_size_in_any_dimension_and_padding_is_cut_off(dims: int, size: tuple[int, ...]) -> None:
    made = net(dims=dims, width=24)
    x = randn(2, 2, *size)
    out = made(x, torch.tensor([1.0, 900.0]), {})
    assert out.shape == (2, 3, *size)
    index = [torch.arange(n + n % 2).clamp(max=n - 1) for n in size]
    padded = x[(slice(None), slice(None), *torch.meshgrid(*index, indexing="ij"))]
    whole = made(padded, torch.tensor([1.0, 900.0]), {})
    torch.testing.assert_close(out, whole[(slice(None), slice(None), *(slice(n) for n in size))])


def test_every_slot_matters() -> None:
    made = net(vector_dim=5, token_dim=6, concat_channels=1)
    x, noise = randn(1, 2, 4, 4), torch.tensor([300.0])
    cond = {
        "vector": randn(1, 5),
        "tokens": randn(1, 3, 6),
        "tokens_mask": torch.tensor([[True, True, False]]),
        "concat": randn(1, 1, 4, 4),
    }
    assert made.slots == cond.keys()
    before = made(x, noise, cond)
    for name in ("vector", "tokens", "concat"):
        assert (made(x, noise, {**cond, name: cond[name] + 1 + cond[name].square()}) - before).abs().amax() > 1e-6
    unseen = cond["tokens"].clone()
    unseen[:, 2] += 5
    torch.testing.assert_close(made(x, noise, {**cond, "tokens": unseen}), before)
    assert (made(x, torch.tensor([310.0]), cond) - before).abs().amax() > 1e-6


def test_a_trained_network_with_a_new_slot_says_what_it_said_bit_for_bit() -> None:
    old = net(vector_dim=5)
    new = DiT(dataclasses.replace(old.config, concat_channels=3)).double()
    assert new.load_state_dict(old.state_dict(), strict=False).missing_keys == ["concat.weight", "concat.bias"]
    x, noise, vector = randn(1, 2, 4, 4), torch.tensor([300.0]), randn(1, 5)
    assert torch.equal(
        new(x, noise, {"vector": vector, "concat": randn(1, 3, 4, 4)}), old(x, noise, {"vector": vector})
    )


@pytest.mark.parametrize("changes", [{"patch": 0}, {"dims": 4}, {"vector_dim": -1}, {"depth": 0}], ids=str)
def test_impossible_numbers_are_errors(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="transformer"):
        DiTConfig(**{"channels": 1, "out_channels": 1, **changes})
