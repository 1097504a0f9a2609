"""Kills, starves and interrupts trainings, continues each, and prints how every one of them differs in the end.

A process of its own: it imports torch once and forks a child for each training that is to die.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

import nirvana.train.loop
from nirvana.errors import Refused
from nirvana.train.checkpoint import verify
from nirvana.train.events import StepDone
from nirvana.train.loop import Hooks
from nirvana.train.run import RunFolder
from train.tiny import Linear, go, outcome, picture

DISK = ("open", "write", "fsync", "replace", "unlink", "rmdir", "mkdir", "ftruncate")
STARVED = ("open", "write", "fsync", "replace", "mkdir")
Action = Callable[[str, Callable[..., Any], tuple[Any, ...]], None]


class Faults:
    """Counts calls of `os` while it is armed, and runs `action` in place of (before) the one with number `at`."""

    def __init__(self, names: Iterable[str], action: Action | None = None, at: int = -1) -> None:
        self.armed, self.count, self.at, self.action = False, 0, at, action
        self._real = {name: getattr(os, name) for name in names}

    def __enter__(self) -> Faults:
        for name, real in self._real.items():
            setattr(os, name, self._wrap(name, real))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.armed and not (self.action is starve and needs_no_room(name, args)):
                self.count += 1
                if self.count - 1 == self.at and self.action is not None:
                    self.action(name, real, args)
            return real(*args, **options)

        return call


def needs_no_room(name: str, args: tuple[Any, ...]) -> bool:
    return (name == "open" and not args[1] & os.O_CREAT) or (name == "mkdir" and os.path.isdir(args[0]))


def kill(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if name == "write":
        real(args[0], bytes(args[1])[: len(args[1]) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def starve(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if name == "write":
        real(args[0], bytes(args[1])[: len(args[1]) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drive(path: Path, faults: Faults, arm: range, events: Iterator[Any] | None = None) -> None:
    """Train, with `faults` armed from the step that ends at `arm.start` (-1: the beginning) to that at `arm.stop`."""
    faults.armed = arm.start < 0
    for event in events if events is not None else go(path):
        if isinstance(event, StepDone):
            faults.armed = arm.start <= event.images < arm.stop


def prepare(path: Path, arm: range) -> None:
    """Put a training at `path` that was stopped a step before `arm`; the first call makes it, the others copy it."""
    if arm.start < 0:
        return
    stopped = path.with_name(f"stopped{arm.start}")
    if not stopped.exists():
        events = go(stopped)
        for event in events:
            if isinstance(event, StepDone) and arm.start - event.images <= 8:
                break
        events.close()
    shutil.copytree(stopped, path)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a fork; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def different(path: Path, wanted: dict[str, Any]) -> list[str]:
    for _ in go(path):
        pass
    found = outcome(path)
    shutil.rmtree(path)
    return [key for key in wanted if found[key] != wanted[key]]


def count_calls(path: Path, names: Iterable[str], arm: range, action: Action | None = None) -> int:
    prepare(path, arm)
    with Faults(names, action) as faults:
        drive(path, faults, arm)
    shutil.rmtree(path)
    return faults.count


def kills_on_disk(path: Path, wanted: dict[str, Any], arm: range, every: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    total = count_calls(path, DISK, arm)
    for at in range(0, total, every):

        def work(at: int = at) -> None:
            with Faults(DISK, kill, at) as faults:
                drive(path, faults, arm)

        prepare(path, arm)
        code = in_child(work)
        name = f"disk call {at} of {total} in {arm}"
        found[name] = [f"ended with {code}"] if code != -signal.SIGKILL else different(path, wanted)
    return found


def full_disk(path: Path, wanted: dict[str, Any], arm: range, every: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    total = count_calls(path, STARVED, arm, starve)
    for at in range(0, total, every):
        problems: list[str] = []
        prepare(path, arm)
        with Faults(STARVED, starve, at) as faults:
            try:
                drive(path, faults, arm)
                problems.append("no error")
            except Refused as refusal:
                text = str(refusal)
                if "no space left" not in text or str(path) not in text or "\n" in text:
                    problems.append(text)
        latest = RunFolder.open(path).latest() if path.exists() else None
        if arm.start > 16 and latest is None:
            problems.append("no checkpoint left")
        if latest is not None:
            verify(latest)
        found[f"write {at} of {total} in {arm}"] = problems + different(path, wanted)
    return found


def at_call(number: int, act: Callable[[], None]) -> Callable[[Any, str, Any], None]:
    """A profiler that acts at the n-th call of a function of the training code."""
    folder = str(Path(nirvana.train.loop.__file__).parent)
    calls = 0

    def profile(frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        if event in ("call", "return") and frame.f_code.co_filename.startswith(folder):
            calls += 1
            if calls == number:
                act()

    return profile


def random_moments(path: Path, wanted: dict[str, Any], times: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    draw = random.Random(0)
    for _ in range(times):
        moments = [draw.randrange(1, 6000) for _ in range(2)]

        for moment in moments:

            def work(moment: int = moment) -> None:
                sys.setprofile(at_call(moment, lambda: os.kill(os.getpid(), signal.SIGKILL)))
                for _ in go(path):
                    pass

            in_child(work)
        found[f"killed at calls {moments}"] = different(path, wanted)
    return found


def interrupts(path: Path, wanted: dict[str, Any], times: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    draw = random.Random(1)
    for _ in range(times):
        moments = [draw.randrange(500, 4000) for _ in range(2)]
        stopped = 0
        for moment in moments:
            sys.setprofile(at_call(moment, lambda: signal.raise_signal(signal.SIGINT)))
            try:
                for _ in go(path):
                    pass
            except KeyboardInterrupt:
                stopped += 1
            finally:
                sys.setprofile(None)
        found[f"Ctrl-C at calls {moments}"] = ([] if stopped else ["was not interrupted"]) + different(path, wanted)
    return found


class Deadly(Linear):
    """Kills its process in the loss of the step that contains `index`."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def loss(self, phase: Any, batch: Any, position: Any) -> Any:
        if self.index in position.indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(phase, batch, position)


