"""The relativistic pairing loss and its penalties, against closed forms and the smallest game there is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from nirvana.latent import Relativistic, squared_gradient
from nirvana.nn import Critic, PyramidConfig

A = torch.tensor([1.0, -2.0, 0.5])
B = torch.tensor([[2.0, 0.3, 0.0], [0.3, -1.0, 0.4], [0.0, 0.4, 0.7]])


def quadratic(x: Tensor) -> Tensor:
    """D(x) = a.x + x^T B x/2, whose gradient is a + B x."""
    return x @ A + 0.5 * ((x @ B) * x).sum(1)


def test_the_penalty_is_the_squared_gradient_of_each_picture() -> None:
    x = torch.randn(5, 3)
    score, penalty = squared_gradient(quadratic, x)
    torch.testing.assert_close(score, quadratic(x))
    torch.testing.assert_close(penalty, (A + x @ B).square().sum(1))


def test_the_critics_loss_is_its_formula_and_falls_where_it_tells_real_from_drawn() -> None:
    real, drawn = torch.randn(4, 3), torch.randn(4, 3)
    found = Relativistic(gamma=0.7).critic(quadratic, real, drawn)
    gap = quadratic(real) - quadratic(drawn)
    r1, r2 = ((A + x @ B).square().sum(1) for x in (real, drawn))
    expected = torch.log1p(torch.exp(-gap)) + 0.35 * (r1 + r2)
    torch.testing.assert_close(found.per_sample, expected)
    torch.testing.assert_close(found.per_sample - found.pair, 0.35 * (found.r1 + found.r2))
    best = Relativistic(gamma=0.0).critic(quadratic, real[gap > 0], drawn[gap > 0]).per_sample
    assert len(best) and (best < math.log(2)).all()


def test_the_generators_loss_is_the_same_game_with_the_sides_swapped() -> None:
    real, drawn = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True)
    game = Relativistic()
    found = game.generator(quadratic, real, drawn)
    torch.testing.assert_close(found, game.critic(quadratic, drawn, real).pair)
    (gradient,) = torch.autograd.grad(found.sum(), drawn)
    weight = torch.sigmoid(quadratic(real) - quadratic(drawn)).detach()
    torch.testing.assert_close(gradient, -weight[:, None] * (A + drawn.detach() @ B))


def test_the_penalty_is_differentiated_through_the_critic() -> None:
    torch.manual_seed(3)
    critic = Critic(PyramidConfig(1, (4, 4), width=3, multipliers=(1, 1), blocks=1), 5).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    named = dict(critic.named_parameters())
    real, drawn = torch.randn(2, 2, 1, 4, 4, dtype=torch.float64).unbind()

    def loss(weight: Tensor) -> Tensor:
        def scores(x: Tensor) -> Tensor:
            return functional_call(critic, {**named, "encoder.stem.weight": weight}, (x,))

        return _wide(Relativistic(gamma=3.0), scores, real, drawn)

    stem = named["encoder.stem.weight"].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (stem,), eps=1e-6, atol=1e-5)


def _wide(game: Relativistic, scores: object, real: Tensor, drawn: Tensor) -> Tensor:
    """The loss with float64 kept, for differences."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", lambda self: self)
        return game.critic(scores, real, drawn).per_sample.mean()  # type: ignore[arg-type]


@pytest.mark.parametrize(("gamma", "converges"), [(1.0, True), (0.0, False)])
def test_penalties_make_the_smallest_game_converge(gamma: float, converges: bool) -> None:
    """The Dirac game (Mescheder et al. 2018, section 2): real at 0, drawn at theta, D(x) = psi x.

    Without penalties it circles: d(psi^2 + theta^2)/dt = -2 psi theta tanh(psi theta/2), which is of fourth order.
    """
    game, theta, psi = Relativistic(gamma), torch.tensor(1.0), torch.tensor(0.5)
    real, distances = torch.zeros(1, 1), list[float]()
    for _ in range(400):
        psi.requires_grad_()
        loss = game.critic(lambda x, p=psi: p * x[:, 0], real, theta.reshape(1, 1)).per_sample.sum()
        psi = (psi - 0.2 * torch.autograd.grad(loss, psi)[0]).detach()
        moved = theta.clone().requires_grad_()
        loss = game.generator(lambda x, p=psi: p * x[:, 0], real, moved.reshape(1, 1)).sum()
        theta = (theta - 0.2 * torch.autograd.grad(loss, moved)[0]).detach()
        distances.append(math.hypot(float(theta), float(psi)))
    farthest = max(distances[-100:])
    assert (farthest < 1e-3) if converges else (farthest > 0.3)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        Relativistic(gamma=-1.0)
