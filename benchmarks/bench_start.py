"""How long a user waits before anything happens: the median of ten fresh processes each."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 10
LIMITS = {"import nirvana": 0.1, "nirvana --help": 0.25}
"""Seconds that each may take."""


def seconds(command: list[str]) -> float:
    """The median time of `command` in a fresh process, after one that warms the disk's cache."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print each time beside its limit; `import nirvana` is counted without the start of the interpreter."""
    bare = seconds([sys.executable, "-c", "pass"])
    took = {
        "import nirvana": seconds([sys.executable, "-c", "import nirvana"]) - bare,
        "nirvana --help": seconds([str(Path(sys.executable).with_name("nirvana")), "--help"]),
    }
    for name, limit in LIMITS.items():
        print(f"{name}: {1000 * took[name]:.0f} ms (limit {1000 * limit:.0f} ms)")


if __name__ == "__main__":
    main()