def in_steps_and_samples(path: Path, wanted: dict[str, Any]) -> dict[str, list[str]]:
    def deadly_picture(weights: Any, images: int) -> bytes:
        if images == 48:
            os.kill(os.getpid(), signal.SIGKILL)
        return picture(weights, images)

    found: dict[str, list[str]] = {}
    works = {f"in the step of {index}": (lambda index=index: list(go(path, Deadly(index)))) for index in (0, 20, 59)}
    works["while sampling"] = lambda: list(go(path, hooks=Hooks(sample=deadly_picture)))
    for name, work in works.items():
        code = in_child(lambda work=work: work() and None)
        found[name] = [f"ended with {code}"] if code != -signal.SIGKILL else different(path, wanted)
    return found


def main(scenario: str, folder: Path) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # a killed process loses nothing that was written; counted all the same
    for _ in go(folder / "whole"):
        pass
    wanted = outcome(folder / "whole")
    path = folder / "killed"
    scenarios: dict[str, Callable[[], dict[str, list[str]]]] = {
        # The step to 48 has it all: metrics, samples, a scheduled checkpoint, an old one to delete, the report.
        "kill": lambda: {
            **kills_on_disk(path, wanted, range(48, 49), 1),
            **kills_on_disk(path, wanted, range(-1, 1), 6),
            **kills_on_disk(path, wanted, range(60, 99), 6),
            **in_steps_and_samples(path, wanted),
            **random_moments(path, wanted, 6),
        },
        "full": lambda: {**full_disk(path, wanted, range(48, 49), 1), **full_disk(path, wanted, range(-1, 1), 4)},
        "interrupt": lambda: interrupts(path, wanted, 5),
    }
    print(json.dumps({"wanted": {"finished": wanted["finished"]}, "found": scenarios[scenario]()}))


if __name__ == "__main__":
    # Whoever started the tests in the background may have had Ctrl-C ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(sys.argv[1], Path(sys.argv[2]))
