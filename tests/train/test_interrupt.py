"""Signals wait for the end of what must not be half-done."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from nirvana.train.interrupt import interrupt_later


def raising(number: int, frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "sigint"),
    [
        (signal.SIGINT, raising),
        (signal.SIGTERM, raising),
        # As in the background of a shell.
        (signal.SIGTERM, signal.SIG_IGN),
    ],
)
def test_a_signal_is_held_to_the_end_of_the_block(number: signal.Signals, sigint: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, sigint)
    signal.signal(signal.SIGTERM, raising)
    done = False

    def half_done() -> None:
        nonlocal done
        with interrupt_later():
            os.kill(os.getpid(), number)
            done = True

    with pytest.raises(KeyboardInterrupt, match=number.name):
        half_done()
    assert done
    assert signal.getsignal(signal.SIGINT) is sigint and signal.getsignal(signal.SIGTERM) is raising


def test_a_second_signal_gets_through() -> None:
    signal.signal(signal.SIGINT, raising)

    def hanging() -> None:
        with interrupt_later():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("it was held")

    with pytest.raises(KeyboardInterrupt):
        hanging()


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, raising)
    with interrupt_later():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
