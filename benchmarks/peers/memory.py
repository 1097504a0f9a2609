"""The memory of a candidate's process: its peak, and the allocator's setting."""

from __future__ import annotations

import ctypes
from pathlib import Path


def keep_memory() -> bool:
    """Let glibc keep what it freed instead of mapping it afresh; False where there is no glibc."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    never_map, never_trim = (-4, 0), (-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD
    return all(libc.mallopt(*setting) == 1 for setting in (never_map, never_trim))


def restart_peak() -> None:
    """Let the peak memory of this process start from what it has now (Linux)."""
    reset = Path("/proc/self/clear_refs")
    if reset.is_file():
        reset.write_text("5")


def peak_bytes() -> int | None:
    """The most memory this process has held since `restart_peak`; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
