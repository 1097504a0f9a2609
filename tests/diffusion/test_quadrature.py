"""Moments and weights against quadrature in 50 digits; nodes at infinity."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath
import pytest

from diffusion.solver.parts import tensor
from nirvana.diffusion.quadrature import exponential_moments, lagrange_weights

mpmath.mp.dps = 50


def kernel(H: float, u: mpmath.mpf) -> mpmath.mpf:
    return mpmath.mpf(H) * mpmath.exp(-mpmath.mpf(H) * (1 - u))


@pytest.mark.parametrize("H", [1e-300, 1e-9, 1e-3, 0.3, 1.99, 2.01, 7.0, 60.0, 800.0, -1e-9, -0.3, -1.99, -2.01, -30.0])
def test_moments_are_the_integrals_to_the_last_digits(H: float):
    for k, found in enumerate(exponential_moments(tensor(H), 5)):
        # k! H phi_{k+1}(-H) as a confluent hypergeometric function, which needs no quadrature
        expected = mpmath.mpf(H) * mpmath.hyp1f1(1, k + 2, -mpmath.mpf(H)) / (k + 1)
        assert float(found) == pytest.approx(float(expected), rel=1e-13 if abs(H) < 2 else 2e-12, abs=0)
    assert float(exponential_moments(tensor(0.7), 3)[2]) == pytest.approx(
        float(mpmath.quad(lambda u: kernel(0.7, u) * u**2, [0, 1])), rel=1e-14
    )


def by_quadrature(H: float, nodes: Sequence[float]) -> list[float]:
    out = []
    for j, s in enumerate(nodes):
        others = [mpmath.mpf(o) for i, o in enumerate(nodes) if i != j]

        def basis(u: mpmath.mpf, s: float = s, others: list[mpmath.mpf] = others) -> mpmath.mpf:
            return mpmath.fprod((u - o) / (mpmath.mpf(s) - o) for o in others)

        out.append(float(mpmath.quad(lambda u, basis=basis: kernel(H, u) * basis(u), [0, 1])))
    return out


@pytest.mark.parametrize(
    ("H", "nodes"),
    [
        (0.8, [0.0]),
        (1e-6, [0.0, -0.37]),
        (0.05, [0.0, -2.3, -2.9]),
        (2.7, [0.0, -0.61, -1.9, 1.0]),
        (-0.9, [0.0, -0.2, -1.4, -3.1]),
        (6.0, [-0.8, -1.3, 1.0]),
        (0.4, [0.0, -1.1, -1.8, -3.0, 1.0]),
    ],
)
def test_weights_are_the_integrals_of_the_lagrange_basis(H: float, nodes: list[float]):
    found = lagrange_weights([tensor(s) for s in nodes], exponential_moments(tensor(H), len(nodes)))
    expected = by_quadrature(H, nodes)
    assert [float(w) for w in found] == pytest.approx(expected, rel=1e-12, abs=1e-13 * max(map(abs, expected)))


def test_a_node_at_infinity_does_not_count():
    moments = exponential_moments(tensor(0.8), 3)
    with_it = lagrange_weights([tensor(0.0), tensor(-1.2), tensor(-math.inf)], moments)
    without = lagrange_weights([tensor(0.0), tensor(-1.2)], moments[:2])
    assert [float(w) for w in with_it] == pytest.approx([*map(float, without), 0.0], rel=1e-15)
