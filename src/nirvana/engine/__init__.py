"""Networks in the engines of others: exported once, then called like the network they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nirvana.engine.aoti import Aoti
from nirvana.engine.network import Engine, EngineNet, Inputs
from nirvana.engine.onnx import Onnx
from nirvana.engine.openvino import OpenVino

ENGINES: Mapping[str, Engine] = MappingProxyType({"openvino": OpenVino(), "onnx": Onnx(), "aoti": Aoti()})
"""The engines by name. Their packages are imported at first use."""

__all__ = ["ENGINES", "Engine", "EngineNet", "Inputs"]
