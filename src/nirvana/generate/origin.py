"""Where a picture comes from: the model, its weights, the versions and the machine, written into every file."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nirvana.condition import Reading
from nirvana.files import Json
from nirvana.train.run import versions


@dataclass(frozen=True)
class Origin:
    """path: of the run, absolute; sha256: of the weights' names, shapes and bytes; images: seen in training by then.

    machine: what else decides about the last bit of a sum, among it the number of threads. read: how the model reads
    the texts of the request, by text.
    """

    path: str
    sha256: str
    images: int
    versions: Mapping[str, Json]
    machine: Mapping[str, Json]
    read: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def to_json(self) -> dict[str, Json]:
        """Where it comes from, as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "read"}


def origin(
    path: Path,
    sha256: str,
    images: int,
    device: torch.device,
    compiled: bool = False,
    readings: Sequence[Reading] = (),
) -> Origin:
    """The origin of what is generated now, on this machine, from the run at `path`, by a `compiled` network or not."""
    read: dict[str, Json] = {reading.text: reading.to_json() for reading in readings}
    return Origin(str(path.resolve()), sha256, images, _versions(), machine(device, compiled), read)


def machine(device: torch.device, compiled: bool = False) -> dict[str, Json]:
    """What of this machine may change the rounding; "compiled" only where it is."""
    found: dict[str, Json] = {
        "system": platform.system(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
    return {**found, "compiled": True} if compiled else found


@functools.cache
def _versions() -> dict[str, Json]:
    return versions()


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 over the sorted names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
