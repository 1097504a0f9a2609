"""Metrics without waiting for the device: steps pile up as tensors, are read together, and become one JSON line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from nirvana.files import Json, append_line, json_line, write_text
from nirvana.train.run import RunFolder

_BIN_LIMIT = 20
"""Coordinates are binned by whole units, and cut at this one (they may be infinite)."""


@dataclass(eq=False)
class PhaseStep:
    """What one phase of one step measured, still on the device; lists have one entry a part of the batch."""

    rate: float
    loss: Tensor
    norm: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    per_sample: list[Tensor] = field(default_factory=list[Tensor])
    coordinate: list[Tensor] = field(default_factory=list[Tensor])

    @property
    def measured(self) -> list[Tensor]:
        """All of it in the order in which `_read` takes it."""
        return [self.loss, self.norm, *self.terms.values(), *self.per_sample, *self.coordinate]


@dataclass(frozen=True)
class PhaseRecord:
    """A `PhaseStep` that was read: floats; `levels` are (count, sum of losses) by binned coordinate."""

    rate: float
    loss: float
    norm: float
    terms: dict[str, float | None]
    levels: dict[str, tuple[float, float]]
    suspects: list[int]


@dataclass(frozen=True)
class StepRecord:
    """A step over the samples `first` to `last` (exclusive), by phase."""

    first: int
    last: int
    phases: dict[str, PhaseRecord]

    @property
    def finite(self) -> bool:
        """Whether loss and gradients of all phases are numbers."""
        return all(math.isfinite(phase.loss) and math.isfinite(phase.norm) for phase in self.phases.values())

    def to_json(self) -> dict[str, Json]:
        phases: dict[str, Json] = {
            name: {"rate": p.rate, "loss": p.loss, "norm": p.norm, "terms": p.terms, "levels": p.levels}
            for name, p in self.phases.items()
        }
        return {"first": self.first, "last": self.last, "phases": phases}

    @classmethod
    def from_json(cls, value: Json) -> StepRecord:
        """The (finite) record that `to_json` wrote; raises KeyError or TypeError where it is none."""
        record = cast("Mapping[str, Json]", value)
        phases = {
            name: PhaseRecord(
                rate=cast("float", phase["rate"]),
                loss=cast("float", phase["loss"]),
                norm=cast("float", phase["norm"]),
                terms=dict(cast("Mapping[str, float | None]", phase["terms"])),
                levels={
                    key: (count, total)
                    for key, (count, total) in cast("Mapping[str, tuple[float, float]]", phase["levels"]).items()
                },
                suspects=[],
            )
            for name, phase in cast("Mapping[str, Mapping[str, Json]]", record["phases"]).items()
        }
        return cls(cast("int", record["first"]), cast("int", record["last"]), phases)


class Window:
    """The steps since the last line of the metrics."""

    def __init__(self, records: Iterable[StepRecord] = ()) -> None:
        self._records = list(records)
        self._unread: list[tuple[range, dict[str, PhaseStep]]] = []

    def add(self, indices: range, phases: dict[str, PhaseStep]) -> None:
        """Take in a step without waiting for the device."""
        self._unread.append((indices, phases))

    def read(self) -> list[StepRecord]:
        """All steps of the window as numbers. Waits for the device, once however many steps there are."""
        measured = [tensor for _, phases in self._unread for phase in phases.values() for tensor in phase.measured]
        numbers = iter(_on_host(measured))
        for indices, phases in self._unread:
            read = {name: _read(indices, phase, numbers) for name, phase in phases.items()}
            self._records.append(StepRecord(indices.start, indices.stop, read))
        self._unread.clear()
        return self._records

    def line(self) -> dict[str, Json]:
        """The means over the steps, weighted by their samples, by phase; then the window is empty."""
        records = self.read()
        names = dict.fromkeys(name for record in records for name in record.phases)
        by_phase = {
            name: [(record.last - record.first, record.phases[name]) for record in records if name in record.phases]
            for name in names
        }
        self._records = []
        return {
            "loss": {name: _mean((n, p.loss) for n, p in steps) for name, steps in by_phase.items()},
            "norm": {name: _mean((n, p.norm) for n, p in steps) for name, steps in by_phase.items()},
            "rate": {name: steps[-1][1].rate for name, steps in by_phase.items()},
            "terms": {name: _terms(steps) for name, steps in by_phase.items()},
            "levels": {name: _levels(p for _, p in steps) for name, steps in by_phase.items()},
        }


def _on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`tensors` in float64 on the CPU, those of a device fetched together."""
    by_device: dict[torch.device, list[int]] = {}
    for at, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(at)
    found: dict[int, Tensor] = {}
    for places in by_device.values():
        flat = torch.cat([tensors[at].detach().flatten() for at in places]).cpu().double()
        parts = flat.split([tensors[at].numel() for at in places])
        found.update((at, part.view(tensors[at].shape)) for at, part in zip(places, parts, strict=True))
    return [found[at] for at in range(len(tensors))]


