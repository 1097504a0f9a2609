"""Imports denoising-diffusion-pytorch where torchvision is not installed."""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

if find_spec("torchvision") is None:
    # Only its Trainer's data set and picture grid use torchvision. Its dependencies ask whether torchvision is there
    # and must hear the truth, so they are imported before the empty stand-ins.
    import accelerate  # noqa: F401

    for name in ("torchvision", "torchvision.transforms", "torchvision.utils"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        sys.modules[name] = module
        parent, _, child = name.partition(".")
        if child:
            setattr(sys.modules[parent], child, module)

from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA

__all__ = ["EMA", "GaussianDiffusion", "Unet"]
