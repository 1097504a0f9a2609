from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from nirvana.data import open_data
from nirvana.evaluate.classes import fit_classifier


def test_reads_real_pictures_and_counts_what_it_was_not_shown() -> None:
    train, test = open_data("digits"), open_data("digits:test")
    assert train.labels is not None and test.labels is not None
    x, y = (data.images.reshape(len(data), -1).astype(np.float32) for data in (train, test))
    found = fit_classifier(x, train.labels, 10)
    right = float((found(y) == test.labels).mean())
    assert right > 0.93
    assert found.accuracy == pytest.approx(right, abs=0.03)


def test_is_the_optimum_that_scikit_learn_finds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    x = (rng.normal(size=(300, 4)) + np.eye(3, 4)[labels]).astype(np.float32)
    found = fit_classifier(x, labels, 3)
    fit = np.arange(300) % 5 != 4
    # its objective is sum of losses + |W|^2 / (2 C)
    other = LogisticRegression(C=1 / (1e-3 * fit.sum()), max_iter=1000, tol=1e-8)
    other.fit((x[fit] - found.mean) / found.deviation, labels[fit])
    np.testing.assert_allclose(found.weight - found.weight.mean(axis=1, keepdims=True), other.coef_.T, atol=0.02)
    assert found.accuracy == pytest.approx(np.mean(found(x[~fit]) == labels[~fit]))


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(ValueError, match="2 and 10 are needed"):
        fit_classifier(np.zeros((9, 2), np.float32), np.zeros(9, np.int64), 2)
