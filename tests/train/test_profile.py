"""The time of a step by kind: what adds up, what belongs to whom, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

import nirvana.train.profile as profile
from nirvana.train.operations import (
    ATTENTION,
    CONVOLUTION,
    COPY,
    DATA,
    EMA,
    KINDS,
    MATRIX,
    OPTIMISER,
    OTHER,
    POINTWISE,
    TRANSFER,
    Tally,
)
from nirvana.train.profile import Row, Stopwatch, TimedBatches, attributed, divided, measure

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass only where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(profile.time, "perf_counter", lambda: self.now)


def test_shares_add_up_to_the_wall_time() -> None:
    shares = {CONVOLUTION: 3.0, MATRIX: 1.0, OTHER: 4.0}
    seconds = divided(10.0, 2.0, shares)
    assert seconds[DATA] == 2.0
    assert (seconds[CONVOLUTION], seconds[MATRIX], seconds[OTHER]) == (3.0, 1.0, 4.0)
    assert set(seconds) == set(KINDS) and sum(seconds.values()) == 10.0


def test_where_nothing_was_seen_all_is_python_and_loading_is_never_more_than_all() -> None:
    assert divided(5.0, 1.0, {})[OTHER] == 4.0
    seconds = divided(5.0, 7.0, {CONVOLUTION: 1.0})
    assert seconds[DATA] == 5.0 and sum(seconds.values()) == 5.0


class FakeBatches:
    """Batches that take a second of the clock, and name their files."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def batch(self, indices: range) -> torch.Tensor:
        self.clock.now += 1.0
        return torch.ones(len(indices), 4)

    def files(self, indices: range) -> list[str]:
        return [f"{i}.png" for i in indices]


def test_a_step_is_measured_on_its_wall_time_and_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, watch = Clock(monkeypatch), Stopwatch()
    batches, weight = TimedBatches(FakeBatches(clock), watch), torch.ones(4, 6)
    taken: list[float] = []

    def step() -> None:
        batch = batches.batch(range(8))
        # The first steps are slow, and so is one of those that are timed: neither shows in the median.
        seconds = 40.0 if len(taken) < profile.WARM_UP or len(taken) == 4 else 4.0
        clock.now += seconds - 1.0
        taken.append(seconds)
        batch @ weight + 1

    found = measure(step, CPU, watch, budget=60.0)
    # Steps of 4, 4, 40, 4, 4 and 4 seconds are the first to fill 60.
    assert (found.timed, found.seconds, found.quartiles) == (6, 4.0, (4.0, 4.0))
    assert len(taken) == profile.WARM_UP + 6 + 1 + 3  # counted once, and a quarter of the budget under the profiler
    assert found.row(DATA).seconds == 1.0 and found.waiting == 0.25
    assert found.total.seconds == pytest.approx(sum(row.seconds for row in found.rows)) == 4.0
    assert found.row(MATRIX).flops == found.total.flops == 2 * 8 * 4 * 6
    assert found.row(MATRIX).bytes == 4 * (8 * 4 + 4 * 6 + 8 * 6)
    assert found.row(POINTWISE).bytes == 2 * 4 * 8 * 6
    assert found.row(MATRIX).seconds > 0 and found.row(OTHER).seconds > 2
    assert found.row(CONVOLUTION) == Row(CONVOLUTION, 0.0) and found.dtype == torch.float32
    assert batches.files(range(2)) == ["0.png", "1.png"]


def test_slow_steps_are_timed_a_few_times_and_quick_ones_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for seconds, timed in ((100.0, profile.LEAST), (1e-9, profile.MOST)):

        def step(seconds: float = seconds) -> None:
            clock.now += seconds

        assert measure(step, CPU, budget=1.0).timed == timed


def test_the_step_to_count_may_be_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, a = Clock(monkeypatch), torch.ones(3, 3)

    def step() -> None:
        clock.now += 1.0
        a @ a @ a

    assert measure(step, CPU, budget=1.0).row(MATRIX).flops == 2 * 54
    assert measure(step, CPU, budget=1.0, counted=lambda: a @ a).row(MATRIX).flops == 54


