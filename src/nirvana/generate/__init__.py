"""Generating: a request, a model, and pictures that know how they were made. `SampleRequest` needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nirvana.generate.request import SampleRequest

if TYPE_CHECKING:
    from nirvana.generate.images import Images
    from nirvana.generate.model import Model, load
    from nirvana.generate.preview import Preview
    from nirvana.generate.reproduction import Reproduction, reproduce
    from nirvana.generate.sampler import Sampler

_HOMES = {
    "Images": "images",
    "Model": "model",
    "Preview": "preview",
    "Sampler": "sampler",
    "Reproduction": "reproduction",
    "load": "model",
    "reproduce": "reproduction",
}

__all__ = ["Images", "Model", "Preview", "Reproduction", "SampleRequest", "Sampler", "load", "reproduce"]


def __getattr__(name: str) -> object:
    # Lazy, so that checking a request costs no torch.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"nirvana.generate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'nirvana.generate' has no attribute '{name}'")
