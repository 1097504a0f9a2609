"""The averages against the closed form of their profile, and the averages made afterwards against tracked ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nirvana.train.ema import Average, PowerEMA, gamma_of, overlap, synthesis_weights, synthesize
from nirvana.train.plan import SNAPSHOTS


@given(st.floats(0.005, 0.28))
def test_gamma_inverts_the_width(sigma_rel: float) -> None:
    gamma = gamma_of(sigma_rel)
    assert math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3)) == pytest.approx(sigma_rel, rel=1e-9)
    assert gamma > 0


def test_gamma_of_the_paper() -> None:
    # Karras et al. 2024, section 3.1: widths 0.05 and 0.10 have gamma 16.97 and 6.94.
    assert [round(gamma_of(width), 2) for width in (0.05, 0.10)] == [16.97, 6.94]
    for width in (0.0, 0.3, -1.0):
        with pytest.raises(ValueError, match="sigma_rel"):
            gamma_of(width)


def path_of_weights(steps: int) -> torch.Tensor:
    walk = torch.randn(steps, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).cumsum(0)
    return walk / math.sqrt(steps) + torch.linspace(0, 2, steps, dtype=torch.float64)[:, None].sqrt()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.sampled_from([0.03, 0.1, 0.2]))
def test_average_is_the_profile(sizes: list[int], sigma_rel: float) -> None:
    walk = path_of_weights(len(sizes))
    ema = PowerEMA({"a": torch.full((3,), 1e3, dtype=torch.float64)}, [sigma_rel])
    ends = torch.tensor(sizes).cumsum(0).double()
    for weights, size, end in zip(walk, sizes, ends, strict=True):
        ema.update({"a": weights}, size, int(end))
    # p(tau) = (gamma+1) tau^gamma / T^(gamma+1), integrated over the images of each step
    edges = (torch.cat([torch.zeros(1).double(), ends]) / ends[-1]) ** (gamma_of(sigma_rel) + 1)
    torch.testing.assert_close(ema.tensors()["a"], edges.diff() @ walk, rtol=1e-10, atol=1e-12)


def test_float32_average_stays_near_the_closed_form() -> None:
    walk = path_of_weights(2000)
    ema = PowerEMA({"a": torch.zeros(3)}, [0.05, 0.1])
    for step, weights in enumerate(walk, start=1):
        ema.update({"a": weights.float()}, 64, 64 * step)
    for profile, sigma_rel in enumerate((0.05, 0.1)):
        edges = torch.linspace(0, 1, 2001, dtype=torch.float64) ** (gamma_of(sigma_rel) + 1)
        torch.testing.assert_close(ema.tensors(profile)["a"].double(), edges.diff() @ walk, rtol=0, atol=1e-6)


def test_overlap_is_the_integral() -> None:
    tau = torch.linspace(0, 5, 200_001, dtype=torch.float64)
    for a, b in (((5.0, 2.0), (3.0, 7.0)), ((2.0, 16.97), (5.0, 6.94)), ((4.0, 1.0), (4.0, 1.0))):
        product = torch.ones_like(tau)
        for end, gamma in (a, b):
            product = product * torch.where(tau <= end, (gamma + 1) * tau**gamma / end ** (gamma + 1), 0.0)
        assert overlap(*a, *b) == pytest.approx(float(torch.trapezoid(product, tau)), rel=1e-3)


def test_synthesis_finds_what_was_tracked() -> None:
    """A kept average is itself; another width is near the one tracked directly, far nearer than any that was kept."""
    steps, wanted = 512, 0.075
    moments = [int(steps * fraction) for fraction in SNAPSHOTS]
    ema, direct = (PowerEMA({"a": torch.zeros(3).double()}, widths) for widths in ([0.1, 0.05], [wanted]))
    kept: list[Average] = []
    for step, weights in enumerate(path_of_weights(steps), start=1):
        ema.update({"a": weights}, 1, step)
        direct.update({"a": weights}, 1, step)
        if step in moments:
            kept += [Average(step, width, {"a": ema.tensors(i)["a"].clone()}) for i, width in enumerate((0.1, 0.05))]
    itself = synthesis_weights([(average.images, average.sigma_rel) for average in kept], steps, 0.05)
    assert itself == pytest.approx([0.0] * 11 + [1.0], abs=1e-6)
    target = direct.tensors()["a"]
    error = float((synthesize(kept, steps, wanted)["a"] - target).norm())
    nearest = min(float((average.tensors["a"] - target).norm()) for average in kept)
    assert error < 0.2 * nearest


def test_what_never_changed_is_reproduced() -> None:
    kept = [Average(at, width, {"a": torch.full((2,), 3.0)}) for at in (10, 100) for width in (0.1, 0.05)]
    torch.testing.assert_close(synthesize(kept, 100, 0.2)["a"], torch.full((2,), 3.0), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="no averages"):
        synthesize([], 100, 0.2)


def test_load_is_in_place_and_complete() -> None:
    ema = PowerEMA({"a": torch.zeros(2), "b": torch.zeros(1)}, [0.1])
    live = ema.tensors()["a"]
    ema.load(0, {"a": torch.ones(2), "b": torch.ones(1)})
    assert torch.equal(live, torch.ones(2))
    with pytest.raises(KeyError):
        ema.load(0, {"a": torch.ones(2)})
