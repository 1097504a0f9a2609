"""What holds for every test: one thread, no network, a cache of its own, the same random numbers, checked shapes."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

UNCHECKED = "NIRVANA_UNCHECKED" in os.environ
"""Mutation runs every test hundreds of times: there the checks of the next line, which take most of it, are off."""

# Every call of ours is checked against its annotations, shapes included. It must come before the first import of ours.
if not UNCHECKED:
    install_import_hook("nirvana", "typechecking.checked")

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)  # also fills fresh memory with NaN, so reading it shows

Unchecked = Callable[..., Any]
"""(function, its arguments) -> what it gives in a process without these checks, which takes a quarter of the time."""


@pytest.fixture(scope="session")
def unchecked() -> Iterator[Unchecked]:
    """A process that is started when it is first needed."""
    if UNCHECKED:
        yield lambda work, *arguments: work(*arguments)
        return
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield lambda work, *arguments: pool.submit(work, *arguments).result()


hypothesis.settings.register_profile(
    "nirvana", deadline=None, derandomize=True, database=None, max_examples=50, print_blob=False
)
hypothesis.settings.load_profile("nirvana")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches go to a temporary folder, here and in the processes that tests start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("NIRVANA_DATA", raising=False)
        yield folder


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Nothing touches the network unless asked: a connection to another machine fails the test."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_only)
        yield


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test is the same alone, in any order and on any worker."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """What a test changes in the environment ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
