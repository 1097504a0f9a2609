"""ONNX: a file that many programs read, run here by onnxruntime (extra "engine")."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from nirvana.engine.network import Inputs, Run, package, traced, unwarned

_FILE = "network.onnx"


class Onnx:
    """The network as one ONNX file with named inputs and the output F, in float32."""

    native = False
    precisions = (torch.float32,)

    def version(self) -> str:
        """The version of onnxruntime. Raises Refused where it, or what writes the files, is not installed."""
        for writer in ("onnx", "onnxscript"):
            package(writer)
        return package("onnxruntime").__version__

    def export(self, net: nn.Module, inputs: Inputs, folder: Path, precision: torch.dtype) -> None:
        """Write network.onnx."""
        del precision  # there is only one
        with unwarned(), _silent("torch.onnx"):
            program = torch.onnx.export(
                traced(net, inputs),
                dynamo=True,
                verbose=False,
                input_names=list(inputs.names),
                output_names=["F"],
            )
            if program is None:
                raise RuntimeError("torch.onnx.export gave no program")
            program.save(folder / _FILE)

    def load(self, folder: Path, precision: torch.dtype) -> Run:
        """The network in a session on the CPU."""
        del precision
        runtime = package("onnxruntime")
        runtime.disable_telemetry_events()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        session = runtime.InferenceSession(str(folder / _FILE), options, providers=["CPUExecutionProvider"])
        names = [taken.name for taken in session.get_inputs()]
        return lambda tensors: torch.from_numpy(
            session.run(["F"], {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})[0]
        )


@contextmanager
def _silent(name: str) -> Generator[None]:
    """The exporter logs a warning for every package that it looks for and that is not there."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
