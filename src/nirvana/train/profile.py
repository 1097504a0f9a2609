"""Where the time of a step goes: honest wall time without a profiler, then its shares by kind with one."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from nirvana.files import Json
from nirvana.train import memory
from nirvana.train.allocator import give_back
from nirvana.train.operations import DATA, KINDS, OTHER, TRANSFER, WHOLE, Tally, kind_of
from nirvana.train.task import Batches

B = TypeVar("B")

WARM_UP = 2
LEAST, MOST = 3, 50
"""Steps that are timed at least and at most."""
_REGION = "nirvana: "
_STEP, _DATA = f"{_REGION}step", f"{_REGION}{DATA}"


@dataclass(frozen=True)
class Row:
    """A kind of operation within a step: seconds, the number of operations, FLOPs and bytes moved."""

    kind: str
    seconds: float
    calls: int = 0
    flops: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Memory:
    """Bytes: the peak up to the last timed step, and what was held before the first one.

    Where the system does not let the peak be reset, it is that of the process since it began.
    """

    peak: int
    before: int


@dataclass(frozen=True)
class StepProfile:
    """A step, measured: the median of `timed` wall times and their quartiles, and the rows, which add up to it."""

    seconds: float
    quartiles: tuple[float, float]
    timed: int
    rows: tuple[Row, ...]
    memory: Memory
    dtype: torch.dtype

    @property
    def total(self) -> Row:
        """The whole step: its wall time, and the sums of the rest."""
        calls, flops = sum(row.calls for row in self.rows), sum(row.flops for row in self.rows)
        return Row("all", self.seconds, calls, flops, sum(row.bytes for row in self.rows))

    def row(self, kind: str) -> Row:
        """The row of `kind`; an empty one where nothing of it ran."""
        return next((row for row in self.rows if row.kind == kind), Row(kind, 0.0))

    @property
    def waiting(self) -> float:
        """The share of a step that goes by until its data is there: the loader and the transfer."""
        return (self.row(DATA).seconds + self.row(TRANSFER).seconds) / self.seconds

    def to_json(self) -> dict[str, Json]:
        """Everything, with the derived rates; seconds, FLOPs and bytes a step."""
        return {
            "seconds": self.seconds,
            "quartiles": list(self.quartiles),
            "timed_steps": self.timed,
            "precision": str(self.dtype).removeprefix("torch."),
            "gflops_per_second": self.total.flops / self.seconds / 1e9,
            "flops": self.total.flops,
            "bytes": self.total.bytes,
            "waiting_for_data": self.waiting,
            "peak_bytes": self.memory.peak,
            "bytes_before": self.memory.before,
            "kinds": [
                {
                    "kind": row.kind,
                    "seconds": row.seconds,
                    "share": row.seconds / self.seconds,
                    "calls": row.calls,
                    "flops": row.flops,
                    "gflops_per_second": row.flops / row.seconds / 1e9 if row.seconds > 0 else 0.0,
                    "bytes": row.bytes,
                }
                for row in self.rows
            ],
        }


class Stopwatch:
    """The time spent in the data loader, and whether it is running now."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.running = False

    @contextmanager
    def measuring(self) -> Generator[None]:
        """Count what happens inside; the profiler sees it as a region."""
        self.running, started = True, time.perf_counter()
        try:
            with record_function(_DATA):
                yield
        finally:
            self.seconds += time.perf_counter() - started
            self.running = False


class TimedBatches(Generic[B]):
    """`batches`, with the time of each counted by `watch`."""

    def __init__(self, batches: Batches[B], watch: Stopwatch) -> None:
        self._batches, self._watch = batches, watch

    def batch(self, indices: range) -> B:
        """The samples `indices`."""
        with self._watch.measuring():
            return self._batches.batch(indices)

    def files(self, indices: range) -> list[str]:
        """Their files."""
        return self._batches.files(indices)


def measure(
    step: Callable[[], object],
    device: torch.device,
    watch: Stopwatch | None = None,
    budget: float = 4.0,
    counted: Callable[[], object] | None = None,
) -> StepProfile:
    """Run `step` until `budget` seconds are timed, then once counted, and a few times under the profiler.

    counted: a step that stands for all of them, where not any does: its operations, FLOPs and bytes are told.

    The time of the data loader is what `watch` counted without the profiler; the rest of the median wall time is
    divided as the profiler saw it, and what no operation accounts for is `OTHER`. On CUDA it is divided by the time
    of the kernels.
    """
    watch = watch or Stopwatch()
    give_back()
    memory.reset_peak(device)
    before = memory.current(device)
    for _ in range(WARM_UP):
        step()
    synchronise(device)
    walls, loads = _timed(step, device, watch, budget)
    held = Memory(memory.peak(device), before)
    with Tally(lambda: DATA if watch.running else None) as tally:
        (counted or step)()
    wall = statistics.median(walls)
    shares = _profiled(step, device, max(1, min(5, int(budget / 4 / wall))))
    seconds = divided(wall, statistics.median(loads), shares)
    rows = (Row(k, seconds[k], tally.calls[k], tally.flops[k], tally.bytes[k]) for k in KINDS)
    found = tuple(row for row in rows if row.seconds > 0 or (row.calls and row.kind != OTHER))
    low, high = _quartiles(walls)
    return StepProfile(wall, (low, high), len(walls), found, held, tally.dtype or torch.float32)


