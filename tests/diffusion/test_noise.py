"""Noise: per-item streams, unit variance, a Brownian path that refines."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Between, SeededNoise, angle_between, sample_rng, spherical

F64 = torch.float64
HALF, NEXT = Level.from_lam(0.0), Level.from_lam(0.7)


def of_snr(snr: float) -> Level:
    return Level.of(math.sqrt(snr), 1.0)


def draws(noise: SeededNoise | Between) -> list[Tensor]:
    walk = [Level.from_lam(lam) for lam in (-math.inf, -1.0, 0.5, math.inf)]
    paths = [noise.path(now, nxt) for now, nxt in pairwise(walk)]
    return [noise.initial(), *paths, noise.fresh("churn"), noise.fresh(("repaint", 3)), noise.initial()]


@pytest.mark.parametrize("keep_path", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 4, 4)])
def test_an_item_is_the_same_alone_and_in_any_batch(shape: tuple[int, ...], keep_path: bool):
    seeds = [7, 0, 2**63 - 1, 8]
    together = draws(SeededNoise(seeds, shape, keep_path=keep_path))
    for i, seed in enumerate(seeds):
        alone = draws(SeededNoise([seed], shape, keep_path=keep_path))
        for batch, item in zip(together, alone, strict=True):
            assert batch.shape == (4, *shape) and torch.equal(batch[i], item[0])
    reordered = draws(SeededNoise(seeds[::-1], shape, keep_path=keep_path))
    assert all(torch.equal(a.flip(0), b) for a, b in zip(together, reordered, strict=True))


def test_all_draws_differ_and_are_unit_normals():
    noise = SeededNoise([1, 2, 3], (2000,), dtype=F64)
    rows = torch.cat([*draws(noise)[:-1], noise.path(HALF, NEXT), noise.path(HALF, NEXT)])
    covariance = rows @ rows.T / 2000
    assert float((covariance - torch.eye(len(rows))).abs().max()) < 0.12
    assert float(rows.mean(1).abs().max()) < 0.1


def test_initial_and_fresh_repeat_and_do_not_disturb_the_path():
    one, other = SeededNoise([5], (6,)), SeededNoise([5], (6,))
    first = one.initial(), one.fresh(1), one.fresh("1"), one.fresh((1, "a"))
    one.path(HALF, NEXT)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first, (one.initial(), one.fresh(1), one.fresh("1"), one.fresh((1, "a"))), strict=True)
    )
    assert len({tuple(draw.flatten().tolist()) for draw in first}) == 4
    other.path(HALF, NEXT)
    assert torch.equal(one.path(HALF, NEXT), other.path(HALF, NEXT))


def test_a_kept_path_walked_forward_is_the_unkept_one():
    walk = [of_snr(s) for s in (0.0, 0.3, 1.0, 50.0, math.inf)]
    kept, free = (SeededNoise([3, 4], (5,), dtype=F64, keep_path=k) for k in (True, False))
    for now, nxt in pairwise(walk):
        assert torch.allclose(kept.path(now, nxt), free.path(now, nxt), rtol=0, atol=1e-13)


def test_increments_add_up_when_the_walk_is_refined():
    points = [0.0, 0.2, 0.7, 1.0, 3.0, 3.5, 40.0, 1e6]
    noise = SeededNoise([11, 12], (7,), dtype=F64, keep_path=True)

    def increment(a: float, b: float) -> Tensor:
        return noise.path(of_snr(a), of_snr(b)) * math.sqrt(b - a)

    coarse = [increment(a, b) for a, b in ((0.0, 1.0), (1.0, 40.0), (40.0, 1e6))]
    fine = [increment(a, b) for a, b in pairwise(points)]
    assert torch.allclose(coarse[0], fine[0] + fine[1] + fine[2], rtol=0, atol=1e-12)
    assert torch.allclose(coarse[1], fine[3] + fine[4] + fine[5], rtol=0, atol=1e-12)
    assert torch.allclose(increment(0.2, 3.5), sum(fine[1:5], torch.zeros(())), rtol=0, atol=1e-12)
    assert torch.allclose(noise.path(of_snr(1.0), of_snr(0.2)), -noise.path(of_snr(0.2), of_snr(1.0)), atol=1e-12)
    assert torch.equal(increment(0.0, 1.0), coarse[0])


def test_covariance_of_a_refined_path_is_brownian():
    """Points revealed out of order, inside kept intervals, before the first, beyond the last: Cov W(a) W(b) = min."""
    order, n = [1.0, 4.0, 2.0, 0.25, 9.0, 3.0], 20000
    noise = SeededNoise([0], (n,), dtype=F64, keep_path=True)
    zero = of_snr(0.0)
    first = noise.path(of_snr(1.0), of_snr(4.0))  # W(1) itself has to be drawn, with variance 1
    w = torch.cat([noise.path(zero, of_snr(s)) * math.sqrt(s) for s in order])
    s = torch.tensor(order, dtype=F64)
    expected = torch.minimum(s[:, None], s[None])
    error = (w @ w.T / n - expected) / torch.sqrt(s[:, None] * s[None])
    assert float(error.abs().max()) < 0.04
    assert torch.allclose(first, (w[1:2] - w[0:1]) / math.sqrt(3), atol=1e-12)


def test_towards_the_clean_end_a_unit_normal_stands_in():
    noise = SeededNoise([9], (3000,), keep_path=True)
    stand_in = noise.path(HALF, Level.from_lam(math.inf))
    assert bool(stand_in.isfinite().all()) and float(stand_in.std()) == pytest.approx(1, abs=0.05)


def test_dtype_and_device():
    assert SeededNoise([1], (2,)).path(HALF, NEXT).dtype == torch.float32
    for keep_path in (False, True):
        noise = SeededNoise([1], (2,), dtype=F64, device="meta", keep_path=keep_path)
        for draw in (noise.initial(), noise.fresh("x"), noise.path(HALF, NEXT)):
            assert draw.dtype == F64 and draw.device.type == "meta"
    assert SeededNoise([1], (2,), keep_path=True).path(HALF, NEXT).dtype == torch.float32


def test_a_kept_path_takes_one_level():
    per_item = Level.from_lam(torch.zeros(2, dtype=F64))
    with pytest.raises(ValueError, match="one level for the whole batch"):
        SeededNoise([1, 2], (2,), keep_path=True).path(per_item, NEXT)
    assert SeededNoise([1, 2], (2,)).path(per_item, NEXT).shape == (2, 2)


def test_a_kept_path_takes_one_level_on_either_side():
    per_item = Level(torch.tensor([0.6, 0.8], dtype=F64), torch.tensor([0.8, 0.6], dtype=F64))
    noise = SeededNoise([1, 2], (2,), keep_path=True)
    for now, nxt in ((per_item, NEXT), (HALF, per_item)):
        with pytest.raises(ValueError, match="one level"):
            noise.path(now, nxt)


def test_from_the_clean_end_a_unit_normal_stands_in_too():
    clean = Level.of(1.0, 0.0)
    for now, nxt in ((clean, HALF), (HALF, clean)):
        noise = SeededNoise([9], (3000,), keep_path=True)
        drawn = noise.path(now, nxt)
        assert drawn.isfinite().all() and abs(float(drawn.std()) - 1) < 0.06


@pytest.mark.parametrize("seed", [-1, 2**63, True])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(ValueError, match="out of range"):
        SeededNoise([0, seed], (2,))
    with pytest.raises(ValueError, match="out of range"):
        sample_rng(seed, 0, "x")


def test_sample_rng_is_a_function_of_all_three():
    def first(seed: int, index: int, stream: str) -> float:
        return float(torch.rand((), generator=sample_rng(seed, index, stream), dtype=F64))

    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (11, 1, "a"), (1, 11, "a"), (2**62, 10**12, "a")]
    assert [first(*key) for key in keys] == [first(*key) for key in keys]
    assert len({first(*key) for key in keys}) == len(keys)
    # Fixed for ever: runs and pictures are reproduced from it.
    assert sample_rng(7, 3, "noise").initial_seed() == EXPECTED_SEED


EXPECTED_SEED = int.from_bytes(bytes.fromhex("19f3b77e4f9127f7"), "little")


def test_on_the_way_between_two_noises_every_part_is_a_unit_normal_and_the_ends_are_exact():
    parts = [0.0, 0.3, 0.5, 1.0]
    start, end = (SeededNoise([seed] * 4, (20_000,)) for seed in (1, 2))
    way = draws(Between(start, end, parts))
    ends = (draws(SeededNoise([seed], (20_000,))) for seed in (1, 2))
    for drawn, first, last in zip(way, *ends, strict=True):
        assert torch.equal(drawn[0], first[0]) and torch.equal(drawn[3], last[0])
        torch.testing.assert_close(drawn[2], (first[0] + last[0]) / math.sqrt(2))
        torch.testing.assert_close(drawn.std(1), torch.ones(4), rtol=0.03, atol=0)
    # Even steps along the arc: the angle to the start grows with the part.
    likeness = float(torch.cosine_similarity(way[0][1], way[0][0], dim=0))
    assert likeness == pytest.approx(math.cos(0.15 * math.pi), abs=0.03)


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.99])
def test_between_normals_that_are_alike_every_part_is_a_unit_normal(correlation: float):
    start, other = (SeededNoise([seed], (40_000,), dtype=F64).initial() for seed in (1, 2))
    end = correlation * start + math.sqrt(1 - correlation**2) * other
    angle = angle_between(start, end)
    assert float(angle) == pytest.approx(math.acos(correlation), abs=0.02)
    parts = [0.0, 0.2, 0.5, 1.0]
    way = spherical(start.expand(4, -1), end.expand(4, -1), parts, angle.expand(4))
    assert torch.equal(way[0], start[0]) and torch.equal(way[3], end[0])
    torch.testing.assert_close(way.std(1), torch.ones(4, dtype=F64), rtol=0.02, atol=0)
    torch.testing.assert_close(angle_between(start, way[1:2]), 0.2 * angle, rtol=5e-3, atol=0)


def test_between_equals_there_is_nothing_else_and_opposites_pass_through_nothing():
    x = SeededNoise([1], (100,)).initial()
    torch.testing.assert_close(spherical(x, x, [0.3], angle_between(x, x)), x)
    torch.testing.assert_close(spherical(x, -x, [0.5], angle_between(x, -x)), torch.zeros_like(x))
