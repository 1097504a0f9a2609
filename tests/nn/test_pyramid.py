"""The pyramid in one to three dimensions: sizes that do not divide, conditions, and what each output depends on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nirvana.nn import Critic, Decoder, Encoder, PyramidConfig
from nirvana.nn.pyramid import PlainBlock

SIZES = [(11,), (7, 10), (5, 4, 6)]


def shaken(module: nn.Module) -> nn.Module:
    """`module` with no parameter at 0, so that every path counts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stem", [1, 2])
def test_every_number_depends_on_all_that_goes_in(size: tuple[int, ...], stem: int) -> None:
    config = PyramidConfig(2, size, width=4, multipliers=(1, 2), blocks=1, stem=stem, vector_dim=3)
    encoder, decoder = shaken(Encoder(config, 5)), shaken(Decoder(config, 6))
    x = torch.randn(1, 2, *size, requires_grad=True)
    vector, z = torch.randn(1, 3, requires_grad=True), torch.randn(1, 6, requires_grad=True)
    for gradient in torch.autograd.grad(encoder(x, vector)[0, 0], (x, vector)):
        assert (gradient != 0).all()
    drawn = decoder(z, vector)
    assert drawn.shape == x.shape
    for place in ((0, 0, *(0 for _ in size)), (0, 1, *(side - 1 for side in size))):
        for gradient in torch.autograd.grad(drawn[place], (z, vector), retain_graph=True):
            assert (gradient != 0).all()


def test_no_picture_looks_at_another() -> None:
    config = PyramidConfig(1, (9, 9), width=4, blocks=1, vector_dim=3)
    critic = shaken(Critic(PyramidConfig(1, (9, 9), width=4, blocks=1), 3))
    decoder = shaken(Decoder(config, 5))
    z, vector = torch.randn(4, 5), torch.randn(4, 3)
    drawn = decoder(z, vector)
    torch.testing.assert_close(decoder(z[2:3], vector[2:3]), drawn[2:3])
    torch.testing.assert_close(critic(drawn[1:2], vector[1:2]), critic(drawn, vector)[1:2])


def test_a_block_starts_as_nothing_and_its_inner_layer_keeps_the_variance() -> None:
    block, x = PlainBlock(2, 64), torch.randn(4, 64, 16, 16)
    assert torch.equal(block(x), x)
    inner = block.conv_in(nn.functional.leaky_relu(x, 0.2))[..., 1:-1, 1:-1]
    assert 0.8 < float(inner.detach().square().mean()) < 1.2


def test_the_critic_projects_its_features_on_the_class() -> None:
    critic = shaken(Critic(PyramidConfig(1, (8, 8), width=4, blocks=1), 6))
    x, v, w = torch.randn(3, 1, 8, 8), torch.randn(3, 6), torch.randn(3, 6)
    plain, of_v, of_w = critic(x), critic(x, v), critic(x, w)
    torch.testing.assert_close(critic(x, v + 2 * w) - plain, (of_v - plain) + 2 * (of_w - plain))
    features = nn.functional.leaky_relu(critic.encoder(x), 0.2)
    torch.testing.assert_close(of_v - plain, (features * v).sum(1) / 6**0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 0},
        {"width": 0},
        {"blocks": 0},
        {"stem": 0},
        {"size": ()},
        {"size": (8, 0)},
        {"size": (8, 8, 8, 8)},
        {"multipliers": ()},
        {"multipliers": (1, 0)},
        {"vector_dim": -1},
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    values: dict[str, object] = {"channels": 1, "size": (8, 8), **changes}
    with pytest.raises(ValueError, match="pyramid"):
        PyramidConfig(**values)  # type: ignore[arg-type]


def test_a_vector_must_come_just_where_there_is_a_place_for_it() -> None:
    plain, told = (Decoder(PyramidConfig(1, (8, 8), width=4, vector_dim=dim), 5) for dim in (0, 3))
    with pytest.raises(ValueError, match="a vector came"):
        plain(torch.randn(1, 5), torch.randn(1, 3))
    with pytest.raises(ValueError, match="no vector came"):
        told(torch.randn(1, 5))