def divided(wall: float, loading: float, shares: Mapping[str, float]) -> dict[str, float]:
    """`wall` seconds by kind: `loading` for the data, and the rest in proportion to `shares` (which has no data)."""
    loading, total = min(loading, wall), sum(shares.values())
    rest = {kind: (wall - loading) * shares.get(kind, 0.0) / total if total else 0.0 for kind in KINDS}
    return {**rest, DATA: loading, OTHER: rest[OTHER] if total else wall - loading}


def _timed(
    step: Callable[[], object], device: torch.device, watch: Stopwatch, budget: float
) -> tuple[list[float], list[float]]:
    """Wall seconds of each step, and the seconds of it spent loading."""
    walls: list[float] = []
    loads: list[float] = []
    while len(walls) < LEAST or (sum(walls) < budget and len(walls) < MOST):
        watch.seconds, started = 0.0, time.perf_counter()
        step()
        synchronise(device)
        walls.append(time.perf_counter() - started)
        loads.append(watch.seconds)
    return walls, loads


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _profiled(step: Callable[[], object], device: torch.device, steps: int) -> dict[str, float]:
    """Seconds by kind that the profiler saw, the data left out and `OTHER` being what no operation accounts for."""
    # The profiler's library says on standard error that it starts and stops; it reads this when it is first used.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities, acc_events=True) as seen, record_function(_STEP):
        started = time.perf_counter()
        for _ in range(steps):
            step()
        synchronise(device)
        wall = time.perf_counter() - started
    found = attributed(list(seen.events() or []), on_cuda=on_cuda)
    # On a CPU the loader's operations and its own time are one; the kernels of a device run beside it.
    found[OTHER] = max(wall - sum(found.values()), 0.0)
    return {kind: seconds for kind, seconds in found.items() if kind != DATA}


def attributed(events: Sequence[Any], *, on_cuda: bool) -> dict[str, float]:
    """Seconds by kind of the profiler's events. On a CPU only those of the thread that steps count."""
    stepping = {event.thread for event in events if event.name == _STEP}
    found: dict[str, float] = defaultdict(float)
    for event in events:
        if event.device_type.name != "CPU" or event.name == _STEP:
            continue
        kind = _kind_within(event)
        if on_cuda and event.name == _DATA:
            found[DATA] += event.cpu_time_total * 1e-6
        elif on_cuda:
            # Copies of the host's memory wait for the bus; all other kernels compute.
            sent = sum(kernel.duration for kernel in event.kernels if "HtoD" in kernel.name)
            found[TRANSFER] += sent * 1e-6
            found[kind] += max(event.self_device_time_total - sent, 0) * 1e-6
        elif event.thread in stepping:
            found[kind] += event.self_cpu_time_total * 1e-6
    return {kind: seconds for kind, seconds in found.items() if kind != OTHER}


def _kind_within(event: Any) -> str:
    """The kind of an event: that of the outermost thing it is a part of, where that owns its parts, or its own."""
    kind, above = _kind_of_event(event.name), event.cpu_parent
    while above is not None:
        outer = _kind_of_event(above.name)
        kind = outer if outer in WHOLE else kind
        above = above.cpu_parent
    return kind


def _kind_of_event(name: str) -> str:
    return DATA if name == _DATA else kind_of(name)


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def convolution_ceiling(device: torch.device, dtype: torch.dtype, budget: float = 1.0, side: int = 32) -> float:
    """FLOP/s that a 3x3 convolution of 128 to 128 channels reaches forward and backward, in the better layout.

    side: of its pictures, in pixels; there are 16 on a CPU and 256 elsewhere. It takes about `budget` seconds.

    The best of all runs: it is what a step could reach if it consisted of such convolutions alone.
    """
    batch, channels = 16 if device.type == "cpu" else 256, 128
    rng = torch.Generator().manual_seed(0)
    net = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype)
    x = torch.randn(batch, channels, side, side, generator=rng).to(device, dtype)
    best = float("inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.to(memory_format=layout).requires_grad_()
        placed = net.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        gradient, spent, runs = torch.ones_like(given), 0.0, 0
        while runs < LEAST or spent < budget / 2:
            started = time.perf_counter()
            torch.autograd.backward(placed(given), gradient)
            synchronise(device)
            seconds = time.perf_counter() - started
            best, spent, runs = min(best, seconds if runs else best), spent + seconds, runs + 1
    return 3 * 2 * batch * side * side * channels * channels * 9 / best
