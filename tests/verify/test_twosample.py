"""The two-sample tests: uniform where both are alike, small where they are not, and equal to what libraries say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from nirvana.verify.distribution import calibration
from nirvana.verify.twosample import _logistic, classifier_test, even_ranks, kernel_test, uniformity

F64 = torch.float64
PLACES = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-1.0, 1.0]], dtype=F64)


def draws(seed: int, n: int = 400, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)


def features(x: Tensor) -> Tensor:
    return torch.cat([x, x.square().sum(1, keepdim=True)], 1)


def test_p_values_are_uniform_where_both_are_alike():
    pairs = [(draws(2 * i), draws(2 * i + 1)) for i in range(300)]
    kernel = torch.tensor([kernel_test(x, y, PLACES, 1.5) for x, y in pairs])
    classifier = torch.tensor([classifier_test(features(x), features(y)) for x, y in pairs])
    for p in (kernel, classifier):
        assert uniformity(p) > 0.01
        assert 0.01 < float((p < 0.05).double().mean()) < 0.1


def test_p_values_are_small_where_they_are_not():
    x, y = draws(1), draws(2, scale=1.2)
    assert kernel_test(x, y, PLACES, 1.5) < 1e-3
    assert classifier_test(features(draws(1, 2000)), features(draws(2, 2000, 1.2))) < 1e-3


def test_the_tests_are_calibrated_on_the_mixture():
    assert calibration(20).passed


def test_the_kernel_statistic_is_chi_squared():
    x, y = draws(1), draws(2, scale=1.05)
    z = (torch.exp(-(torch.cdist(x, PLACES) ** 2) / 4.5) - torch.exp(-(torch.cdist(y, PLACES) ** 2) / 4.5)).numpy()
    statistic = len(z) * z.mean(0) @ np.linalg.solve(np.cov(z.T), z.mean(0))
    assert kernel_test(x, y, PLACES, 1.5) == pytest.approx(scipy.stats.chi2.sf(statistic, 3), rel=1e-6)


def test_the_regression_is_the_one_of_scikit_learn():
    x, labels = torch.cat([draws(1), draws(2, scale=1.5)]), torch.cat([torch.ones(400), torch.zeros(400)]).to(F64)
    theirs = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10).fit(features(x).numpy(), labels.numpy())
    assert _logistic(features(x), labels).numpy() == pytest.approx(theirs.coef_[0], abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.2])
def test_uniformity_is_kolmogorovs(shift: float):
    p = torch.rand(200, generator=torch.Generator().manual_seed(4), dtype=F64) ** (1 + shift)
    theirs = scipy.stats.kstest(p.numpy(), "uniform").pvalue
    assert uniformity(p) == pytest.approx(theirs, abs=0.01)
    assert uniformity(torch.full((20,), 0.01)) < 1e-6
    assert uniformity((torch.arange(20) + 0.5) / 20) == 1.0


def test_even_ranks_is_pearsons_test():
    ranks = torch.randint(0, 8, (400,), generator=torch.Generator().manual_seed(3))
    seen = np.bincount(ranks.numpy(), minlength=9)
    assert even_ranks(ranks, 8) == pytest.approx(scipy.stats.chisquare(seen).pvalue, rel=1e-5)  # none has rank 8
    many = [even_ranks(torch.randint(0, 9, (400,), generator=torch.Generator().manual_seed(i)), 8) for i in range(300)]
    assert uniformity(torch.tensor(many)) > 0.01
