"""Noise by seed: every item of a batch has streams of its own, so it is the same alone and in any batch."""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nirvana.diffusion.level import Level

Key = str | int | tuple[str | int, ...]
"""What tells independent draws apart: a name, a number, or a tuple of them."""


def check_seed(seed: int) -> int:
    """`seed` if it is an integer with 0 <= seed < 2**63, else ValueError."""
    if isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed} is out of range: give an integer from 0 to 2**63 - 1")
    return seed


def sample_rng(seed: int, index: int, stream: str) -> torch.Generator:
    """A generator on the CPU that is a pure function of (seed, global sample index, stream), seeded by their SHA-256.

    Streams are independent up to the 32 bits of torch's Mersenne seed: two share their numbers with probability 2^-32.
    """
    digest = hashlib.sha256(f"{check_seed(seed)}/{index}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


@runtime_checkable
class Noise(Protocol):
    """The randomness of a trajectory, of the shape of its state."""

    def initial(self) -> Tensor:
        """The unit normal a trajectory starts from, the same at every call."""
        ...

    def path(self, now: Level, nxt: Level) -> Tensor:
        """(W(s_nxt) - W(s_now))/sqrt|s_nxt - s_now|, a unit normal; W is Brownian in s = SNR = (alpha/sigma)^2."""
        ...

    def fresh(self, key: Key) -> Tensor:
        """A unit normal independent of all else, the same for the same key."""
        ...


class SeededNoise:
    """The noise of a batch of items, each a pure function of its own seed.

    seeds: one per item, 0 <= seed < 2**63; shape: of one item, without the batch. Drawn on the CPU, then moved.
    keep_path: remember W along `path`, so that a finer or repeated walk over the same levels sees the same Brownian
    path (between two kept points it is drawn from the Brownian bridge); it then takes levels of shape () only.
    Without it every `path` is a new draw, right for walks that never come back. Raises ValueError at a bad seed.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        keep_path: bool = False,
    ) -> None:
        self.seeds = tuple(check_seed(seed) for seed in seeds)
        self.shape = tuple(shape)
        self.dtype = dtype
        self.device = torch.device(device)
        self._steps = self._stream("path")
        self._path = BrownianPath(self._steps_forward, self._bridge) if keep_path else None
        self._bridges = self._stream("bridge") if keep_path else []

    def initial(self) -> Tensor:
        """The unit normal a trajectory starts from, (B, *shape), the same at every call."""
        return self._draw(self._stream("initial")).to(self.device)

    def path(self, now: Level, nxt: Level) -> Tensor:
        """(W(s_nxt) - W(s_now))/sqrt|s_nxt - s_now|, s = SNR; towards s = inf a unit normal stands in."""
        if self._path is None:
            return self._steps_forward().to(self.device)
        if now.alpha.ndim or nxt.alpha.ndim:
            raise ValueError("a kept path takes one level for the whole batch, of shape ()")
        return self._path.increment(float(now.snr), float(nxt.snr)).to(self.device, self.dtype)

    def fresh(self, key: Key) -> Tensor:
        """A unit normal (B, *shape), independent of all else and the same for the same key."""
        return self._draw(self._stream(f"fresh/{key!r}")).to(self.device)

    def _stream(self, name: str) -> list[torch.Generator]:
        return [sample_rng(seed, 0, f"item/{name}") for seed in self.seeds]

    def _draw(self, generators: Sequence[torch.Generator]) -> Tensor:
        out = torch.empty(len(generators), *self.shape, dtype=self.dtype)
        for row, generator in zip(out, generators, strict=True):
            row.normal_(generator=generator)
        return out

    def _steps_forward(self) -> Tensor:
        return self._draw(self._steps)

    def _bridge(self) -> Tensor:
        return self._draw(self._bridges)


class Between:
    """Noise on the way from one to another, `spherical` of independent ones: cos(pi/2 part) start + sin(pi/2 part) end.

    Where the two are independent this is as normal as they are at every part, with all their covariances: every state
    on the way is one that the model may meet. parts: in 0..1, one per item; the ends are exact.
    """

    def __init__(self, start: Noise, end: Noise, parts: Sequence[float]) -> None:
        self._start, self._end, self._parts = start, end, parts

    def initial(self) -> Tensor:
        """The unit normal a trajectory starts from, the same at every call."""
        return spherical(self._start.initial(), self._end.initial(), self._parts)

    def path(self, now: Level, nxt: Level) -> Tensor:
        """(W(s_nxt) - W(s_now))/sqrt|s_nxt - s_now| of the path that is mixed alike."""
        return spherical(self._start.path(now, nxt), self._end.path(now, nxt), self._parts)

    def fresh(self, key: Key) -> Tensor:
        """A unit normal independent of all else, the same for the same key."""
        return spherical(self._start.fresh(key), self._end.fresh(key), self._parts)


def spherical(
    start: Float[Tensor, "b *s"],
    end: Float[Tensor, "b *s"],
    parts: Sequence[float],
    angle: Float[Tensor, " b"] | float = math.pi / 2,
) -> Float[Tensor, "b *s"]:
    """(sin((1 - part) angle) start + sin(part angle) end)/sin(angle), a part in 0..1 for each item; the ends are exact.

    Of unit normals with the correlation cos(angle) this is a unit normal at every part; independent ones, the default,
    have pi/2. Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.
    """
    along = torch.tensor(parts, dtype=torch.float64)
    # Where sin(angle) is 0 the limit of equal ends is the straight line; opposite ones have none, and go through 0.
    a = torch.as_tensor(angle, dtype=torch.float64, device="cpu").clamp(1e-7, math.pi - 1e-3)
    weights = torch.stack([torch.sin((1 - along) * a), torch.sin(along * a)], 1) / torch.sin(a).reshape(-1, 1)
    of_start, of_end = weights.to(start).view(-1, 2, *[1] * (start.ndim - 1)).unbind(1)
    return of_start * start + of_end * end


def angle_between(start: Float[Tensor, "b *s"], end: Float[Tensor, "b *s"]) -> Float[Tensor, " b"]:
    """The angle of each item of `start` to that of `end`, in 0..pi: arccos <start, end>/(|start| |end|)."""
    a, b = start.flatten(1).double(), end.flatten(1).double()
    return torch.cosine_similarity(a, b, dim=1).clamp(-1, 1).acos()


class BrownianPath:
    """One Brownian path W(s), s >= 0, W(0) = 0, revealed point by point and kept in float64.

    ahead, between: draw unit normals for points beyond the last and between two kept ones. Two streams, so that a walk
    that only goes forward sees the same numbers as one that keeps nothing.
    """

    def __init__(self, ahead: Callable[[], Tensor], between: Callable[[], Tensor]) -> None:
        self._ahead = ahead
        self._between = between
        self._s: list[float] = []
        self._w: list[Tensor] = []

    def increment(self, now: float, nxt: float) -> Tensor:
        """(W(nxt) - W(now))/sqrt|nxt - now|; a unit normal where one of them is infinite."""
        if math.isinf(now) or math.isinf(nxt):
            return self._ahead()
        w = self._at(now)
        return (self._at(nxt) - w) / math.sqrt(abs(nxt - now))

    def _at(self, s: float) -> Tensor:
        i = bisect.bisect_left(self._s, s)
        if i == len(self._s) or self._s[i] != s:
            self._w.insert(i, self._reveal(i, s))
            self._s.insert(i, s)
        return self._w[i]

    def _reveal(self, i: int, s: float) -> Tensor:
        """W(s) given its neighbours a < s < b: mean linear between them, variance (s - a)(b - s)/(b - a)."""
        if not self._s:
            return math.sqrt(s) * self._between().double()
        if i == len(self._s):
            return self._w[-1] + math.sqrt(s - self._s[-1]) * self._ahead().double()
        a, w_a = (self._s[i - 1], self._w[i - 1]) if i else (0.0, torch.zeros_like(self._w[0]))
        b, w_b = self._s[i], self._w[i]
        part = (s - a) / (b - a)
        return w_a + part * (w_b - w_a) + math.sqrt(part * (b - s)) * self._between().double()
