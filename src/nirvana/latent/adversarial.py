"""The losses of a GAN whose critic compares a real with a drawn picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

Scores = Callable[[Tensor], Tensor]
"""A critic under its condition: pictures (b, *s) -> how real they look (b,)."""


@dataclass(frozen=True, eq=False)
class CriticLoss:
    """The loss of each pair (b,), and what it is made of: softplus term, R1 and R2, each (b,)."""

    per_sample: Float[Tensor, " b"]
    pair: Float[Tensor, " b"]
    r1: Float[Tensor, " b"]
    r2: Float[Tensor, " b"]


@dataclass(frozen=True)
class Relativistic:
    """The relativistic pairing loss with two gradient penalties, for a critic D and real x paired with drawn y.

    critic: softplus(D(y) - D(x)) + gamma/2 (|grad D(x)|^2 + |grad D(y)|^2); generator: softplus(D(x) - D(y)).
    Pairing keeps every drawn picture in the reach of real ones, so no mode can be given up; the penalties R1 (on x) and
    R2 (on y) make training converge near the equilibrium. Raises ValueError for a negative gamma.
    Source: Huang et al. 2024, "The GAN is dead; long live the GAN!", section 2; the pairing: Jolicoeur-Martineau 2019;
    R1, R2: Mescheder et al. 2018, equation 9.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ValueError(f"gamma is {self.gamma}: the weight of the penalties cannot be negative")

    def critic(self, scores: Scores, real: Float[Tensor, "b *s"], drawn: Float[Tensor, "b *s"]) -> CriticLoss:
        """The loss of the critic; `drawn` is taken as given."""
        of_real, r1 = squared_gradient(scores, real)
        of_drawn, r2 = squared_gradient(scores, drawn)
        pair = softplus(of_drawn - of_real)
        return CriticLoss(pair + 0.5 * self.gamma * (r1 + r2), pair, r1, r2)

    def generator(
        self, scores: Scores, real: Float[Tensor, "b *s"], drawn: Float[Tensor, "b *s"]
    ) -> Float[Tensor, " b"]:
        """The loss of the generator, which made `drawn`."""
        with torch.no_grad():
            of_real = scores(real).float()
        return softplus(of_real - scores(drawn).float())


def squared_gradient(scores: Scores, x: Float[Tensor, "b *s"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """D(x) and |grad D(x)|^2 of each picture, both differentiable; x is taken as given.

    The gradient of the sum is the picture's own because no score looks at another picture.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        found = scores(x).float()
        (gradient,) = torch.autograd.grad(found.sum(), x, create_graph=True)
    return found, gradient.float().square().flatten(1).sum(1)
