"""A linear sampler, probed with unit vectors: its mean and covariance without a single random number."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion import Denoiser, Level, Noise
from nirvana.diffusion.noise import Key
from nirvana.verify.problems import F64
from nirvana.verify.walks import AnySolver, Broken, ended


@dataclass
class Recorded:
    """A silent noise that writes down what is drawn. paths: (SNR now, SNR next) of each call; keys: of `fresh`."""

    x: Tensor
    paths: list[tuple[float, float]] = field(default_factory=list)
    keys: dict[Key, None] = field(default_factory=dict)

    def initial(self) -> Tensor:
        """Raises Broken: a solver is given its start."""
        raise Broken("it draws the start of the trajectory")

    def path(self, now: Level, nxt: Level) -> Tensor:
        """0."""
        self.paths.append((float(now.snr), float(nxt.snr)))
        return torch.zeros_like(self.x)

    def fresh(self, key: Key) -> Tensor:
        """0."""
        self.keys[key] = None
        return torch.zeros_like(self.x)


class Impulses:
    """The noise of a batch in which each item sees one independent unit normal as 1 and all others as 0.

    The independent ones are the increments of W between neighbouring SNRs that were ever asked for, one for each `path`
    to infinity, and one for each key of `fresh`. The first item sees none of them, nor do the next D; then come D items
    for each variable, one for each of its elements; the last sees `check` of all, (variables, D).
    """

    def __init__(self, recorded: Recorded) -> None:
        self.snr = sorted({s for pair in recorded.paths for s in pair if math.isfinite(s)})
        self.infinite = sum(not all(map(math.isfinite, pair)) for pair in recorded.paths)
        self.keys = {key: index for index, key in enumerate(recorded.keys)}
        self._infinite_seen = 0
        D = recorded.x.shape[-1]
        self.check = torch.randn(self.variables, D, generator=torch.Generator().manual_seed(9), dtype=F64)

    @property
    def variables(self) -> int:
        """How many independent unit normals there are."""
        return max(0, len(self.snr) - 1) + self.infinite + len(self.keys)

    def initial(self) -> Tensor:
        """Raises Broken: a solver is given its start."""
        raise Broken("it draws the start of the trajectory")

    def path(self, now: Level, nxt: Level) -> Tensor:
        """(W(s_nxt) - W(s_now))/sqrt|s_nxt - s_now| as each item sees it."""
        a, b = float(now.snr), float(nxt.snr)
        if not (math.isfinite(a) and math.isfinite(b)):
            self._infinite_seen += 1
            return self._value(max(0, len(self.snr) - 1) + self._infinite_seen - 1)
        low, high = self._place(min(a, b)), self._place(max(a, b))
        parts = torch.tensor(self.snr[low : high + 1], dtype=F64).diff()
        shares = torch.sqrt(parts / parts.sum()).tolist()
        whole = sum((share * self._value(low + i) for i, share in enumerate(shares)), 0 * self._value(low))
        return whole if b > a else -whole

    def fresh(self, key: Key) -> Tensor:
        """The variable of `key` as each item sees it."""
        if key not in self.keys:
            raise Broken(f"what it draws depends on x: the key {key!r}")
        return self._value(max(0, len(self.snr) - 1) + self.infinite + self.keys[key])

    def _place(self, s: float) -> int:
        place = bisect_left(self.snr, s)
        if place == len(self.snr) or self.snr[place] != s:
            raise Broken(f"what it draws depends on x: the path at SNR {s}")
        return place

    def _value(self, index: int) -> Tensor:
        if index >= self.variables:
            raise Broken("what it draws depends on x: it draws more than for x = 0")
        D = self.check.shape[1]
        seen = torch.zeros(2 + D + self.variables * D, D, dtype=F64)
        seen[1 + D + index * D : 1 + D + (index + 1) * D] = torch.eye(D, dtype=F64)
        seen[-1] = self.check[index]
        return seen


@dataclass(frozen=True, eq=False)
class Affine:
    """x at the end = constant + x_start @ of_x + sum_v z_v @ of_noise[v], z_v unit normals."""

    constant: Float[Tensor, "D"]
    of_x: Float[Tensor, "D D"]
    of_noise: Float[Tensor, "V D D"]

    def mean(self, start: Float[Tensor, "D"]) -> Float[Tensor, "D"]:
        """The mean at the end, of the mean at the start."""
        return self.constant + start @ self.of_x

    def cov(self, start: Float[Tensor, "D D"]) -> Float[Tensor, "D D"]:
        """The covariance at the end, of that at the start."""
        return self.of_x.T @ start @ self.of_x + torch.einsum("vij,vik->jk", self.of_noise, self.of_noise)


def affine(solver: AnySolver, denoiser: Denoiser, dimensions: int, levels: Sequence[Level]) -> Affine:
    """The map that `solver` is on a Gaussian (see `affine_map`)."""
    return affine_map(lambda x, noise: ended(solver, denoiser, x, levels, noise), dimensions)


def affine_map(walk: Callable[[Tensor, Noise], Tensor], dimensions: int) -> Affine:
    """The map from x at the start and the noise to x at the end, which `walk` is.

    One item of the batch a column; the last one checks it is affine. Raises Broken where it is not, or where what it
    draws depends on x.
    """
    recorded = Recorded(torch.zeros(1, dimensions, dtype=F64))
    walk(recorded.x, recorded)
    noise = Impulses(recorded)
    variables, eye = noise.variables, torch.eye(dimensions, dtype=F64)
    check_x = torch.randn(1, dimensions, generator=torch.Generator().manual_seed(8), dtype=F64)
    silent = torch.zeros(variables * dimensions, dimensions, dtype=F64)
    end = walk(torch.cat([torch.zeros(1, dimensions, dtype=F64), eye, silent, check_x]), noise)
    constant, columns, check = end[0], end[1:-1] - end[0], end[-1]
    found = Affine(constant, columns[:dimensions], columns[dimensions:].reshape(variables, dimensions, dimensions))
    expected = constant + (check_x @ found.of_x)[0] + torch.einsum("vi,vij->j", noise.check, found.of_noise)
    if not float((expected - check).abs().max()) <= 1e-9 * max(1.0, float(check.abs().max())):
        raise Broken("on a Gaussian it is not affine in x and in its noise: does it draw numbers of its own, or clip?")
    return found
