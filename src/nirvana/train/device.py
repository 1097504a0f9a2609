"""What to compute on, and in which precision."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from nirvana.errors import Refused, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA, else MPS, else the CPU. Raises Refused where it is not there."""
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdigit()):
        raise unknown("device", name, DEVICES)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    if not there[kind] or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        raise Refused(f"device '{name}' is not there; use 'auto' or 'cpu'")
    return torch.device(name)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16, rather than emulating it at a loss."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16 for a plan's `precision`. Raises Refused where bfloat16 is asked for and not there."""
    if precision == "float32" or (precision == "auto" and not has_bfloat16(device)):
        return torch.float32
    if not has_bfloat16(device):
        raise Refused(f"this {device.type} does not compute in bfloat16; use the precision 'auto' or 'float32'")
    return torch.bfloat16


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, which is on the CPU, on `device`; CUDA fetches it from page-locked memory while the host goes on.

    Not so on MPS, which may read the memory of `tensor` after that was freed.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type != "mps")


@contextmanager
def seeded(device: torch.device, *key: object) -> Generator[None, None, None]:
    """Seed torch's generators of the CPU and `device` from `key`, and put them back afterwards.

    For what draws by itself (dropout): the one use of torch's global generator.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little") >> 1
    # MPS has one generator and no place in fork_rng.
    apple = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif apple is not None:
            torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            if apple is not None:
                torch.mps.set_rng_state(apple)
