"""`nirvana export`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console, duration

if TYPE_CHECKING:
    from nirvana.generate.export import Exported
    from nirvana.generate.parity import Deviation


def export(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    *,
    engine: Annotated[str, arg(metavar="openvino|onnx|aoti")] = "openvino",
    precision: Annotated[str, arg(metavar="auto|float32|bfloat16")] = "auto",
) -> None:
    """Write a model's network for a faster engine, and say how far its pictures are from PyTorch's.

    It goes to MODEL/engines/ENGINE; `nirvana generate MODEL --engine ENGINE` draws with it. openvino and onnx need the
    extra: pip install 'nirvana[engine]'; aoti needs a C++ compiler.

    examples:
      nirvana export runs/flowers
      nirvana export runs/flowers --engine aoti --precision float32

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        engine: what is to run the network
        precision: of the network's arithmetic; auto is bfloat16 where the engine has it and it is quicker here
    """
    from nirvana.generate.export import export_run
    from nirvana.generate.model import find
    from nirvana.train.run import RunFolder
    from nirvana.zoo import called

    run = RunFolder.open(find(model))
    console.note(f"exporting to '{engine}' and comparing with PyTorch; this takes up to a few minutes")
    started = time.perf_counter()
    made = export_run(run, engine, precision)
    seconds = time.perf_counter() - started
    console.result(_lines(called(run.path), made, seconds), {**made.to_json(), "seconds": round(seconds, 3)})


def _lines(name: str, made: Exported, seconds: float) -> str:
    pictures, request, network = made.pictures, made.pictures.request, made.network
    rows = {
        "engine": f"{made.engine} {made.version}, {made.precision}",
        "written": f"{made.folder} ({made.bytes / 1e6:.1f} MB, {duration(seconds)})",
        "network": f"{_figures(network['float32'])} from PyTorch in float32, {_figures(network['float64'])} in float64",
        "itself": f"PyTorch in float32 is {_figures(network['torch'])} from float64",
        "pictures": f"{pictures.largest:.1e} apart at most ({pictures.mean:.1e} on average), in bytes"
        f" {pictures.largest_byte}/255 ({request.n} pictures, {request.steps} steps of {request.solver})",
        "draw": f"nirvana generate {name} --engine {made.engine}",
    }
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items())


def _figures(deviation: Deviation) -> str:
    return f"{deviation.absolute:.1e} ({deviation.relative:.1e} relative)"
