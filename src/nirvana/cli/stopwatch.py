"""Where the time of a command went."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class Stopwatch:
    """Seconds by the name of what they were spent on, from `started` (of `time.perf_counter`)."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._last = started
        self._aside = 0.0

    def lap(self, name: str) -> None:
        """What passed since the last lap went into `name`."""
        now = time.perf_counter()
        self._add(name, now - self._last - self._aside)
        self._last, self._aside = now, 0.0

    @contextmanager
    def apart(self, module: nn.Module, name: str) -> Generator[None]:
        """Inside, the calls of `module` count as `name` and not as the lap they lie in."""
        began: list[float] = []

        def before(*_: object) -> None:
            began.append(time.perf_counter())

        def after(*_: object) -> None:
            spent = time.perf_counter() - began.pop()
            self._aside += spent
            self._add(name, spent)

        hooks = module.register_forward_pre_hook(before), module.register_forward_hook(after)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items() if seconds >= 0.005)
        return f"{parts}; together {sum(self.seconds.values()):.2f} s"
