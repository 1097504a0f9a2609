"""The evidence bound against torch's own distributions, and against an exact evidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from nirvana.latent import Evidence, Posterior, log_scale


def test_the_divergence_is_that_of_two_normals() -> None:
    posterior = Posterior.of(torch.randn(6, 8))
    q = Normal(posterior.mean, torch.exp(0.5 * posterior.log_var))
    expected = kl_divergence(q, Normal(torch.zeros(6, 4), torch.ones(6, 4))).sum(1)
    torch.testing.assert_close(posterior.kl(), expected)
    assert float(Posterior(torch.zeros(1, 3), torch.zeros(1, 3)).kl()) == 0.0


def test_samples_have_the_mean_and_the_spread_of_the_posterior() -> None:
    posterior = Posterior(torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]]))
    drawn = posterior.sample(torch.randn(100_000, 2))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), torch.tensor([1.0, math.exp(2.0)]), atol=0.0, rtol=0.03)


def test_the_reconstruction_is_the_density_in_bits_per_dimension_of_bytes() -> None:
    x0, mean, log_sigma = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor(-1.3)
    bits, kl = Evidence().terms(x0, mean, log_sigma, Posterior(torch.ones(3, 5), torch.zeros(3, 5)))
    nats = -Normal(mean, log_sigma.exp()).log_prob(x0).flatten(1).mean(1)
    torch.testing.assert_close(bits, nats / math.log(2) + math.log2(127.5))
    torch.testing.assert_close(kl, torch.full((3,), 2.5 / (32 * math.log(2))))
    torch.testing.assert_close(Evidence(beta=4.0).loss(bits, kl), bits + 4 * kl)


def test_the_best_scale_is_the_root_of_the_mean_squared_error() -> None:
    x0, mean = torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.zeros(4, 1, 3, 3, dtype=torch.float64)
    posterior = Posterior(torch.zeros(4, 1), torch.zeros(4, 1))
    log_sigma = torch.tensor((x0 - mean).square().mean().sqrt().log().item(), requires_grad=True)
    loss = Evidence().terms(x0.float(), mean.float(), log_sigma, posterior)[0].mean()
    assert abs(float(torch.autograd.grad(loss, log_sigma)[0])) < 1e-6


def test_with_the_exact_posterior_the_bound_is_the_evidence() -> None:
    """x = W z + sigma eps: log p(x) is known, and so is p(z | x) where the columns of W are orthogonal."""
    scales, sigma = torch.tensor([1.5, 0.7]), 0.4
    basis = torch.linalg.qr(torch.randn(6, 2)).Q
    w = basis * scales
    x = torch.randn(1, 6)
    variance = sigma**2 / (scales**2 + sigma**2)
    posterior = Posterior((x @ w) / (scales**2 + sigma**2), variance.log()[None])
    eps = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1))
    wide = Posterior(posterior.mean.expand_as(eps), posterior.log_var.expand_as(eps))
    mean = wide.sample(eps) @ w.T
    many = x.expand(len(mean), -1)
    bits, kl = Evidence().terms(many, mean, torch.tensor(math.log(sigma)), wide)
    exact = -MultivariateNormal(torch.zeros(6), w @ w.T + sigma**2 * torch.eye(6)).log_prob(x)
    expected = float(exact) / (6 * math.log(2)) + math.log2(127.5)
    assert float((bits + kl).mean()) == pytest.approx(expected, abs=3e-3)
    wrong = Posterior(wide.mean, wide.log_var + 0.5)
    mean = wrong.sample(eps) @ w.T
    bits, kl = Evidence().terms(many, mean, torch.tensor(math.log(sigma)), wrong)
    assert float((bits + kl).mean()) > expected + 0.01


def test_the_scale_is_its_raw_number_until_it_comes_near_its_floor() -> None:
    for raw, expected, error in (
        (1.0, 1.0, 1e-3),
        (-2.0, -2.0, 0.02),
        (-6.0, -6 + math.log(2), 1e-6),
        (-40.0, -6.0, 1e-6),
    ):
        assert float(log_scale(torch.tensor(raw))) == pytest.approx(expected, abs=error)


def test_a_weight_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Evidence(beta=0.0)
