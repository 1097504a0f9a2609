"""Every source of a limit, from files as Linux writes them, and this process itself."""

from __future__ import annotations

import mmap
import resource
import sys
from pathlib import Path

import pytest
import torch

from nirvana.train.memory import UNKNOWN, available, current, peak, reset_peak

CPU = torch.device("cpu")
KB, MB = 1024, 2**20
STATUS = "Name:\tpython\nVmSize:\t  300 kB\nVmHWM:\t     120 kB\nVmRSS:\t     100 kB\nVmData:\t  200 kB\n"


@pytest.fixture(autouse=True)
def no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def tree(root: Path, files: dict[str, str]) -> Path:
    """A machine with 1000 MB left, and `files`."""
    basis = {"proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable:   {1000 * KB} kB\n", "proc/self/status": STATUS}
    for name, text in {**basis, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(where: str, limit: str, used: int, reclaimable: int = 0, version: int = 2) -> dict[str, str]:
    names = ("memory.max", "memory.current", "") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    base = f"sys/fs/cgroup/{where}"
    statistics = f"anon 5\n{'' if version == 2 else 'total_'}inactive_file {reclaimable}\nother x y\n"
    return {f"{base}/{names[0]}": f"{limit}\n", f"{base}/{names[1]}": f"{used}\n", f"{base}/memory.stat": statistics}


V2, V1 = "0::/a/b\n", "9:name=systemd:/a\n4:cpu,memory:/a/b\n"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 1000 * MB),
        ({"proc/self/cgroup": V2, **group("a/b", str(300 * MB), 100 * MB)}, 200 * MB),
        ({"proc/self/cgroup": V2, **group("a/b", str(300 * MB), 100 * MB, 40 * MB)}, 240 * MB),
        ({"proc/self/cgroup": V2, **group("a/b", "max", 100 * MB)}, 1000 * MB),
        ({"proc/self/cgroup": V2, **group("a/b", "max", 1), **group("a", str(50 * MB), 20 * MB)}, 30 * MB),
        ({"proc/self/cgroup": V2, **group(".", str(70 * MB), 20 * MB)}, 50 * MB),  # inside of a container
        ({"proc/self/cgroup": V2, **group("a/b", str(5 * MB), 6 * MB)}, 0),
        ({"proc/self/cgroup": V2, **group("a/b", str(2000 * MB), 0)}, 1000 * MB),
        ({"proc/self/cgroup": V1, **group("memory/a/b", str(90 * MB), 10 * MB, 1 * MB, version=1)}, 81 * MB),
        ({"proc/self/cgroup": V1, **group("memory", str(60 * MB), 10 * MB, version=1)}, 50 * MB),
        ({"proc/self/cgroup": V1, **group("memory/a/b", str(2**63 - 4096), 10, version=1)}, 1000 * MB),
        ({"proc/self/cgroup": V1, **group("a/b", str(MB), 0)}, 1000 * MB),  # not where version 1 has them
        ({"proc/self/cgroup": "nonsense\n::\n", "proc/meminfo": "MemAvailable: much\nMemAvailable"}, None),
    ],
)
def test_the_least_of_what_system_and_groups_leave(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    found = available(CPU, tree(tmp_path, files))
    if left is None:
        left = max(0, found)
        assert found > MB  # the machine that the test runs on
    assert found == left


@pytest.mark.parametrize(("kind", "held"), [(resource.RLIMIT_AS, 300), (resource.RLIMIT_DATA, 200)])
def test_the_limits_of_the_process(tmp_path: Path, kind: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (700 * KB, 800 * KB) if asked == kind else unlimited)
    assert available(CPU, tree(tmp_path, {})) == (700 - held) * KB


def test_where_nothing_tells_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sysconf")
    assert available(CPU, tmp_path) == UNKNOWN
    reset_peak(CPU, tmp_path)
    assert list(tmp_path.iterdir()) == []
    apple = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert KB * apple <= peak(CPU, tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert apple <= peak(CPU, tmp_path) < KB * apple
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak(CPU, tmp_path) == current(CPU, tmp_path) == 0


def test_what_is_held_and_was_held(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/clear_refs": ""})
    assert (current(CPU, root), peak(CPU, root)) == (100 * KB, 120 * KB)
    reset_peak(CPU, root)
    assert (root / "proc/self/clear_refs").read_text() == "5"


def test_this_process() -> None:
    size = 64 * MB
    reset_peak(CPU)
    before = current(CPU)
    # Mapped for this alone: what earlier tests have freed could hold a tensor without growing.
    with mmap.mmap(-1, size) as pages:
        for _ in range(size // MB):  # piece by piece: one text of all of it would be kept by the allocator beside it
            pages.write(b"\1" * MB)
        grown = current(CPU) - before
    assert size // 2 < grown < 2 * size
    assert peak(CPU) >= before + size // 2
    assert available(CPU) > 0


def test_cuda_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    device, asked = torch.device("cuda", 1), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: asked.append(where) or (100, 999))
    for name, value in (("memory_reserved", 30), ("memory_allocated", 20), ("max_memory_allocated", 25)):
        monkeypatch.setattr(torch.cuda, name, lambda where, value=value: asked.append(where) or value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    assert available(device) == 110
    assert (current(device), peak(device)) == (20, 25)
    reset_peak(device)
    assert asked == [device] * 6
