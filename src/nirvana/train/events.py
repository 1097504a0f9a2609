"""What a training reports while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """Training begins, or goes on, after `images` of `total` images, on `device` in `precision`."""

    images: int
    total: int
    device: str
    precision: str
    rollbacks: int


@dataclass(frozen=True)
class StepDone:
    """A step is done. `loss` by phase is what was read last (None before that); `seconds_left` is an estimate."""

    step: int
    images: int
    total: int
    loss: Mapping[str, float | None] | None
    rate: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on the disk."""

    images: int
    path: Path


@dataclass(frozen=True)
class SnapshotTaken:
    """EMA weights were kept for good."""

    images: int
    path: Path


@dataclass(frozen=True)
class SampleWritten:
    """A sample grid was drawn with the EMA weights."""

    images: int
    path: Path


@dataclass(frozen=True)
class RolledBack:
    """The loss at `images` was not a number: training goes on from `to` with `factor` times the planned rate.

    `files` are those of the batch, `suspects` those of samples whose own loss was not a number.
    """

    images: int
    to: int
    factor: float
    count: int
    files: list[str]
    suspects: list[str]


@dataclass(frozen=True)
class Finished:
    """The plan is done; `already` if it was before this call, which then did nothing."""

    images: int
    seconds: float
    already: bool


Event = Started | StepDone | Saved | SnapshotTaken | SampleWritten | RolledBack | Finished
