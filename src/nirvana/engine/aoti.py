"""AOTInductor: PyTorch's own compiler, ahead of time. It needs no further package, but a C++ compiler."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from nirvana.engine.network import Inputs, Run, traced, unwarned
from nirvana.errors import Refused

_FILE = "network.pt2"


class Aoti:
    """The network as machine code for this processor and this version of PyTorch."""

    native = True
    precisions = (torch.float32, torch.bfloat16)

    def version(self) -> str:
        """The version of PyTorch."""
        return torch.__version__

    def export(self, net: nn.Module, inputs: Inputs, folder: Path, precision: torch.dtype) -> None:
        """Write network.pt2. Raises Refused where there is no C++ compiler."""
        from torch._inductor import aoti_compile_and_package

        _check_compiler()
        # The number of threads is that of the running process, not of this one.
        settings = {"cpp.dynamic_threads": True, "freezing": True}
        with unwarned():
            program = traced(net, inputs, precision)
            aoti_compile_and_package(program, package_path=str(folder / _FILE), inductor_configs=settings)

    def load(self, folder: Path, precision: torch.dtype) -> Run:
        """The machine code, loaded into this process."""
        from torch._inductor import aoti_load_package

        del precision  # it is in the code
        compiled = aoti_load_package(str(folder / _FILE))
        return lambda tensors: compiled(*tensors)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise Refused(
            "the engine 'aoti' needs a C++ compiler, and none was found; install g++ or clang++, name one in CXX, or"
            " use the engine 'openvino'"
        ) from None
