"""A small classifier of any data set with labels: which classes samples show, and whether they show what was asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch.nn.functional import cross_entropy

_ITERATIONS = 100
_DECAY = 1e-3


@runtime_checkable
class Classifier(Protocol):
    """Features, one row a picture, to the likeliest class of each. accuracy: counted on pictures kept apart."""

    @property
    def accuracy(self) -> float: ...

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Int64[np.ndarray, "n"]: ...


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Softmax regression on standardised features. Make one with `fit_classifier`."""

    mean: Float[np.ndarray, "d"]
    deviation: Float[np.ndarray, "d"]
    weight: Float[np.ndarray, "d k"]
    bias: Float[np.ndarray, "k"]
    accuracy: float

    def __call__(self, features: Float[np.ndarray, "n d"]) -> Int64[np.ndarray, "n"]:
        scores = (features - self.mean) / self.deviation @ self.weight + self.bias
        return scores.argmax(axis=1).astype(np.int64)


def fit_classifier(
    features: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, "n"], classes: int
) -> LinearClassifier:
    """Fit on four fifths of the rows and count right answers on every fifth, which is kept apart.

    argmin mean cross entropy + decay/2 |W|^2, convex, by L-BFGS from 0: no randomness.
    ValueError for fewer than two classes or ten rows.
    """
    if classes < 2 or len(features) < 10:
        raise ValueError(f"a classifier of {classes} classes from {len(features)} pictures; 2 and 10 are needed")
    apart = np.arange(len(features)) % 5 == 4
    mean = features[~apart].mean(axis=0)
    deviation = np.maximum(features[~apart].std(axis=0), 1e-6)
    x = torch.from_numpy(((features[~apart] - mean) / deviation).astype(np.float32))
    y = torch.from_numpy(labels[~apart])
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = cross_entropy(x @ weight + bias, y) + _DECAY / 2 * weight.square().sum()
            value.backward()
        return float(value.detach())

    optimizer.step(loss)
    fitted = LinearClassifier(mean, deviation, weight.detach().numpy(), bias.detach().numpy(), 0.0)
    accuracy = float((fitted(features[apart]) == labels[apart]).mean())
    return LinearClassifier(mean, deviation, fitted.weight, fitted.bias, accuracy)
