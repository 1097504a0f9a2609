"""Weights of foreign networks, read without running any code that a file could bring along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from nirvana.errors import Refused


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a `.safetensors` file or of a torch state dict.

    A torch file is read by its `weights_only` reader, which knows tensors and containers and calls nothing else.
    Refused where the file is missing, damaged, or holds anything but named tensors.
    """
    if not path.is_file():
        raise Refused(f"{path}: no such file of weights; name a .safetensors file or a torch state dict (.pth, .pt)")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise Refused(f"{path}: cannot be read ({_first_line(error)}); restore it from a copy") from None
    except Exception as error:  # the reader raises its own and whatever a damaged archive makes of it
        raise Refused(
            f"{path}: holds no plain weights ({_first_line(error)}); save the state dict of the network alone"
        ) from None
    tensors = found if isinstance(found, Mapping) else {}
    if not tensors or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()):
        raise Refused(f"{path}: holds no named tensors; save the state dict of the network alone")
    return dict(tensors)


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load `weights` into `network`, which must have each of them in its shape. Refused naming the first difference."""
    own = network.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    strange = [name for name in weights if name not in own]
    wrong = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    kind = type(network).__name__
    if missing or strange:
        difference = f"it lacks '{missing[0]}'" if missing else f"it has '{strange[0]}' besides"
        raise Refused(f"{path}: not the weights of {kind}: {difference}")
    if wrong:
        shapes = f"{list(weights[wrong[0]].shape)}, not {list(own[wrong[0]].shape)}"
        raise Refused(f"{path}: not the weights of {kind}: '{wrong[0]}' has shape {shapes}")
    network.load_state_dict(dict(weights), strict=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
