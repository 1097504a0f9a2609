"""Ctrl-C, or a request to end, at a moment when nothing is half-done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Both, and not SIGINT alone: in the background shells let it be ignored, and only SIGTERM ends a training there."""

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def interrupt_later() -> Generator[None, None, None]:
    """Hold back the first Ctrl-C or SIGTERM until the block ends; a second one gets through at once.

    A signal without a handler of Python's keeps what it does. Only for Python's main thread, which is where signals
    arrive; elsewhere it does nothing.
    """
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    before: dict[int, _Handler] = {number: handler for number, handler in found.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not before:
        yield
        return
    held: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held:
            before[number](number, frame)
        held.append((number, frame))

    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        number, frame = held[0]
        before[number](number, frame)
