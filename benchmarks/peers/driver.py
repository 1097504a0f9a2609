"""Starts the workers and runs them in turn."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch

ROOT = Path(__file__).parents[2]
PAUSE = 0.05
"""Seconds between two turns, in which the threads of the candidate that ran stop spinning."""


def peers_python() -> str:
    """The interpreter of the environment that has the peers."""
    python = os.environ.get("PEERS_PYTHON") or str(ROOT / ".venv-peers" / "bin" / "python")
    if not Path(python).is_file():
        raise SystemExit(f"{python} is not there: scripts/peers.sh makes it (make bench), or set PEERS_PYTHON")
    return python


@dataclass(frozen=True)
class Candidate:
    """A case MODULE:CLASS with its settings; peers: it runs in the environment that has the peers."""

    case: str
    settings: Mapping[str, Any]
    peers: bool = False


class Worker:
    """A candidate in a process of its own."""

    def __init__(self, candidate: Candidate) -> None:
        python = peers_python() if candidate.peers else sys.executable
        threads = str(torch.get_num_threads())
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("worker.py")), candidate.case, json.dumps(candidate.settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"},
        )
        self.peak_bytes: int | None = None
        try:
            self.facts = self._reply(candidate.case)
        except BaseException:
            self.close()
            raise

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run once; the reply has "seconds" and what the case says."""
        if self._process.stdin is None:
            raise ValueError("the process was started without an input")
        self._process.stdin.write(json.dumps(dict(order)) + "\n")
        self._process.stdin.flush()
        reply = self._reply(str(order))
        self.peak_bytes = reply["peak_bytes"]
        return reply

    def _reply(self, asked: str) -> dict[str, Any]:
        if self._process.stdout is None:
            raise ValueError("the process was started without an output")
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended (code {self._process.wait()}) when asked for {asked}; it said why above")
        return cast("dict[str, Any]", json.loads(line))

    def close(self) -> None:
        """End the process, which an end of its input does."""
        # Popen's own end closes the pipes and waits.
        with self._process:
            pass

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._process.terminate()
        self.close()


@contextmanager
def workers(candidates: Mapping[str, Candidate]) -> Generator[dict[str, Worker]]:
    """All candidates ready to run, each in its process."""
    with ExitStack() as stack:
        started: dict[str, Worker] = {}
        for name, candidate in candidates.items():
            print(f"  starting: {name}", file=sys.stderr, flush=True)
            started[name] = stack.enter_context(Worker(candidate))
        yield started


def in_turn(
    running: Mapping[str, Worker],
    order: Mapping[str, Any],
    rounds: int,
    *,
    limit: float = math.inf,
    warmed: bool = False,
) -> dict[str, list[float]]:
    """Seconds of each worker, run in turn (A B A B ...) after one round that does not count, unless they are warmed.

    limit: seconds after which a worker has had its share: it is measured at least once, and where the first round
    alone takes so long, that round counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in running}
    spent = dict.fromkeys(running, 0.0)
    for turn in range(1 if warmed else 0, rounds + 1):
        for name, worker in running.items():
            if seconds[name] and spent[name] > limit:
                continue
            time.sleep(PAUSE)
            took = cast("float", worker.run(order)["seconds"])
            spent[name] += took
            if turn or took > limit:
                seconds[name].append(took)
            print(f"  round {turn}: {name}: {took:.3f} s", file=sys.stderr, flush=True)
    return seconds