def _read(indices: range, phase: PhaseStep, numbers: Iterator[Tensor]) -> PhaseRecord:
    """The record of `phase`, whose `measured` come next in `numbers`."""
    loss, norm, *terms = (float(next(numbers)) for _ in range(2 + len(phase.terms)))
    per_sample = [next(numbers) for _ in phase.per_sample]
    coordinate = [next(numbers) for _ in phase.coordinate]
    suspects: list[int] = []
    levels: dict[str, tuple[float, float]] = {}
    if per_sample:
        losses = torch.cat(per_sample)
        suspects = [indices[int(at)] for at in (~losses.isfinite()).nonzero().flatten()]
        if coordinate:
            levels = _binned(torch.cat(coordinate), losses)
    finite = {name: value if math.isfinite(value) else None for name, value in zip(phase.terms, terms, strict=True)}
    return PhaseRecord(phase.rate, loss, norm, finite, levels, suspects)


def _binned(coordinate: Tensor, losses: Tensor) -> dict[str, tuple[float, float]]:
    known = losses.isfinite() & ~coordinate.isnan()
    bins = coordinate[known].clamp(-_BIN_LIMIT, _BIN_LIMIT).floor().long() + _BIN_LIMIT
    counts = torch.bincount(bins)
    sums = torch.bincount(bins, weights=losses[known])
    return {str(int(at) - _BIN_LIMIT): (float(counts[at]), float(sums[at])) for at in counts.nonzero().flatten()}


def _mean(values: Iterable[tuple[int, float | None]]) -> float | None:
    known = [(count, value) for count, value in values if value is not None]
    total = sum(count for count, _ in known)
    return math.fsum(count * value for count, value in known) / total if total else None


def _terms(steps: list[tuple[int, PhaseRecord]]) -> dict[str, Json]:
    names = dict.fromkeys(name for _, phase in steps for name in phase.terms)
    return {name: _mean((n, phase.terms.get(name)) for n, phase in steps) for name in names}


def _levels(phases: Iterable[PhaseRecord]) -> dict[str, Json]:
    sums: dict[str, tuple[float, float]] = {}
    for phase in phases:
        for key, (count, total) in phase.levels.items():
            before = sums.get(key, (0.0, 0.0))
            sums[key] = (before[0] + count, before[1] + total)
    return {key: list(sums[key]) for key in sorted(sums, key=int)}


def append_metrics(run: RunFolder, line: Mapping[str, Json], *, durable: bool) -> None:
    """Write a line of metrics; `durable` before a checkpoint, which must never be ahead of the metrics."""
    append_line(run.metrics_path, json_line(line), durable=durable)


def truncate_metrics(run: RunFolder, images: int) -> None:
    """Drop the lines after `images`: training goes on from there and writes them again."""
    lines = run.metrics()
    kept = [line for line in lines if cast("int", line["images"]) <= images]
    if len(kept) < len(lines):
        write_text(run.metrics_path, "".join(json_line(line) + "\n" for line in kept))
