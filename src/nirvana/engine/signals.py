"""The stack that signal handlers run on, which a library may not leave to memory that it frees."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux: where the alternate stack begins, SS_* flags, its bytes."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """The alternate signal stack of the calling thread. Linux only."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def own_signal_stack() -> Generator[None]:
    """The thread's alternate signal stack is afterwards what it was before.

    OpenVINO's CPU plugin sets one (AMX asks for more room), and frees it with the last network: the first signal after
    that, such as Ctrl-C, would be written to memory that is gone, and end the process. Only Linux has it so.
    """
    if sys.platform != "linux":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
