"""The Fréchet distance of two Gaussians, from statistics that stream, and its value for infinitely many samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float, Float64

from nirvana.evaluate.statistics import Interval, jackknife

BLOCKS = 10


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter sum (f - mean)(f - mean)^T of feature vectors, in float64. `a + b` are those of both.

    Source of the sums: Chan, Golub, LeVeque 1983, eq. 2.1.
    """

    count: int
    mean: Float64[np.ndarray, "d"]
    scatter: Float64[np.ndarray, "d d"]

    @staticmethod
    def none(width: int) -> Moments:
        """Those of no vectors."""
        return Moments(0, np.zeros(width), np.zeros((width, width)))

    @staticmethod
    def of(features: Float[np.ndarray, "n d"]) -> Moments:
        """Those of the rows. ValueError where one of them is not finite."""
        rows = np.asarray(features, np.float64)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if bad.size:
            raise ValueError(f"the features of picture {bad[0]} are not finite; mend or leave out that picture")
        if not len(rows):
            return Moments.none(rows.shape[1])
        mean = rows.mean(axis=0)
        return Moments(len(rows), mean, (rows - mean).T @ (rows - mean))

    def __add__(self, other: Moments) -> Moments:
        """ValueError where the widths differ."""
        if len(self.mean) != len(other.mean):
            raise ValueError(
                f"features of width {len(other.mean)} beside those of width {len(self.mean)};"
                " take both from one feature space"
            )
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)

    @cached_property
    def covariance(self) -> Float64[np.ndarray, "d d"]:
        """scatter / (count - 1). ValueError for fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"no covariance of {self.count} pictures; at least 2 are needed")
        return self.scatter / (self.count - 1)

    @cached_property
    def root(self) -> Float64[np.ndarray, "d d"]:
        """The symmetric root of the covariance."""
        values, vectors = torch.linalg.eigh(torch.from_numpy(self.covariance))
        return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).numpy()


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (R S_a R)^(1/2)) with R = S_b^(1/2), which `b` computes once.

    The eigenvalues of R S_a R are those of S_a S_b, real and never negative. ValueError where a side has fewer than two
    vectors or the widths differ. Source: Dowson & Landau 1982, eq. 4; Heusel et al. 2017, eq. 6.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"features of width {len(a.mean)} and {len(b.mean)}; take both from one feature space")
    product = b.root @ a.covariance @ b.root
    apart = a.mean - b.mean
    return float(apart @ apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * _root_trace(product))


@dataclass(frozen=True)
class Frechet:
    """plain: the distance of the n samples. value: extrapolated to infinitely many. interval: of `value`, at 95%."""

    plain: float
    value: float
    interval: Interval


def extrapolated(blocks: Sequence[Moments], reference: Moments) -> Frechet:
    """The Fréchet distance to `reference` that infinitely many samples would have, from B blocks of equal size.

    A finite sample is too far by about c/n. The line through (1/n, F) and (1/n', mean_b F without block b), with
    n' = n (B-1)/B, meets 1/n = 0 at B F - (B-1) mean_b F_b. Its interval is the delete-block jackknife's over the whole
    of that computation; a bootstrap draws samples twice, which moves F itself. The reference's own bias stays.
    ValueError for fewer than 3 blocks, or blocks of unequal size. Source: Chong & Forsyth 2020, section 3; Quenouille
    1956.
    """
    if len(blocks) < 3:
        raise ValueError(f"{len(blocks)} blocks; at least 3 are needed")
    sizes = [block.count for block in blocks]
    if max(sizes) - min(sizes) > 1:
        raise ValueError(f"blocks of {min(sizes)} to {max(sizes)} samples; they must be of equal size")
    parts, every = _Parts(blocks, reference), range(len(blocks))
    whole = parts.distance(())
    one = {b: parts.distance((b,)) for b in every}
    two = {pair: parts.distance(pair) for pair in combinations(every, 2)}
    value = _limit(whole, list(one.values()), len(blocks))
    without = [_limit(one[b], [v for pair, v in two.items() if b in pair], len(blocks) - 1) for b in every]
    return Frechet(whole, value, jackknife(value, without))


class _Parts:
    """Distances of all blocks but some. What a block adds to R S R, to the trace and to the mean is computed once.

    Sums are taken about the mean of all blocks, so that subtracting a block loses no digits.
    """

    def __init__(self, blocks: Sequence[Moments], reference: Moments) -> None:
        total = Moments.none(len(reference.mean))
        for block in blocks:
            total = total + block
        self._root = reference.root
        self._apart = total.mean - reference.mean
        self._trace = float(np.trace(reference.covariance))
        self._counts = [block.count for block in blocks]
        self._sums = [block.count * (block.mean - total.mean) for block in blocks]
        about = [b.scatter + np.outer(s, s) / b.count for b, s in zip(blocks, self._sums, strict=True)]
        self._traces = [float(np.trace(second)) for second in about]
        self._products = [self._root @ second @ self._root for second in about]
        self._product = np.sum(self._products, axis=0)

    def distance(self, left_out: tuple[int, ...]) -> float:
        kept = [b for b in range(len(self._counts)) if b not in left_out]
        n = sum(self._counts[b] for b in kept)
        mean = np.sum([self._sums[b] for b in kept], axis=0) / n
        trace = (sum(self._traces[b] for b in kept) - n * mean @ mean) / (n - 1)
        product, seen = self._product.copy(), self._root @ mean
        for b in left_out:
            product -= self._products[b]
        product -= n * np.outer(seen, seen)
        product /= n - 1
        apart = self._apart + mean
        return float(apart @ apart + trace + self._trace - 2 * _root_trace(product))


def _root_trace(product: Float64[np.ndarray, "d d"]) -> float:
    """tr(product^(1/2)) of a symmetric matrix; what rounding pushed below 0 counts as 0."""
    return float(torch.linalg.eigvalsh(torch.from_numpy(product)).clamp(min=0).sqrt().sum())


def _limit(all_blocks: float, without: Sequence[float], blocks: int) -> float:
    return blocks * all_blocks - (blocks - 1) * sum(without) / len(without)


def blocks_of(chunks: Iterable[Float[np.ndarray, "m d"]], n: int, width: int, blocks: int = BLOCKS) -> list[Moments]:
    """The moments of consecutive blocks, as equal as n allows, from chunks of any size that have n rows together.

    Memory is flat in n. ValueError for fewer than two samples a block, another number of rows, or another width.
    """
    if n < 2 * blocks:
        raise ValueError(f"{n} samples in {blocks} blocks; give at least {2 * blocks}")
    ends = [n * (b + 1) // blocks for b in range(blocks)]
    found, at, block = [Moments.none(width) for _ in ends], 0, 0
    for chunk in chunks:
        while len(chunk):
            if block == blocks:
                raise ValueError(f"more than the {n} samples that were announced")
            part, chunk = chunk[: ends[block] - at], chunk[ends[block] - at :]
            found[block] = found[block] + Moments.of(part)
            at += len(part)
            block += at == ends[block]
    if at != n:
        raise ValueError(f"{at} samples, not the {n} that were announced")
    return found
