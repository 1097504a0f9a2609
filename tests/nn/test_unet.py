"""The U-Net as a whole: sizes, slots, zero start, and that nothing in it is dead."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nirvana.nn.unet as module
from nirvana.nn import UNet, UNetConfig
from nirvana.nn.embedding import Embedding, Positions, Sinusoidal
from nirvana.nn.layers import crop_to, pad_to_multiple
from nirvana.nn.unet import ResidualBlock

SMALL: dict[str, Any] = {"width": 16, "group_width": 8, "head_width": 8, "blocks": 1}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def alive(config: UNetConfig) -> UNet:
    """A U-Net with all parameters away from their zeros."""
    net = UNet(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.05, generator=rng(parameter.numel())))
    return net


def inputs(config: UNetConfig, sizes: tuple[int, ...], batch: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    cond: dict[str, Tensor] = {}
    if config.vector_dim:
        cond["vector"] = torch.randn(batch, config.vector_dim, generator=rng(1))
    if config.token_dim:
        cond["tokens"] = torch.randn(batch, 3, config.token_dim, generator=rng(2))
        cond["tokens_mask"] = torch.tensor([[True, True, False]] * batch)
    if config.concat_channels:
        cond["concat"] = torch.randn(batch, config.concat_channels, *sizes, generator=rng(3))
    x = torch.randn(batch, config.channels, *sizes, generator=rng(4))
    return x, torch.linspace(10, 900, batch), cond


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("sizes", [(28, 28), (33, 47), (1001,), (5, 20, 24), (1, 1)])
def test_any_size_is_padded_with_its_edge_and_cropped(sizes: tuple[int, ...], stem: int) -> None:
    config = UNetConfig(2, 3, dims=len(sizes), stem=stem, **SMALL)  # type: ignore[arg-type]
    net = alive(config)
    x, noise, cond = inputs(config, sizes, batch=1)
    got = net(x, noise, cond)
    assert got.shape == (1, 3, *sizes)
    assert torch.equal(got, crop_to(net(pad_to_multiple(x, config.stride), noise, cond), sizes))


def test_at_multiples_of_the_stride_nothing_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = UNetConfig(1, 1, stem=2, concat_channels=1, vector_dim=4, **SMALL)
    net = alive(config)
    batch = inputs(config, (28, 8))
    expected = net(*batch)
    monkeypatch.setattr(module, "pad_to_multiple", lambda x, _multiple: x)
    monkeypatch.setattr(module, "crop_to", lambda x, _sizes: x)
    assert torch.equal(net(*batch), expected)


def test_a_trained_network_with_a_new_slot_says_what_it_said_bit_for_bit() -> None:
    config = UNetConfig(2, 2, stem=2, vector_dim=4, **SMALL)
    old, new = alive(config), UNet(dataclasses.replace(config, concat_channels=3))
    kept = new.load_state_dict(old.state_dict(), strict=False)
    assert kept.missing_keys == ["concat.weight", "concat.bias"]
    x, noise, cond = inputs(new.config, (9, 8))
    assert torch.equal(new(x, noise, cond), old(x, noise, {"vector": cond["vector"]}))


def test_it_starts_at_zero() -> None:
    config = UNetConfig(3, 6, vector_dim=4, token_dim=5, **SMALL)
    assert not UNet(config)(*inputs(config, (8, 12))).any()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_parameter_matters(dims: int) -> None:
    config = UNetConfig(
        2,
        2,
        dims=dims,
        multipliers=(1, 2, 2),
        attention=(1, 2),
        stem=2,
        vector_dim=4,
        token_dim=5,
        concat_channels=1,
        **SMALL,
    )  # type: ignore[arg-type]
    net = alive(config)
    net(*inputs(config, (16,) * dims)).square().sum().backward()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("slot", ["x", "noise", "vector", "tokens", "concat"])
def test_every_input_matters(slot: str) -> None:
    config = UNetConfig(2, 2, vector_dim=4, token_dim=5, concat_channels=1, **SMALL)
    net = alive(config)
    x, noise, cond = inputs(config, (8, 8))
    before = net(x, noise, cond)
    if slot == "x":
        x = x + 0.5
    elif slot == "noise":
        noise = noise + 5
    else:
        cond[slot] = cond[slot] + torch.linspace(0, 1, cond[slot].shape[-1])
    assert ((net(x, noise, cond) - before).flatten(1).abs().amax(1) > 1e-4).all()


def test_every_skip_connection_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    config = UNetConfig(1, 1, multipliers=(1, 2, 2), **{**SMALL, "blocks": 2})
    net = alive(config)
    seen: list[Tensor] = []
    encode = net._encode

    def recorded(x: Tensor, context: Any) -> Any:
        seen.append(x)
        for level in encode(x, context):
            seen.append(level)
            yield level

    monkeypatch.setattr(net, "_encode", recorded)
    joined: list[Tensor] = []
    cat = torch.cat

    def cat_recorded(tensors: list[Tensor], dim: int) -> Tensor:
        joined.append(tensors[1])
        return cat(tensors, dim=dim)

    monkeypatch.setattr(
        torch,
        "cat",
        lambda tensors, dim=0: (
            cat_recorded(tensors, dim) if dim == 1 and tensors[0].ndim == 4 else cat(tensors, dim=dim)
        ),
    )
    net(*inputs(config, (16, 16)))
    assert len(seen) == 9 and len(joined) == 9
    assert all(a is b for a, b in zip(seen, reversed(joined), strict=True))


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    config = UNetConfig(1, 1, vector_dim=4, token_dim=5, **SMALL)
    net = alive(config).double()
    x, noise, cond = inputs(config, (8, 8), batch=3)
    x, noise = x.double(), noise.double()
    cond = {name: value.double() if value.is_floating_point() else value for name, value in cond.items()}
    alone = torch.cat(
        [net(x[i : i + 1], noise[i : i + 1], {k: v[i : i + 1] for k, v in cond.items()}) for i in range(3)]
    )
    torch.testing.assert_close(net(x, noise, cond), alone, atol=1e-12, rtol=0)


def test_a_residual_block_is_its_formula() -> None:
    block = ResidualBlock(UNetConfig(1, 1, **SMALL), 8, 16, 5).double()
    nn.init.normal_(block.conv_out.weight, generator=rng())
    x = torch.randn(2, 8, 4, 4, generator=rng(1), dtype=torch.float64)
    e = torch.randn(2, 5, generator=rng(2), dtype=torch.float64)
    hidden = block.norm_out(block.conv_in(nn.functional.silu(block.norm_in(x))))
    scale, shift = (e @ block.scale_shift.weight.T + block.scale_shift.bias).reshape(2, 2, 16, 1, 1).unbind(1)
    expected = block.skip(x) + block.conv_out(nn.functional.silu(hidden * (1 + scale) + shift))
    torch.testing.assert_close(block(x, e), expected, atol=1e-12, rtol=0)


def test_sinusoidal_features_are_their_formula() -> None:
    got = Sinusoidal(6)(torch.tensor([0.0, 3.0]))
    frequencies = [10000 ** (-k / 3) for k in range(3)]
    expected = torch.tensor(
        [
            [1.0, 1, 1, 0, 0, 0],
            [*(torch.tensor(3 * f).cos() for f in frequencies), *(torch.tensor(3 * f).sin() for f in frequencies)],
        ]
    )
    torch.testing.assert_close(got, expected)
    with pytest.raises(ValueError, match="odd"):
        Sinusoidal(5)


def test_the_embedding_adds_the_vector() -> None:
    embed = Embedding(4, 8, 3)
    assert embed.vector is not None
    vector = torch.randn(2, 3, generator=rng())
    before = torch.zeros(2)

    def raw(v: Tensor) -> Tensor:
        assert embed.vector is not None
        return embed.outer(nn.functional.silu(embed.inner(embed.features(before)))) + embed.vector(v)

    torch.testing.assert_close(embed(before, vector), nn.functional.silu(raw(vector)))


def test_a_stem_of_two_makes_64_px_cost_what_32_px_do() -> None:
    def flops(size: int, stem: int) -> int:
        config = UNetConfig(3, 3, stem=stem, **SMALL)
        with FlopCounterMode(display=False) as counter:
            UNet(config)(*inputs(config, (size, size)))
        return counter.get_total_flops()

    assert flops(64, 2) < 1.3 * flops(32, 1) < 0.5 * flops(64, 1)


def test_the_middle_has_attention_where_the_deepest_level_has() -> None:
    for levels, expected in (((1,), [True, False]), ((0,), [False, False])):
        net = UNet(dataclasses.replace(UNetConfig(1, 1, **SMALL), attention=levels))
        assert [stage.cells is not None for stage in net.middle] == expected  # type: ignore[union-attr]


def test_slots_are_what_the_config_says() -> None:
    assert UNet(UNetConfig(1, 1, **SMALL)).slots == frozenset()
    config = UNetConfig(1, 1, vector_dim=2, token_dim=3, concat_channels=1, **SMALL)
    assert UNet(config).slots == {"vector", "tokens", "tokens_mask", "concat"}


def test_dropout_acts_in_training_only() -> None:
    config = dataclasses.replace(UNetConfig(1, 1, **SMALL), dropout=0.5)
    net, batch = alive(config), inputs(config, (8, 8))
    assert torch.equal(net.eval()(*batch), net(*batch))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(net.train()(*batch), net(*batch))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": 0}, "width"),
        ({"dims": 4}, "dims"),
        ({"multipliers": ()}, "multipliers"),
        ({"attention": (2,)}, "attention"),
        ({"dropout": 1.0}, "dropout"),
        ({"token_dim": -1}, "slot"),
        ({"stem": 0}, "stem"),
    ],
)
def test_a_config_out_of_range_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        UNetConfig(1, 1, **change)


def test_the_wrong_number_of_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="dimensions"):
        UNet(UNetConfig(1, 1, **SMALL))(torch.zeros(1, 1, 8), torch.zeros(1), {})


def test_places_are_those_of_the_picture_whatever_its_size() -> None:
    small, large = Positions(2, 8)((2, 3)), Positions(2, 8)((4, 6))
    assert len({tuple(row.tolist()) for row in small}) == 6
    halves = large.reshape(4, 6, 8)
    # The middle of cell 0 of 2 is that of cells 0 and 1 of 4: at 250 of 1000, between 125 and 375.
    expected = torch.cat([Sinusoidal(4)(torch.tensor([250.0])), Sinusoidal(4)(torch.tensor([500.0 / 3]))], dim=1)[0]
    torch.testing.assert_close(small[0], expected)
    torch.testing.assert_close(
        halves[0, 0], torch.cat([Sinusoidal(4)(torch.tensor([v])) for v in (125.0, 1000 / 12)], 1)[0]
    )
    odd = Positions(3, 20)((1, 2, 2))
    assert odd.shape == (4, 20) and not odd[:, 18:].any() and odd[:, :18].any(0).all()


def test_with_positions_every_cell_knows_its_place() -> None:
    config = UNetConfig(1, 1, dims=1, **SMALL, attention=(), positions=True)
    x, noise = torch.ones(1, 1, 400), torch.tensor([5.0])

    def inner(net: UNet) -> Tensor:
        # Behind all that the padding at the edges reaches, and every second cell: the levels repeat with their stride.
        return net(x, noise, {})[0, 0, 150:250:2]

    without, placed = alive(dataclasses.replace(config, positions=False)), alive(config)
    placed.load_state_dict(without.state_dict())
    assert inner(without).std() < 1e-5 < 1e-3 < inner(placed).std()
