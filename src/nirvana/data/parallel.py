"""Work on many files at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def _processors() -> int:
    """How many processors this process may run on, and OMP_NUM_THREADS lets it use."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(asked)) if asked.isdecimal() and int(asked) > 0 else there


def parallel(work: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
    """`map` in order on a few threads (Pillow frees the interpreter lock while it decodes), with little in flight."""
    workers = min(8, _processors())
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 8 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
