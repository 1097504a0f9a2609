"""How well pictures fit their texts: a ridge map from the features of pictures to those of texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64


@dataclass(frozen=True, eq=False)
class RidgeMap:
    """Features of pictures -> the place in the space of texts where their text should be. Make one with `fit_ridge`."""

    mean: Float64[np.ndarray, "d"]
    deviation: Float64[np.ndarray, "d"]
    centre: Float64[np.ndarray, "e"]
    weight: Float64[np.ndarray, "d e"]

    def __call__(self, pictures: Float[np.ndarray, "n d"]) -> Float64[np.ndarray, "n e"]:
        """ValueError where the features have another width than those it was fitted on."""
        if pictures.shape[1] != len(self.mean):
            raise ValueError(
                f"features of width {pictures.shape[1]}, fitted on {len(self.mean)}; take both from one space"
            )
        return (pictures - self.mean) / self.deviation @ self.weight + self.centre

    def scores(self, pictures: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n e"]) -> Float64[np.ndarray, "n"]:
        """The cosine of each picture's mapped feature and its text's, both less the mean of the texts of the fit."""
        return np.einsum("ij,ij->i", _unit(self(pictures) - self.centre), _unit(texts - self.centre))

    def ranks(self, pictures: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m e"]) -> np.ndarray:
        """For each picture the texts by their cosine, best first: (n, m) places."""
        found = _unit(self(pictures) - self.centre) @ _unit(texts - self.centre).T
        return np.argsort(-found, axis=1, kind="stable")


def fit_ridge(
    pictures: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m e"], decay: float | None = None
) -> RidgeMap:
    """W = (X^T X + decay n I)^-1 X^T Y on standardised X and centred Y; with n < d by the equal X^T (X X^T + ..)^-1 Y.

    decay None: the one of nine between 1e-3 and 10 whose leave-one-out error, exact from one eigendecomposition, is
    smallest. ValueError for fewer than three pairs, unequal numbers, or a decay that is not above 0.
    Source: Hoerl & Kennard 1970; Golub, Heath, Wahba 1979, section 2 (leave-one-out).
    """
    n = len(pictures)
    if n != len(texts) or n < 3:
        raise ValueError(f"{n} pictures and {len(texts)} texts; at least 3 pairs are needed")
    if decay is not None and not decay > 0:
        raise ValueError(f"decay {decay} is not above 0")
    mean, deviation = pictures.mean(axis=0, dtype=np.float64), np.maximum(pictures.std(axis=0, dtype=np.float64), 1e-9)
    centre = texts.mean(axis=0, dtype=np.float64)
    x, y = (pictures - mean) / deviation, texts - centre
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    projected = left.T @ y
    candidates = np.geomspace(1e-3, 10, 9) if decay is None else np.array([decay])

    def gain(strength: float) -> Float64[np.ndarray, "r"]:
        return singular**2 / (singular**2 + strength * n)

    def left_out(strength: float) -> float:
        fitted = left @ (gain(strength)[:, None] * projected)
        lever = (left**2 @ gain(strength)) + 1 / n
        return float((((y - fitted) / (1 - lever)[:, None]) ** 2).sum())

    best = float(min(candidates, key=left_out)) if len(candidates) > 1 else float(candidates[0])
    weight = right.T @ ((singular / (singular**2 + best * n))[:, None] * projected)
    return RidgeMap(mean, deviation, centre, weight)


def recall_at(ranks: np.ndarray, own: np.ndarray, k: int) -> float:
    """R@k: the share of pictures whose own text, `own[i]`, is among their k best. ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"recall at {k}; k is at least 1")
    return float((ranks[:, :k] == own[:, None]).any(axis=1).mean())


def median_rank(ranks: np.ndarray, own: np.ndarray) -> float:
    """The median place, from 1, of the own text among all."""
    return float(np.median((ranks == own[:, None]).argmax(axis=1) + 1))


def _unit(x: Float[np.ndarray, "n e"]) -> Float64[np.ndarray, "n e"]:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
