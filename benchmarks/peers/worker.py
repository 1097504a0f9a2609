"""A process that holds one candidate of a benchmark and runs it when it is told to.

python worker.py MODULE:CLASS SETTINGS: makes the case, says its facts, then answers every line of its input. All lines
are JSON. One process a candidate: each has its own allocator, threads, caches and peak memory.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from memory import peak_bytes, restart_peak

Order = Mapping[str, Any]
Facts = dict[str, Any]


class Case(Protocol):
    """A candidate. It is made from its settings, which are JSON."""

    def facts(self) -> Facts:
        """What it is: versions, parameters, arithmetic, deviation from float64."""
        ...

    def prepare(self, order: Order) -> Callable[[], Facts | None]:
        """What is to be timed, with its fresh inputs made; the result goes into the reply."""
        ...


def serve(case: Case, orders: TextIO, replies: TextIO) -> None:
    """Say the facts, then run what each line of `orders` asks for, to the end of the input."""

    def reply(value: Facts) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    reply(case.facts())
    # What the checks needed does not count as the candidate's memory.
    restart_peak()
    for line in orders:
        run = case.prepare(json.loads(line))
        started = time.perf_counter()
        found = run()
        seconds = time.perf_counter() - started
        reply({"seconds": seconds, "peak_bytes": peak_bytes(), **(found or {})})


def main() -> None:
    # What libraries print must not come between the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, _, name = sys.argv[1].partition(":")
    make: Callable[[Order], Case] = getattr(importlib.import_module(module), name)
    serve(make(json.loads(sys.argv[2])), sys.stdin, replies)


if __name__ == "__main__":
    main()
