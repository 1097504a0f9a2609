"""Every planted fault is failed by the proof that is for it, and the sound one beside it passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conftest import Unchecked
from nirvana.diffusion import Schedule, uniform
from nirvana.verify import Finding, Job, run
from nirvana.verify.distribution import distribution
from nirvana.verify.endpoints import endpoints, grid, refusals
from nirvana.verify.moments import moments
from nirvana.verify.order import full_range, primed_order, round_trip, started_order
from nirvana.verify.walks import AnySolver, Broken
from nirvana.verify.weak import weak_order
from verify import faulty_solvers as made

COUNTS = (1, 2, 5)
FLOW = "rectified-flow"


def in_order(solver: AnySolver) -> Finding:
    return primed_order(solver, "it", FLOW, "uneven", 256, early=True)


def in_moments(solver: AnySolver) -> Finding:
    return moments(solver, "it", FLOW, "uneven", 128, early=True)


def in_expectations(solver: AnySolver) -> Finding:
    found = weak_order(solver, "it", FLOW, "uneven", 64, early=True)
    assert found is not None
    return found


def at_the_ends(solver: AnySolver) -> Finding:
    return endpoints(solver, "it", FLOW, COUNTS)


SOUND = [
    (in_order, made.Euler, 1.0),
    (in_order, made.Heun, 2.0),
    (in_order, made.AnyStride, 2.0),
    (in_moments, made.Churned, 2.0),
    (in_moments, made.Posterior, 1.0),
    (in_expectations, made.Churned, 2.0),
    (in_expectations, made.Posterior, 1.0),
]


@pytest.mark.parametrize(("proof", "solver", "order"), SOUND, ids=lambda v: getattr(v, "__name__", v))
def test_the_sound_ones_pass(proof: Callable[[AnySolver], Finding], solver: Callable[[], AnySolver], order: float):
    found, ends = proof(solver()), at_the_ends(solver())
    assert found.passed and found.measured == pytest.approx(order, abs=0.15), found
    assert ends.passed, ends.detail
    assert refusals(solver(), "it", FLOW).passed


FAULTS = [
    (in_order, made.Boasting, "error"),
    (in_order, made.StageAtTheWrongSigma, ""),
    (in_order, made.UniformStride, ""),
    (in_expectations, made.ChurnAfterTheEvaluation, "error"),
    (in_moments, made.ChurnWithOneKey, "covariance"),
    (in_moments, made.WrongVariance, "covariance"),
    (at_the_ends, made.CallsOneTooMany, "n = 1: 1 network calls, declared 2"),
    (at_the_ends, made.StageAtSigmaZero, "the network is called at sigma = 0"),
    (at_the_ends, made.RepeatsALevel, "do not go from each level to the next"),
    (at_the_ends, made.InPlace, "changes the x it is given in place"),
    (at_the_ends, made.BatchMean, "from the same in a batch"),
]


@pytest.mark.parametrize(("proof", "solver", "seen"), FAULTS, ids=lambda v: getattr(v, "__name__", v))
def test_a_planted_fault_fails(proof: Callable[[AnySolver], Finding], solver: Callable[[], AnySolver], seen: str):
    found = proof(solver())
    assert not found.passed
    assert seen in found.detail


def test_a_uniform_stride_is_seen_on_uneven_steps_only():
    assert primed_order(made.UniformStride(), "it", FLOW, "lam", 256, early=True).passed
    assert primed_order(made.UniformStride(), "it", FLOW, "uneven", 256, early=True).measured == pytest.approx(
        1, abs=0.1
    )


def test_started_round_trip_and_full_range_fail_too():
    for proof in (started_order, round_trip):
        assert proof(made.Heun(), "it", FLOW, "uneven", 256, early=True).passed
        assert not proof(made.StageAtTheWrongSigma(), "it", FLOW, "uneven", 256, early=True).passed
    assert full_range(made.Heun(), "it", FLOW, 256).passed
    found = full_range(made.WrongEnd(), "it", FLOW, 256)
    assert not found.passed and found.measured == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("proof", "solver", "message"),
    [
        (in_moments, made.OwnNumbers, "not affine"),
        (in_order, made.SecretlyStochastic, "declared deterministic and draws noise"),
        (in_order, made.Raises, "raises ZeroDivisionError: float division by zero"),
    ],
    ids=lambda v: getattr(v, "__name__", v),
)
def test_what_no_solver_may_do_is_said(
    proof: Callable[[AnySolver], Finding], solver: Callable[[], AnySolver], message: str
):
    with pytest.raises(Broken, match=message):
        proof(solver())


def test_a_broken_solver_is_a_finding_that_failed():
    (found,) = run(Job("order", "verify.faulty_solvers:Raises", FLOW, quick=True))
    assert not found.passed and "ZeroDivisionError" in found.detail and found.setting == FLOW


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (made.one_too_many, "1 steps were asked for, 2 came"),
        (made.repeats_the_last, "not strictly monotone"),
        (made.ends_above_zero, "the last level has sigma = 0.0001, not 0"),
        (made.none_is_one, "n = 0 is not refused"),
    ],
)
def test_a_faulty_grid_fails(make: Callable[[Schedule, int], list], seen: str):
    counts = (2, 5) if make is made.repeats_the_last else COUNTS
    assert grid("uniform", uniform, FLOW, counts).passed
    found = grid("it", make, FLOW, counts)
    assert not found.passed and seen in found.detail


def test_a_solver_on_a_faulty_grid_does_not_pass():
    with pytest.raises(Broken, match="not strictly monotone"):
        endpoints(made.Euler(), "it", FLOW, (5,), make=made.repeats_the_last)


def test_a_biased_sampler_is_told_from_the_mixture(unchecked: Unchecked):
    assert unchecked(distribution, made.AnyStride(), "it", "cosine", 20).passed
    assert not unchecked(distribution, made.WrongVariance(), "it", "cosine", 20).passed
