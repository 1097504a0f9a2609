"""The original formulation against closed forms, Bayes' rule and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from nirvana.diffusion.denoiser import Cond
from nirvana.diffusion.level import Level
from nirvana.diffusion.markov import Chain, Gaussian, Variance, decoder_log_prob, reverse
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.schedule import cosine_betas, linear_betas

F64 = torch.float64
BETAS = {"linear": linear_betas, "cosine": cosine_betas}


@pytest.fixture(scope="module", params=list(BETAS))
def chain(request: pytest.FixtureRequest) -> Chain:
    return Chain(BETAS[request.param](1000))


def steps(chain: Chain, first: int = 1) -> Tensor:
    return torch.arange(first, chain.T + 1)


def one_step(chain: Chain, t: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise coefficient of q(x_t | x_{t-1}), probed."""
    one, zero = torch.ones(len(t), dtype=F64), torch.zeros(len(t), dtype=F64)
    return chain.q_step(one, t, zero), chain.q_step(zero, t, one)


def jump(chain: Chain, t: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise coefficient of q(x_t | x_0), probed."""
    one, zero = torch.ones(len(t), dtype=F64), torch.zeros(len(t), dtype=F64)
    return chain.q_jump(one, t, zero), chain.q_jump(zero, t, one)


def test_linear_betas_are_the_papers() -> None:
    beta = linear_betas()
    assert beta.dtype == F64
    assert (beta[0], beta[-1], len(beta)) == (1e-4, 0.02, 1000)
    torch.testing.assert_close(beta.diff(), torch.full((999,), (0.02 - 1e-4) / 999, dtype=F64), rtol=1e-10, atol=0)


def test_cosine_betas_give_the_papers_alpha_bar_and_are_clipped_only_at_the_end() -> None:
    beta = cosine_betas(1000)
    f = torch.cos((torch.arange(1001, dtype=F64) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close((1 - beta).cumprod(0)[:-1], (f / f[0])[1:-1], rtol=1e-11, atol=0)
    assert beta[-1] == 0.999
    assert beta[-2] < 0.999


def test_the_chain_step_by_step_is_the_jump_at_every_t(chain: Chain) -> None:
    t = steps(chain)
    keep, add = one_step(chain, t)
    signal, variance = 1.0, 0.0
    composed: list[tuple[float, float]] = []
    for a, b in zip(keep.tolist(), add.tolist(), strict=True):
        signal, variance = a * signal, a * a * variance + b * b
        composed.append((signal, math.sqrt(variance)))
    expected = torch.tensor(composed, dtype=F64)
    torch.testing.assert_close(torch.stack(jump(chain, t), dim=1), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(add**2, chain.beta, rtol=1e-14, atol=0)


def test_the_noise_of_the_first_steps_has_no_cancellation() -> None:
    chain = Chain(torch.full((10,), 1e-13, dtype=F64))
    t = steps(chain)
    torch.testing.assert_close(jump(chain, t)[1] ** 2, t.double() * 1e-13, rtol=1e-11, atol=0)
    torch.testing.assert_close(chain.level(t).sigma ** 2, t.double() * 1e-13, rtol=1e-11, atol=0)


def test_the_end_of_the_chain_is_a_standard_normal(chain: Chain) -> None:
    a, b = jump(chain, torch.tensor([chain.T]))
    for x0 in (1.0, -1.0, 0.3):
        nats = chain.prior_term(torch.full((1, 3), x0, dtype=F64)).item() * math.log(2)
        assert nats == pytest.approx(kl_divergence(Normal(a * x0, b), Normal(0.0, 1.0)).item(), rel=1e-6)
        assert nats < 1e-4


def test_the_posterior_is_bayes_rule_of_the_joint_gaussian(chain: Chain) -> None:
    t = steps(chain, 2)
    x0, x_t = torch.linspace(-1, 1, len(t), dtype=F64), torch.linspace(2, -3, len(t), dtype=F64)
    (a_before, s_before), (a, s) = jump(chain, t - 1), jump(chain, t)
    k, _ = one_step(chain, t)
    cross = k * s_before**2  # Cov(x_{t-1}, x_t | x_0)
    mean, var = chain.q_posterior(x0, x_t, t)
    torch.testing.assert_close(mean, a_before * x0 + cross / s**2 * (x_t - a * x0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(var, s_before**2 - cross**2 / s**2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("t", [2, 40, 500, 999])
def test_the_posterior_is_bayes_rule_by_quadrature(chain: Chain, t: int) -> None:
    x0, x_t, step = 0.7, -0.4, torch.tensor([t])
    (a_before, s_before), (k, b) = jump(chain, step - 1), one_step(chain, step)
    grid = torch.linspace(-12, 12, 400_001, dtype=F64)
    log_density = Normal(a_before * x0, s_before).log_prob(grid) + Normal(k * grid, b).log_prob(
        torch.tensor(x_t, dtype=F64)
    )
    p = torch.softmax(log_density, dim=0)
    expected_mean = (p * grid).sum()
    mean, var = chain.q_posterior(torch.tensor([x0], dtype=F64), torch.tensor([x_t], dtype=F64), step)
    assert mean.item() == pytest.approx(expected_mean.item(), rel=1e-8)
    assert var.item() == pytest.approx((p * (grid - expected_mean) ** 2).sum().item(), rel=1e-8)


def test_the_posterior_of_the_first_step_is_x0_itself(chain: Chain) -> None:
    mean, var = chain.q_posterior(torch.tensor([0.3], dtype=F64), torch.tensor([5.0], dtype=F64), torch.tensor([1]))
    assert mean.item() == pytest.approx(0.3, abs=1e-12)
    assert var.item() == 0


def test_mu_theta_of_eps_is_the_posterior_mean_at_x0_of_eps(chain: Chain) -> None:
    t = steps(chain)
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, len(t), 2, 3, dtype=F64, generator=generator)
    x_t = chain.q_jump(x0, t, eps)
    x0_again = chain.x0_from_eps(x_t, t, eps)
    torch.testing.assert_close(x0_again, x0, rtol=0, atol=1e-10)
    mean, _ = chain.q_posterior(x0_again, x_t, t)
    torch.testing.assert_close(chain.mu_theta(x_t, t, eps), mean, rtol=0, atol=1e-11)
    p = chain.p_mean_variance(x_t, t, Prediction(x0_again), "large")
    torch.testing.assert_close(p.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(p.log_var.flatten().exp(), chain.beta, rtol=1e-12, atol=0)


def test_sigma_theta_small_large_and_learned_between(chain: Chain) -> None:
    t = steps(chain)
    x = torch.zeros(len(t), 2, 1, dtype=F64)
    small, large = (chain.log_sigma_theta(x, t, v) for v in ("small", "large"))
    _, beta_tilde = chain.q_posterior(x, x, t)
    torch.testing.assert_close(small[1:].exp(), beta_tilde[1:], rtol=1e-12, atol=0)
    assert small[0] == small[1]  # beta~_1 = 0 counts as beta~_2
    torch.testing.assert_close(large.flatten().exp(), chain.beta, rtol=1e-12, atol=0)
    for fraction, expected in (
        (0.0, small),
        (1.0, large),
        (0.25, 0.75 * small + 0.25 * large),
        (-1, 2 * small - large),
    ):
        learned = chain.log_sigma_theta(x, t, "learned", torch.full_like(x, fraction))
        torch.testing.assert_close(learned, expected.expand_as(x), rtol=1e-13, atol=0)
    with pytest.raises(ValueError, match=r"'learned' needs a network with a variance output.*use variance 'small'"):
        chain.log_sigma_theta(x, t, "learned")


# The decoder.

BINS = torch.arange(256, dtype=F64) / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.1234, 0.998, 4.0])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.5, 30.0])
def test_the_decoder_spreads_a_probability_of_one_over_the_256_values(mean: float, std: float) -> None:
    p = Gaussian(torch.full((256, 1), mean, dtype=F64), torch.full((256, 1), 2 * math.log(std), dtype=F64))
    log_prob = decoder_log_prob(BINS[:, None], p)
    assert log_prob.isfinite().all()
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("mean", "std"), [(0.1, 0.3), (-0.9, 0.02), (0.9, 0.005)])
def test_the_decoder_is_the_integral_over_the_bin_even_a_hundred_deviations_away(mean: float, std: float) -> None:
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
    inner = BINS[1:-1]
    log_density = Normal(torch.tensor(mean, dtype=F64), std).log_prob(inner[:, None] + nodes / 255)
    expected = torch.logsumexp(log_density + (weights / 255).log(), dim=1)
    assert expected.min() < -11
    shape = (254, 1)
    p = Gaussian(torch.full(shape, mean, dtype=F64), torch.full(shape, 2 * math.log(std), dtype=F64))
    torch.testing.assert_close(decoder_log_prob(inner[:, None], p).flatten(), expected, rtol=1e-9, atol=0)


def test_the_decoder_has_a_gradient_wherever_the_network_starts() -> None:
    log_var = torch.tensor([-12.0, -9.0, 0.0]).requires_grad_()
    x0 = torch.tensor([-1.0, 1.0, 0.00392157])
    loss = decoder_log_prob(x0, Gaussian(torch.tensor([3.0, -3.0, 2.0]), log_var)).sum()
    loss.backward()
    assert log_var.grad is not None
    assert log_var.grad.isfinite().all()
    assert (log_var.grad[:2] > 0).all()  # a mean this far off wants more variance


# The bound. For Gaussian data the true reverse chain is Gaussian: with the posterior mean as x0 and the true variance
# the bound is the negative log likelihood, but for the width of a bin and for what is left of the data at T.


class GaussianData:
    """Exact denoiser of scalar data N(mean, std^2), with the variance fraction that makes p_theta the true reverse."""

    def __init__(self, chain: Chain, mean: float, std: float) -> None:
        self.chain, self.mean, self.std = chain, mean, std
        self.seen: list[tuple[float, float]] = []

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        assert nxt is not None
        self.seen.append((level.ratio[0].item(), nxt.ratio[0].item()))
        a, s = level.like(x)
        total = (a * self.std) ** 2 + s**2
        x0 = self.mean + a * self.std**2 / total * (x - a * self.mean)
        of_x0 = self.std**2 * s**2 / total  # Var(x0 | x)
        t = self.chain.step_of(level)
        # law of total variance: E Var(x_{t-1} | x, x0) + Var E(x_{t-1} | x, x0)
        gain = self.chain.q_posterior(torch.ones_like(x), torch.zeros_like(x), t)[0]
        log_var = torch.log(self.chain.q_posterior(x, x, t)[1] + gain**2 * of_x0)
        small, large = (self.chain.log_sigma_theta(x, t, kind) for kind in ("small", "large"))
        return Prediction(x0, (log_var - small) / (large - small))


def gaussian_bound(chain: Chain, data: GaussianData, variance: Variance, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Prior and terms (bins, T) of the bound in bits, the noise integrated by Gauss-Hermite quadrature."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(24))
    x0 = bins.repeat_interleave(24)[:, None]
    bound = chain.vlb(data, x0, lambda t: nodes.repeat(len(bins))[:, None], {}, variance)
    torch.testing.assert_close(bound.total, bound.prior + bound.terms.sum(1))
    weights = weights / weights.sum()
    terms = (bound.terms.reshape(len(bins), 24, -1) * weights[None, :, None]).sum(1)
    return bound.prior.reshape(len(bins), 24)[:, 0], terms


def bin_bits(mean: float, std: float) -> Tensor:
    """Exact negative log2 likelihood of the discretised Gaussian."""
    edges = (BINS[1:] + BINS[:-1]) / 2
    cdf = Normal(torch.tensor(mean, dtype=F64), std).cdf(edges)
    mass = torch.cat([cdf[:1], cdf.diff(), 1 - cdf[-1:]])
    return -mass.log2()


@pytest.mark.parametrize("beta", [linear_betas(150, 1e-3, 0.12), cosine_betas(150)], ids=["linear", "cosine"])
def test_the_bound_of_the_exact_reverse_is_the_negative_log_likelihood(beta: Tensor) -> None:
    chain = Chain(beta)
    data = GaussianData(chain, 0.1, 0.3)
    pick = torch.arange(20, 250, 23)
    prior, terms = gaussian_bound(chain, data, "learned", BINS[pick])
    gap = prior + terms.sum(1) - bin_bits(0.1, 0.3)[pick]
    assert (gap > -1e-5).all()
    assert (gap < 2e-4).all(), gap
    ratios = [0.0, *chain.level(torch.arange(1, chain.T + 1)).ratio.tolist()]
    assert data.seen == [(ratios[t], ratios[t - 1]) for t in range(1, chain.T + 1)]


def test_the_bound_holds_for_every_variance_and_is_tightest_at_the_true_one() -> None:
    chain = Chain(linear_betas(60, 1e-3, 0.3))
    nll = bin_bits(-0.2, 0.25)
    mass = torch.exp2(-nll)
    bits: dict[str, float] = {}
    kinds: tuple[Variance, ...] = ("learned", "small", "large")
    for variance in kinds:
        prior, terms = gaussian_bound(chain, GaussianData(chain, -0.2, 0.25), variance, BINS)
        assert (terms[:, 1:] >= -1e-12).all()  # divergences
        bits[variance] = (mass * (prior + terms.sum(1))).sum().item()
    entropy = (mass * nll).sum().item()
    assert entropy <= bits["learned"] < entropy + 1e-3
    assert bits["small"] > bits["learned"] + 0.01
    assert bits["large"] > bits["learned"] + 0.01


def test_a_term_is_the_kl_of_posterior_and_model() -> None:
    chain = Chain(linear_betas(50, 1e-3, 0.2))
    t = torch.tensor([2, 17, 50])
    generator = torch.Generator().manual_seed(1)
    x0, x_t, predicted = torch.randn(3, 3, 2, 4, dtype=F64, generator=generator)
    prediction = Prediction(predicted, torch.rand(3, 2, 4, dtype=F64, generator=generator))
    mean, var = chain.q_posterior(x0, x_t, t)
    p = chain.p_mean_variance(x_t, t, prediction, "learned")
    expected = kl_divergence(Normal(mean, var.sqrt().expand_as(mean)), Normal(p.mean, (0.5 * p.log_var).exp()))
    got = chain.term(x0, t, prediction, "learned")
    torch.testing.assert_close(got, expected.mean((1, 2)) / math.log(2), rtol=1e-10, atol=0)


def test_the_first_term_is_the_decoder_and_leaves_the_others_alone() -> None:
    chain = Chain(linear_betas(50, 1e-3, 0.2))
    x0, predicted = BINS[[3, 200]].reshape(2, 1), BINS[[5, 190]].reshape(2, 1)
    prediction = Prediction(predicted, torch.full((2, 1), 0.4, dtype=F64))
    both = chain.term(x0, torch.tensor([1, 2]), prediction, "learned")
    log_var = chain.log_sigma_theta(x0, torch.tensor([1, 1]), "learned", prediction.var_frac)
    assert both[0] == -decoder_log_prob(x0, Gaussian(predicted, log_var))[0, 0] / math.log(2)
    assert both[1] == chain.term(x0, torch.tensor([2, 2]), prediction, "learned")[1]


def test_the_bounds_gradient_is_finite_however_far_off_a_prediction_is() -> None:
    chain = Chain(cosine_betas(1000))
    x0 = torch.tensor([[0.3], [-1.0], [0.3]])
    predicted, var_frac = torch.tensor([[500.0], [-2e4], [2e4]]), torch.zeros(3, 1)
    predicted.requires_grad_()
    var_frac.requires_grad_()
    chain.term(x0, torch.tensor([1, 1, 1000]), Prediction(predicted, var_frac), "learned").sum().backward()
    for gradient in (predicted.grad, var_frac.grad):
        assert gradient is not None and gradient.isfinite().all()


# One reverse step between any two levels.


def test_reverse_between_neighbours_is_the_chains_posterior(chain: Chain) -> None:
    t = steps(chain)
    one, zero = torch.ones(len(t), dtype=F64), torch.zeros(len(t), dtype=F64)
    got = reverse(chain.level(t), chain.level(t - 1))
    torch.testing.assert_close(got.x0, chain.q_posterior(one, zero, t)[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(got.x, chain.q_posterior(zero, one, t)[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(got.small, chain.q_posterior(zero, zero, t)[1], rtol=1e-10, atol=0)
    torch.testing.assert_close(got.large, chain.beta, rtol=1e-10, atol=0)


def test_reverse_over_a_respaced_grid_is_the_respaced_chain(chain: Chain) -> None:
    kept = torch.arange(100, 1001, 100)
    alpha_bar = chain.level(kept).alpha ** 2
    respaced = Chain(1 - alpha_bar / torch.cat([torch.ones(1, dtype=F64), alpha_bar[:-1]]))  # Nichol & Dhariwal eq. 19
    t = steps(respaced)
    one, zero = torch.ones(len(t), dtype=F64), torch.zeros(len(t), dtype=F64)
    got = reverse(chain.level(kept), chain.level(kept - 100))
    torch.testing.assert_close(got.x0, respaced.q_posterior(one, zero, t)[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(got.x, respaced.q_posterior(zero, one, t)[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(got.small, respaced.q_posterior(zero, zero, t)[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(got.large, respaced.beta, rtol=1e-9, atol=0)


def test_reverse_follows_the_norms_of_both_levels() -> None:
    now, nxt = Level.from_lam(-1.0), Level.from_lam(0.5)
    plain, scaled = reverse(now, nxt), reverse(now.scaled(3.0), nxt.scaled(0.25))
    for got, expected in (
        (scaled.x0, plain.x0 / 4),
        (scaled.x, plain.x / 12),
        (scaled.small, plain.small / 16),
        (scaled.large, plain.large / 16),
    ):
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


def test_reverse_is_exact_at_both_ends() -> None:
    noise, middle, data = Level.of(0.0, 1.0), Level.of(0.6, 0.8), Level.of(1.0, 0.0)
    first, last, whole = reverse(noise, middle), reverse(middle, data), reverse(noise, data)
    assert [first.x0, first.x, first.small] == [0.6, 0.0, pytest.approx(0.64, rel=1e-15)]
    assert first.large == pytest.approx(1.0, rel=1e-15)
    for end in (last, whole):
        assert [end.x0, end.x, end.small] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("now", "nxt"), [(0.5, 0.5), (0.5, 0.7), (math.inf, math.inf), (0.0, 0.0)])
def test_reverse_refuses_noise_that_does_not_fall(now: float, nxt: float) -> None:
    both = torch.tensor([2.0, now]), torch.tensor([1.0, nxt])
    with pytest.raises(ValueError, match=f"noise must fall.* {now:g} -> {nxt:g}"):
        reverse(Level.from_ratio(both[0]), Level.from_ratio(both[1]))


# The chain as levels.


def test_levels_and_steps_are_inverse_at_any_norm(chain: Chain) -> None:
    t = steps(chain)
    level = chain.level(t)
    torch.testing.assert_close(torch.stack([level.alpha, level.sigma]), torch.stack(jump(chain, t)), rtol=1e-14, atol=0)
    assert torch.equal(chain.step_of(level), t)
    assert torch.equal(chain.step_of(level.scaled(7.0)), t)
    data = chain.level(torch.tensor(0))
    assert (data.alpha, data.sigma) == (1, 0)


def test_the_schedule_of_the_chain_holds_its_levels_bit_for_bit(chain: Chain) -> None:
    t = steps(chain)
    on_time, level = chain.schedule()(t.double() / chain.T), chain.level(t)
    assert torch.equal(on_time.alpha, level.alpha)
    assert torch.equal(on_time.sigma, level.sigma)


def test_a_level_between_two_steps_and_data_are_no_steps(chain: Chain) -> None:
    between = chain.schedule()(torch.tensor([0.5, 0.5005], dtype=F64))
    for level in (between, chain.level(torch.tensor([3, 0])), Level.of(0.0, 1.0)):
        with pytest.raises(ValueError, match="is no level of this chain; draw levels with DiscreteUniform"):
            chain.step_of(level)


@pytest.mark.parametrize("t", [0, 1001])
def test_steps_outside_the_chain_are_refused(chain: Chain, t: int) -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"leaves 1\.\.1000"):
        chain.q_jump(x, torch.tensor([5, t]), x)
    with pytest.raises(ValueError, match=r"leaves 0\.\.1000"):
        chain.level(torch.tensor([-1, 1]))


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, math.nan])
def test_a_beta_that_is_none_is_named(bad: float) -> None:
    with pytest.raises(ValueError, match="beta_2 is"):
        Chain(torch.tensor([0.1, bad, 0.1], dtype=F64))


def test_a_chain_of_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 steps"):
        Chain(torch.tensor([0.1], dtype=F64))
