"""How long a training took and how fast it is. Nothing it measures decides about a result."""

from __future__ import annotations

import time
from collections import deque


class Clock:
    """Seconds spent training, and the speed over the last steps."""

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.monotonic() - before
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)
        self.speed = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def tick(self, images: int) -> float:
        """Note that `images` are done; returns the images per second."""
        if self._recent and images < self._recent[-1][1]:
            self._recent.clear()
        self._recent.append((time.monotonic(), images))
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        self.speed = (after - before) / (last - first) if last > first else 0.0
        return self.speed
