"""How much memory a training has, holds and held: of the process on a CPU, of the device elsewhere. In bytes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

UNKNOWN = sys.maxsize
"""What `available` says where nothing tells: no plan is refused for a limit that nobody knows."""

_EXHAUSTED = ("can't allocate memory", "not enough memory")
_ROOT = Path("/")


def available(device: torch.device, root: Path = _ROOT) -> int:
    """What this process may still use, at least 0: the least of what the system, its cgroups and its limits leave.

    CUDA and MPS: what is free on the device, with what torch holds there and does not use. `root` is where /proc and
    /sys are.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return max(0, min([UNKNOWN, *_system(root), *_cgroups(root), *_limits(root)]))


def current(device: torch.device, root: Path = _ROOT) -> int:
    """What is held now: the resident memory of the process, or what tensors take on the device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    resident = _kilobytes(root / "proc/self/status", "VmRSS")
    return _max_resident() if resident is None else resident


def peak(device: torch.device, root: Path = _ROOT) -> int:
    """The most that was held since `reset_peak`, or since the start where that cannot be reset.

    MPS keeps no such number: what its driver holds, which is at least that.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    most = _kilobytes(root / "proc/self/status", "VmHWM")
    return _max_resident() if most is None else most


def exhausted(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: PyTorch has no class of its own for that on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _EXHAUSTED)


def reset_peak(device: torch.device, root: Path = _ROOT) -> None:
    """Let `peak` start from what is held now, where the system can (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        switch = root / "proc/self/clear_refs"
        # Some sandboxes have no such file, or forbid to write it; it is never made.
        with contextlib.suppress(OSError), switch.open("r+") as file:
            file.write("5")


def _system(root: Path) -> Iterator[int]:
    """What the whole machine has left; on other systems than Linux what it has, less what this process holds."""
    free = _kilobytes(root / "proc/meminfo", "MemAvailable")
    if free is not None:
        yield free
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - _max_resident()


def _cgroups(root: Path) -> Iterator[int]:
    """What each limited control group around this process has left, in version 2 and version 1."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, usage, reclaimable = names if controllers else ("memory.max", "memory.current", "inactive_file")
        inside = PurePosixPath(path.lstrip("/"))
        # A limit may lie at any level, and in a container the outer ones are not there.
        for group in (base / inside, *(base / parent for parent in inside.parents)):
            most, used = _number(_read(group / limit)), _number(_read(group / usage))
            if most is not None and used is not None:
                yield most - used + _statistic(group / "memory.stat", reclaimable)


def _statistic(path: Path, name: str) -> int:
    """A line of a memory.stat: pages of files that are dropped when memory is short are no real use."""
    lines = (line.split() for line in (_read(path) or "").splitlines())
    return next((_number(words[1]) or 0 for words in lines if len(words) == 2 and words[0] == name), 0)


def _limits(root: Path) -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` leave."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, held in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            yield soft - (_kilobytes(root / "proc/self/status", held) or 0)


def _max_resident() -> int:
    """The largest resident size of this process as getrusage has it; 0 where there is none (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    # Apple counts bytes, the others kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _kilobytes(path: Path, name: str) -> int | None:
    """The bytes of a line `name:   123 kB`."""
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            number = _number(value.removesuffix("kB"))
            return None if number is None else number * 1024
    return None


def _number(text: str | None) -> int | None:
    """`text` as a number; None where it is none ("max")."""
    text = (text or "").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
