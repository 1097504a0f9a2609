"""Fidelity and coverage by nearest neighbours: precision and recall, density and coverage."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from nirvana.evaluate.statistics import Interval, normal_interval, wilson

_BLOCK = 1024
PRECISION_K, COVERAGE_K = 3, 5
"""The numbers of neighbours that the two papers recommend."""


@dataclass(frozen=True)
class Fraction:
    """A score with its interval at 95%."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Manifold:
    """precision, density: are the samples like real ones; recall, coverage: is every kind of real picture made."""

    precision: Fraction
    recall: Fraction
    density: Fraction
    coverage: Fraction


def manifold_scores(real: Float[np.ndarray, "m d"], fake: Float[np.ndarray, "n e"]) -> Manifold:
    """The four scores. Memory is flat: distances come in blocks of 1,024 rows.

    precision: share of fakes within the k-th neighbour's distance of some real one (k = 3); recall: the same with the
    sets exchanged. density: mean over fakes of how many real balls (k = 5) hold it, over k; it may exceed 1. coverage:
    share of real balls that hold a fake. The intervals take the other set as given: Wilson for shares, and for the
    density the normal one of a mean. ValueError where a set has at most 5 pictures, or the widths differ.
    Source: Kynkäänniemi et al. 2019, eq. 1-2; Naeem et al. 2020, eq. 3-4.
    """
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of width {real.shape[1]} and {fake.shape[1]}; take both from one feature space")
    if min(len(real), len(fake)) <= COVERAGE_K:
        raise ValueError(f"{len(real)} real and {len(fake)} made pictures; more than {COVERAGE_K} each are needed")
    middle = real.mean(axis=0, dtype=np.float64).astype(np.float32)
    a, b = (torch.from_numpy(np.asarray(x, np.float32) - middle) for x in (real, fake))
    radii, fake_radii = _radii(a, (PRECISION_K, COVERAGE_K)), _radii(b, (PRECISION_K,))
    precise = torch.zeros(len(b), dtype=torch.bool)
    recalled, covered = torch.zeros(len(a), dtype=torch.bool), torch.zeros(len(a), dtype=torch.bool)
    balls = torch.zeros(len(b), dtype=torch.float64)
    for start in range(0, len(b), _BLOCK):
        part = slice(start, start + _BLOCK)
        d = _distances(b[part], a)
        precise[part] = (d <= radii[0]).any(dim=1)
        recalled |= (d <= fake_radii[0][part, None]).any(dim=0)
        inside = d <= radii[1]
        covered |= inside.any(dim=0)
        balls[part] = inside.sum(dim=1).double() / COVERAGE_K
    density = float(balls.mean())
    error = float(balls.std()) / math.sqrt(len(b))
    return Manifold(
        _share(precise), _share(recalled), Fraction(density, normal_interval(density, error)), _share(covered)
    )


def _share(which: Tensor) -> Fraction:
    k, n = int(which.sum()), len(which)
    return Fraction(k / n, wilson(k, n))


def _distances(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Squared, from the expanded product; centred features keep the cancellation small."""
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)).clamp(min=0)


def _radii(x: Float[Tensor, "n d"], ks: tuple[int, ...]) -> list[Float[Tensor, "n"]]:
    """Squared distance of every row to its k-th nearest other row, for each k."""
    parts: list[Tensor] = []
    for start in range(0, len(x), _BLOCK):
        d = _distances(x[start : start + _BLOCK], x)
        d[torch.arange(len(d)), torch.arange(start, start + len(d))] = math.inf
        parts.append(d.topk(max(ks), dim=1, largest=False).values)
    found = torch.cat(parts)
    return [found[:, k - 1].contiguous() for k in ks]


def nearest(
    queries: Float[np.ndarray, "n d"], references: Float[np.ndarray, "m d"], k: int
) -> tuple[Float64[np.ndarray, "n k"], np.ndarray]:
    """Distances and places of the k nearest references of each query, nearest first.

    The search is in float32 and the distances of what it finds are exact in float64, so a copy is at 0.
    ValueError where there are fewer than k references.
    """
    if len(references) < k:
        raise ValueError(f"{len(references)} references; at least {k} are needed")
    y = torch.from_numpy(np.asarray(references, np.float32))
    distances, places = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), _BLOCK):
        part = slice(start, start + _BLOCK)
        x = np.asarray(queries[part], np.float64)
        found = _distances(torch.from_numpy(x.astype(np.float32)), y).topk(k, dim=1, largest=False).indices.numpy()
        exact = np.stack([np.linalg.norm(x - references[found[:, i]], axis=1) for i in range(k)], axis=1)
        order = np.argsort(exact, axis=1, kind="stable")
        distances[part] = np.take_along_axis(exact, order, axis=1)
        places[part] = np.take_along_axis(found, order, axis=1)
    return distances, places
