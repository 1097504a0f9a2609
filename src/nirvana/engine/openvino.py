"""OpenVINO: the runtime of Intel, for its processors and those of AMD (extra "engine")."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import nn

from nirvana.engine.network import Inputs, Run, package, traced, unwarned
from nirvana.engine.signals import own_signal_stack

_FILE = "network.xml"


def _openvino() -> ModuleType:
    # It reports every import to its maker, unless this package is missing. Nothing here touches the network unasked.
    cast("dict[str, ModuleType | None]", sys.modules).setdefault("openvino_telemetry", None)
    with unwarned():
        return package("openvino")


class OpenVino:
    """The network in OpenVINO's own format, weights in float32; bfloat16 is a matter of running it."""

    native = False
    precisions = (torch.float32, torch.bfloat16)

    def version(self) -> str:
        """The version of OpenVINO. Raises Refused where it is not installed."""
        return _openvino().__version__

    def export(self, net: nn.Module, inputs: Inputs, folder: Path, precision: torch.dtype) -> None:
        """Write network.xml and network.bin."""
        del precision  # the file holds float32 either way; `load` chooses
        openvino = _openvino()
        with unwarned():
            model = openvino.convert_model(traced(net, inputs))
        # The conversion forgets all sizes; known ones give better kernels.
        sizes = [inputs.x, (), *(inputs.cond[name] for name in inputs.slots)]
        model.reshape({i: openvino.PartialShape([-1, *size]) for i, size in enumerate(sizes)})
        openvino.save_model(model, folder / _FILE, compress_to_fp16=False)

    def load(self, folder: Path, precision: torch.dtype) -> Run:
        """The network compiled for this processor, for the least time a call."""
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if precision == torch.bfloat16 else "f32",
            # Pinned threads of two processes would share one core and leave another idle.
            "ENABLE_CPU_PINNING": False,
        }
        core = _openvino().Core()
        with own_signal_stack():
            compiled = core.compile_model(core.read_model(folder / _FILE), "CPU", settings)
        request = compiled.create_infer_request()
        # The result is copied out: its memory is overwritten by the next call.
        return lambda tensors: torch.from_numpy(
            request.infer([t.numpy() for t in tensors], share_inputs=True, share_outputs=False)[0]
        )
