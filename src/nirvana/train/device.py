"""What to compute on, and in which precision."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from nirvana.errors import Refused, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_TRIALS = 15
_WORTH = 1.1
"""By so much bfloat16 has to be quicker: it rounds to 8 bits."""


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA, else MPS, else the CPU. Raises Refused where it is not there."""
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and not number.isdecimal()):
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


@cache
def bfloat16_pays(device: torch.device) -> bool:
    """Whether training is quicker in bfloat16 than in float32; on a CPU measured once a process, in half a second.

    That the hardware computes in it does not say so: some processors issue fewer of its instructions than of float32's.
    """
    if not has_bfloat16(device):
        return False
    if device.type != "cpu":
        return True
    seconds = {dtype: float("inf") for dtype in (torch.float32, torch.bfloat16)}
    for _ in range(_TRIALS):
        for dtype in seconds:
            seconds[dtype] = min(seconds[dtype], _block_seconds(dtype))
    return seconds[torch.bfloat16] * _WORTH < seconds[torch.float32]


def _block_seconds(dtype: torch.dtype) -> float:
    """A block of a U-Net, forward and backward, as training runs it in `dtype`: wide and narrow, norms and all."""
    layers: list[nn.Module] = []
    for channels, out in ((64, 128), (128, 64)):
        layers += [nn.GroupNorm(8, channels), nn.SiLU(), nn.utils.skip_init(nn.Conv2d, channels, out, 3, padding=1)]
    net = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for weights in net.parameters():
        nn.init.constant_(weights, 0.01)
    x = torch.ones(16, 64, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = net(x)
    torch.autograd.backward(out.sum())
    return time.perf_counter() - started


def pick_precision(precision: str, device: torch.device) -> torch.dtype:
    """float32 or bfloat16: what was asked for, or for "auto" the quicker one. Refused where bfloat16 is not there."""
    if precision == "auto":
        return torch.bfloat16 if bfloat16_pays(device) else torch.float32
    if precision == "bfloat16" and not has_bfloat16(device):
        raise Refused(f"this {device.type} does not compute in bfloat16; use the precision 'auto' or 'float32'")
    return DTYPES[precision]


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
