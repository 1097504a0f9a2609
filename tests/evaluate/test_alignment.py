from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from nirvana.evaluate.alignment import fit_ridge, median_rank, recall_at


def pairs(n: int, seed: int, noise: float, d: int = 12, e: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.linspace(0.1, 3, d) + 2
    w = np.random.default_rng(99).normal(size=(d, e))
    return x, x @ w + noise * rng.normal(size=(n, e)) + 7


@pytest.mark.parametrize("n", [40, 8])  # more pairs than features, and fewer
def test_is_the_ridge_of_scikit_learn(n: int) -> None:
    x, y = pairs(n, 0, 0.5)
    found = fit_ridge(x, y, decay=0.3)
    other = Ridge(alpha=0.3 * n).fit((x - found.mean) / found.deviation, y)
    fresh, _ = pairs(20, 1, 0)
    np.testing.assert_allclose(found(fresh), other.predict((fresh - found.mean) / found.deviation), rtol=1e-8)


def test_the_decay_is_chosen_by_leaving_each_pair_out() -> None:
    x, y = pairs(14, 2, 4.0)
    chosen = fit_ridge(x, y)
    # the scale of the features is that of all pairs, as in the closed form
    z = (x - chosen.mean) / chosen.deviation

    def error(decay: float) -> float:
        total = 0.0
        for i in range(len(z)):
            kept = np.arange(len(z)) != i
            # fitted on one pair fewer: the penalty stays that of n pairs
            other = Ridge(alpha=decay * len(z)).fit(z[kept], y[kept])
            total += ((other.predict(z[i : i + 1])[0] - y[i]) ** 2).sum()
        return total

    best = min(np.geomspace(1e-3, 10, 9), key=error)
    np.testing.assert_allclose(chosen.weight, fit_ridge(x, y, decay=float(best)).weight)


def test_texts_are_ranked_and_scored() -> None:
    ridge = fit_ridge(*pairs(200, 3, 0.1))
    x, y = pairs(50, 4, 0.1)
    own = np.arange(50)
    ranks = ridge.ranks(x, y)
    assert recall_at(ranks, own, 1) > 0.9 and median_rank(ranks, own) == 1
    assert recall_at(ranks, own[::-1], 1) < 0.2 and median_rank(ranks, own[::-1]) > 10
    assert recall_at(ranks, own, 50) == 1
    assert ridge.scores(x, y).mean() > 0.95
    assert ridge.scores(x, y[::-1]).mean() < 0.3


def test_what_cannot_be_fitted_is_said() -> None:
    x, y = pairs(9, 5, 0.1)
    ridge = fit_ridge(x, y)
    with pytest.raises(ValueError, match="9 pictures and 8 texts"):
        fit_ridge(x, y[:8])
    with pytest.raises(ValueError, match="not above 0"):
        fit_ridge(x, y, decay=0.0)
    with pytest.raises(ValueError, match="width 3, fitted on 12"):
        ridge(x[:, :3])
    with pytest.raises(ValueError, match="at least 1"):
        recall_at(ridge.ranks(x, y), np.arange(9), 0)
