"""nirvana: diffusion models, from noise to anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nirvana.generate import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> object:
    # Lazy, so that `import nirvana` costs no torch.
    if name == "load":
        from nirvana.generate import load

        return load
    raise AttributeError(f"module 'nirvana' has no attribute '{name}'")
