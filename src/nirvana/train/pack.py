"""A run folder of nothing but what makes pictures: averaged weights in 16 bits. It can be given away."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nirvana.errors import Refused
from nirvana.files import Json, explained, json_text, new_folder, sealed, write_chunks
from nirvana.train.checkpoint import TASK, Progress, load_weights, newest, state_of
from nirvana.train.run import CHECKPOINTS, DATA, RUN, RunFolder
from nirvana.train.tensors import tensor_chunks


def pack(run: RunFolder, out: Path, model: Mapping[str, Json] | None = None) -> RunFolder:
    """The folder `out` with the description of `run` and its averaged weights, rounded to 16 bits.

    model: the description of the model where it is not the run's own (what it recommends may be another).
    It generates, is evaluated and is a start for `--from` like any run; training does not go on in it. It appears
    complete or not at all, without the command that made the run. Refused where `out` is there, where there is no
    checkpoint, or where a weight is beyond what 16 bits hold.
    """
    out = Path(out)
    if out.exists():
        raise Refused(f"{out} is there already; choose another name, or move it away")
    checkpoint = newest(run)
    weights = {name: half(tensor, name, run.path) for name, tensor in load_weights(run).items()}
    progress = Progress(checkpoint.images, True, True, 0, checkpoint.seconds, [])
    with explained(out, "make room or choose another place"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(out) as temporary:
            # The command line names folders of this machine: it stays behind.
            info: dict[str, Json] = {**run.info, "command": "", "model": dict(model or run.model_spec)}
            write_chunks(temporary / RUN, [json_text(sealed(info)).encode()])
            write_chunks(temporary / DATA, [(run.path / DATA).read_bytes()])
            folder = temporary / CHECKPOINTS / checkpoint.path.name
            folder.mkdir(parents=True)
            written = {TASK: write_chunks(folder / TASK, tensor_chunks(weights))}
            write_chunks(folder / "state.json", [json_text(sealed(state_of(progress, [], written))).encode()])
    return RunFolder.open(out)


def half(tensor: Tensor, name: str, where: Path) -> Tensor:
    """`tensor` in 16 bits where it is a matrix of more; vectors (norms, biases) are small and stay as they are."""
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    rounded = tensor.half()
    if not bool(rounded.isfinite().all()):
        raise Refused(f"the weights '{name}' of {where} are beyond 16 bits; train with a smaller rate")
    return rounded