def test_the_peak_is_that_of_the_steps() -> None:
    size = 100 * 2**20
    found = measure(lambda: torch.ones(size // 4), CPU, budget=0.0)
    # 100 MiB that were there only within a step; what was freed before does not hide them.
    assert found.memory.peak - found.memory.before > 0.95 * size


def test_everything_is_in_the_json(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, a = Clock(monkeypatch), torch.ones(3, 3)

    def step() -> None:
        clock.now += 1.0
        a @ a

    values = measure(step, CPU, budget=1.0).to_json()
    assert (values["seconds"], values["flops"], values["gflops_per_second"]) == (1.0, 54, 54e-9)
    assert (values["precision"], values["waiting_for_data"]) == ("float32", 0.0)
    rows = values["kinds"]
    assert isinstance(rows, list)
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)  # type: ignore[call-overload, index]


@dataclass
class Seen:
    """An event as the profiler gives it; times in microseconds."""

    name: str
    self_cpu_time_total: float = 0.0
    cpu_parent: Seen | None = None
    thread: int = 1
    self_device_time_total: float = 0.0
    cpu_time_total: float = 0.0
    kernels: list[SimpleNamespace] = field(default_factory=list[SimpleNamespace])
    device_type: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(name="CPU"))


STEP = Seen("nirvana: step", 500.0)
LOADING = Seen("nirvana: data loader", 7.0, STEP)


def test_parts_of_the_loader_the_optimiser_and_the_averages_belong_to_them() -> None:
    optimiser, averages = Seen("Optimizer.step#AdamW.step", 10.0, STEP), Seen("aten::_foreach_lerp_", 1.0, STEP)
    attention = Seen("aten::scaled_dot_product_attention", 2.0, STEP)
    convolution = Seen("aten::convolution", 100.0, STEP)
    events = [
        *(STEP, LOADING, optimiser, averages, attention, convolution),
        Seen("aten::index", 20.0, LOADING),
        Seen("aten::empty", 3.0, LOADING),
        Seen("aten::add_", 30.0, optimiser),
        Seen("aten::lerp_", 4.0, averages),
        Seen("aten::sum", 5.0, Seen("aten::mul", 0.0, attention)),
        Seen("aten::copy_", 6.0, convolution),  # a change of layout is told apart from the convolution
        Seen("ConvolutionBackward0", 60.0, STEP),  # what autograd itself takes is no operation
        Seen("aten::mm", 1000.0, None, thread=2),  # another thread works beside the step
    ]
    found = {kind: round(1e6 * seconds) for kind, seconds in attributed(events, on_cuda=False).items() if seconds}
    assert found == {DATA: 30, OPTIMISER: 40, EMA: 5, ATTENTION: 7, CONVOLUTION: 100, COPY: 6}


def test_on_cuda_the_kernels_count_and_copies_from_the_host_are_transfer() -> None:
    sent = SimpleNamespace(name="Memcpy HtoD (Pinned -> Device)", duration=30.0)
    inside = SimpleNamespace(name="Memcpy DtoD (Device -> Device)", duration=5.0)
    loading = Seen("nirvana: data loader", 7.0, STEP, cpu_time_total=90.0)
    events = [
        *(STEP, loading),
        Seen("aten::copy_", 400.0, STEP, self_device_time_total=30.0, kernels=[sent]),
        Seen("aten::copy_", 400.0, STEP, self_device_time_total=5.0, kernels=[inside]),
        Seen("aten::convolution_backward", 400.0, None, thread=2, self_device_time_total=200.0),
        Seen("sgemm", self_device_time_total=200.0, device_type=SimpleNamespace(name="CUDA")),
    ]
    found = {kind: round(1e6 * seconds) for kind, seconds in attributed(events, on_cuda=True).items() if seconds}
    assert found == {DATA: 90, TRANSFER: 30, COPY: 5, CONVOLUTION: 200}


def test_the_ceiling_is_what_was_computed_by_the_time_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(clock)))
    with Tally() as tally:
        ceiling = profile.convolution_ceiling(CPU, torch.float32, budget=0.0, side=4)
    # Every run takes one second of this clock, in two layouts.
    assert tally.flops == {CONVOLUTION: 2 * profile.LEAST * int(ceiling)}
