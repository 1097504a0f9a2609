"""The memory that large tensors free: kept by the process, instead of mapped afresh for every allocation."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Mapping

from nirvana.errors import unknown

VARIABLE = "NIRVANA_ALLOCATOR"
CHOICES = ("keep", "system")
OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")

_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1


def keep_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let glibc keep what large tensors free; whether that was set. Call it once, where a process starts.

    glibc maps every allocation of 32 MB and more afresh and gives it back when it is freed, so that each step touches
    all of its pages for the first time. `mallopt(M_MMAP_MAX, 0)` and `mallopt(M_TRIM_THRESHOLD, 2^31 - 1)` make it
    reuse them. Nothing is done where there is no glibc, where LD_PRELOAD brings another allocator, or where
    NIRVANA_ALLOCATOR is "system". Raises Refused for another value than "keep" and "system".
    """
    choice = environment.get(VARIABLE) or CHOICES[0]
    if choice not in CHOICES:
        raise unknown(f"allocator in {VARIABLE}", choice, CHOICES)
    if choice == "system" or any(name in environment.get("LD_PRELOAD", "") for name in OTHER_ALLOCATORS):
        return False
    mallopt = _mallopt()
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in settings)


def give_back() -> None:
    """Return to the system what was freed: what takes it up again would seem to need nothing, and others too much."""
    gc.collect()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _mallopt() -> Callable[[int, int], int] | None:
    """mallopt(3) of this process where its C library is glibc: (parameter, value) -> 1 where it was set."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc.mallopt if hasattr(libc, "gnu_get_libc_version") else None
