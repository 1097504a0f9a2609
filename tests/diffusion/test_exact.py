"""The oracles themselves: against scores by differentiation, integrals and the limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.exact import BoxDenoiser, DatasetDenoiser, GaussianDenoiser, MixtureDenoiser
from nirvana.diffusion.level import Level

F64 = torch.float64


def gaussian() -> GaussianDenoiser:
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(6, 4, generator=generator, dtype=F64)  # rank 4 of 6: two directions have no variance
    return GaussianDenoiser(torch.randn(2, 3, generator=generator, dtype=F64), root @ root.T)


def mixture() -> MixtureDenoiser:
    generator = torch.Generator().manual_seed(6)
    means = torch.randn(3, 2, 3, generator=generator, dtype=F64)
    return MixtureDenoiser(torch.tensor([1.0, 2.0, 0.5]), means, torch.tensor([0.3, 0.05, 0.0]))


def points() -> DatasetDenoiser:
    return DatasetDenoiser(torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(7), dtype=F64))


def box() -> BoxDenoiser:
    return BoxDenoiser(-1.3, 0.9)


ORACLES = {"gaussian": gaussian, "mixture": mixture, "dataset": points, "box": box}


def state() -> Tensor:
    return torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(8), dtype=F64)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("level", [Level.of(0.6, 0.8), Level.of(1.0, 2.5), Level.of(0.3, 0.1)], ids=str)
def test_tweedie(name: str, level: Level):
    """alpha E[x0 | x] = x + sigma^2 grad log p(x): the denoiser against the derivative of its own density."""
    oracle, x = ORACLES[name](), state().requires_grad_()
    (score,) = torch.autograd.grad(oracle.log_prob(x, level).sum(), x)
    x0 = oracle(x.detach(), level, {}).x0
    assert torch.allclose(level.alpha * x0, x + level.sigma**2 * score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "box"])
def test_density_integrates_to_one(name: str):
    line = torch.linspace(-12, 12, 4001, dtype=F64).reshape(-1, 1)
    oracle = {
        "gaussian": GaussianDenoiser(torch.tensor([0.4]), torch.tensor([[0.7]])),
        "mixture": MixtureDenoiser(torch.tensor([3.0, 1.0]), torch.tensor([[0.4], [-2.0]]), torch.tensor([0.5, 0.1])),
        "box": box(),
    }[name]
    density = oracle.log_prob(line, Level.of(0.8, 0.6)).exp()
    assert float(density.sum() * 24 / 4000) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ORACLES)
def test_limits(name: str):
    oracle, x = ORACLES[name](), state()
    mean = {
        "gaussian": lambda: gaussian().mean,
        "mixture": lambda: (torch.tensor([1, 2, 0.5], dtype=F64).reshape(3, 1, 1) * mixture().means).sum(0) / 3.5,
        "dataset": lambda: points().means.mean(0),
        "box": lambda: torch.full((2, 3), -0.2, dtype=F64),
    }[name]()
    pure = oracle(x, Level.of(0.0, 1.0), {}).x0
    assert torch.allclose(pure, mean.expand_as(x), rtol=0, atol=1e-7)
    on_support = oracle(x, Level.of(0.5, 1e-3), {}).x0  # a point of the distribution
    clean = oracle(0.5 * on_support, Level.of(0.5, 0.0), {}).x0
    assert torch.allclose(clean, on_support, rtol=0, atol=1e-4)
    mixed = oracle(x, Level.from_lam(torch.tensor([math.inf, 0.0, -math.inf, 1.0], dtype=F64)), {}).x0
    assert bool(mixed.isfinite().all())
    assert torch.allclose(mixed[2], mean, rtol=0, atol=1e-7)
    assert torch.allclose(mixed[1:2], oracle(x[1:2], Level.from_lam(0.0), {}).x0, rtol=0, atol=1e-14)


def test_a_mixture_of_one_is_the_gaussian():
    mean = state()[0]
    one = MixtureDenoiser(torch.tensor([2.0]), mean[None], torch.tensor([0.36], dtype=F64))
    same = GaussianDenoiser(mean, 0.36 * torch.eye(6, dtype=F64))
    level = Level.from_lam(torch.tensor([-1.0, 0.0, 0.4, 2.0], dtype=F64)).scaled(3.0)
    assert torch.allclose(one(state(), level, {}).x0, same(state(), level, {}).x0, rtol=0, atol=1e-13)
    assert torch.allclose(one.log_prob(state(), level), same.log_prob(state(), level), rtol=0, atol=1e-12)


def test_transport_solves_the_probability_flow():
    """d/d lam of x/sigma along the flow is (alpha/sigma) E[x0 | x] (Lu et al. 2022): checked by central differences."""
    oracle, x, lam, h = gaussian(), state(), 0.3, 1e-4
    for norm in (1.0, 4.0):
        now = Level.from_lam(lam).scaled(norm)
        above, below = (Level.from_lam(lam + d).scaled(norm * 2.0) for d in (h, -h))
        slope = (oracle.transport(x, now, above) / above.sigma - oracle.transport(x, now, below) / below.sigma) / (
            2 * h
        )
        expected = now.alpha / now.sigma * oracle(x, now, {}).x0
        assert torch.allclose(slope, expected, rtol=0, atol=1e-6)


def test_transport_composes_and_inverts():
    oracle, x = gaussian(), state()
    a, b, c = Level.of(0.0, 1.0), Level.of(0.5, 0.5), Level.of(1.0, 0.1)
    assert torch.allclose(oracle.transport(oracle.transport(x, a, b), b, c), oracle.transport(x, a, c), atol=1e-12)
    assert torch.allclose(oracle.transport(oracle.transport(x, a, b), b, a), x, atol=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_the_state_keeps_its_dtype(name: str):
    assert ORACLES[name]()(state().float(), Level.of(0.5, 0.5), {}).x0.dtype == torch.float32


def test_levels_per_channel_are_refused():
    for make in ORACLES.values():
        with pytest.raises(ValueError, match="one level per item"):
            make()(state(), Level.from_lam(torch.zeros(4, 2, dtype=F64)), {})


@pytest.mark.parametrize("name", ORACLES)
def test_the_derivative_is_finite_at_pure_noise(name: str):
    x = state().requires_grad_()
    (slope,) = torch.autograd.grad(ORACLES[name]()(x, Level.of(0.0, 1.0), {}).x0.sum(), x, materialize_grads=True)
    assert torch.allclose(slope, torch.zeros_like(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("lam", "x", "mean", "log_prob"),
    [
        (-12, 2.5, -0.19999380458283184, -4.0439416053707319),
        (-2, 60.0, 0.77778252498965331, -1829.4008403540285),
        (-0.05, -1.1, -0.60200831596178848, -1.3829415976632424),
        (0.2, 2.5, 0.65909074404278793, -6.6485932458642501),
        (1, -8.0, -1.2813622423704702, -197.43625589541352),
        (3, 0.3, 0.30037158270365723, -0.78721951779540482),
        (3, -0.19, -0.19023533571231625, -0.78721951779540482),
        (7, 2.5, 0.89999948029522582, -1539344.6611312296),
        (7, -1.3, -1.2992726198281625, -1.4820771616503027),
    ],
)
def test_the_box_to_the_last_digits(lam: float, x: float, mean: float, log_prob: float):
    """Against integrals with 40 digits: flat and steep, in the box, at its edge and far outside."""
    level, at = Level.from_lam(float(lam)), torch.tensor([[x]], dtype=F64)
    assert float(box()(at, level, {}).x0) == pytest.approx(mean, abs=2e-14)
    assert float(box().log_prob(at, level)) == pytest.approx(log_prob, rel=1e-14)


def test_the_box_has_no_seams_and_no_overflow():
    """Where one formula takes over from the other (k = 1, k u = 50), and 1e9 standard deviations away."""
    oracle = box()
    for lam in (-0.0953101799, -4.0):  # k = 1 and k = 0.02 of the half-width 1.1
        x = torch.linspace(-90, 90, 100001, dtype=F64)[:, None]
        for near in (Level.from_lam(lam - 1e-9), Level.from_lam(lam + 1e-9)):
            x0 = oracle(x, near, {}).x0
            assert bool((x0.diff(dim=0) >= -1e-14).all())
            assert torch.allclose(x0, oracle(x, Level.from_lam(lam), {}).x0, rtol=0, atol=1e-7)
    far = torch.tensor([[-1e9], [1e9]], dtype=F64)
    for lam in (-20.0, 0.0, 20.0):
        x0, level = oracle(far, Level.from_lam(lam), {}).x0, Level.from_lam(lam)
        assert bool(((x0 >= -1.3 - 1e-15) & (x0 <= 0.9 + 1e-15)).all()) and bool(
            oracle.log_prob(far, level).isfinite().all()
        )


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match="low must be below high"):
        BoxDenoiser(1.0, 1.0)


def test_what_is_free_given_what_is_known():
    """The textbook case; and log p(free | known) differs from log p(both) by what does not depend on the free part."""
    pair = GaussianDenoiser(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=F64))
    given = pair.given(torch.tensor([True, False]), torch.tensor([1.5]))
    assert torch.allclose(given.mean, torch.tensor([0.9 * 1.5], dtype=F64), rtol=0, atol=1e-15)
    assert torch.allclose(given.cov, torch.tensor([[0.19]], dtype=F64), rtol=0, atol=1e-15)
    known, clean = torch.tensor([[True, False, True], [False, False, True]]), Level.of(1.0, 0.0)
    means = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(2), dtype=F64)
    mixture = MixtureDenoiser(torch.tensor([0.2, 0.5, 0.3]), means, torch.tensor([0.5, 0.8, 1.1]))
    x = torch.where(known, state()[:1], state())
    wide = GaussianDenoiser(means[0], gaussian().cov + torch.eye(6, dtype=F64))
    for law in (wide, mixture):
        conditional = law.given(known, x[0][known])
        extra = law.log_prob(x, clean) - conditional.log_prob(x[:, ~known], clean)
        assert torch.allclose(extra, extra[:1].expand_as(extra), rtol=0, atol=1e-10)
