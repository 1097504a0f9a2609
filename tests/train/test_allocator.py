"""What is asked of malloc, when nothing is, and that a large tensor then finds its old pages again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nirvana.errors import Refused
from nirvana.train import allocator
from nirvana.train.allocator import keep_memory


class FakeLibc:
    def __init__(self, works: bool = True) -> None:
        self.asked: list[tuple[int, int]] = []
        self.works = works

    def mallopt(self, parameter: int, value: int, /) -> int:
        self.asked.append((parameter, value))
        return int(self.works)


@pytest.fixture
def libc(monkeypatch: pytest.MonkeyPatch) -> FakeLibc:
    fake = FakeLibc()
    monkeypatch.setattr(allocator, "_mallopt", lambda: fake.mallopt)
    return fake


@pytest.mark.parametrize("environment", [{}, {"NIRVANA_ALLOCATOR": ""}, {"NIRVANA_ALLOCATOR": "keep"}])
def test_mmap_is_switched_off_and_nothing_is_trimmed(libc: FakeLibc, environment: dict[str, str]) -> None:
    assert keep_memory(environment)
    assert libc.asked == [(-4, 0), (-1, 2147483647)]


@pytest.mark.parametrize(
    "environment",
    [
        {"NIRVANA_ALLOCATOR": "system"},
        {"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"},
        {"LD_PRELOAD": "/opt/a.so:/usr/lib/libtcmalloc_minimal.so.4", "NIRVANA_ALLOCATOR": "keep"},
    ],
)
def test_the_choice_of_the_user_stands(libc: FakeLibc, environment: dict[str, str]) -> None:
    assert not keep_memory(environment)
    assert libc.asked == []


def test_an_unknown_choice_is_refused(libc: FakeLibc) -> None:
    with pytest.raises(Refused, match="NIRVANA_ALLOCATOR 'sistem'; did you mean 'system'"):
        keep_memory({"NIRVANA_ALLOCATOR": "sistem"})
    assert libc.asked == []


def test_a_setting_that_was_not_taken_is_not_reported(libc: FakeLibc) -> None:
    libc.works = False
    assert not keep_memory({})


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Musl:
        """A C library that does not call itself glibc."""

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _name: Musl())
    assert not keep_memory({})
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not keep_memory({})


FAULTS = """
import resource
import torch
from nirvana.train.allocator import keep_memory

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(megabytes << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(96), faults(64), keep_memory(), keep_memory(), faults(96), faults(64))
"""


@pytest.mark.skipif(allocator._mallopt() is None, reason="only glibc maps large tensors afresh")
def test_a_large_tensor_finds_its_old_pages() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, once, twice, after = (lambda found: (found[:2], found[2], found[3], found[4:]))(done.stdout.split())
    assert once == twice == "True"
    # 64 MB are 16384 pages of 4 kB, or 32 of 2 MB.
    assert [int(faults) >= 32 for faults in (*before, *after)] == [True, True, True, False]
