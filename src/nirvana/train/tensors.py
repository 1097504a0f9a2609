"""Named tensors in a safetensors file, streamed: constant memory, and the digest comes with the same pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nirvana.errors import Refused

# The format's names of the types (https://github.com/huggingface/safetensors#format).
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensor_chunks(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: header size, header, then one chunk a tensor (widest types first: aligned).

    Raises ValueError for a type the format does not know.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _TYPES:
            raise ValueError(f"tensor '{name}' is {tensor.dtype}, which safetensors does not store")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        if tensors[name].numel():
            flat = tensors[name].detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def read_tensors(path: Path, way_out: str) -> dict[str, Tensor]:
    """The tensors in `path`, on the CPU. Raises Refused, with the `way_out`, where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise Refused(f"{path} is missing; {way_out}") from None
    except (SafetensorError, OSError) as error:
        raise Refused(f"{path} is damaged ({error}); {way_out}") from None
