"""The network of a run in another engine: written beside its checkpoints with a parity report, and loaded again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from nirvana.engine import ENGINES, Engine, EngineNet, Inputs
from nirvana.errors import Refused, unknown
from nirvana.files import (
    Json,
    Written,
    explained,
    json_text,
    new_folder,
    read_sealed,
    remove_abandoned,
    sealed,
    write_chunks,
)
from nirvana.generate.family import check_diffusion
from nirvana.generate.origin import digest, machine
from nirvana.generate.parity import Deviation, Pictures, compare_pictures, fresh_calls
from nirvana.generate.spec import build, on_device
from nirvana.train.checkpoint import load_weights
from nirvana.train.device import DTYPES, pick_precision
from nirvana.train.run import RunFolder
from nirvana.zoo import beside, called

FORMAT_VERSION = 1
FOLDER, RECORD = "engines", "engine.json"
PRECISIONS = ("auto", "float32", "bfloat16")

BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""An engine whose output deviates relatively by more than this is not kept."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Exported:
    """An export: what it was made from and with, its files, and the parity report (`Deviation` by reference)."""

    folder: Path
    engine: str
    version: str
    precision: str
    processor: str
    weights_sha256: str
    inputs: Inputs
    files: Mapping[str, Written]
    network: Mapping[str, Deviation]
    pictures: Pictures

    @property
    def bytes(self) -> int:
        """The size of the engine's files."""
        return sum(file.size for file in self.files.values())

    def record(self) -> dict[str, Json]:
        """What its folder says of it, as JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "engine": self.engine,
            "version": self.version,
            "precision": self.precision,
            "processor": self.processor,
            "weights_sha256": self.weights_sha256,
            "inputs": self.inputs.to_json(),
            "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in self.files.items()},
            "parity": {
                "network": {name: deviation.to_json() for name, deviation in self.network.items()},
                "pictures": self.pictures.to_json(),
            },
        }

    def to_json(self) -> dict[str, Json]:
        """The record and where it lies."""
        return {"folder": str(self.folder), "bytes": self.bytes, **self.record()}


def export_run(run: RunFolder, engine: str, precision: str = "auto") -> Exported:
    """Write the network of `run`, with the averaged weights of its newest checkpoint, to `RUN/engines/ENGINE`.

    It replaces an older export in one step, after its outputs and pictures were compared with PyTorch's. Refused
    where the engine is unknown or not installed, the precision is not to be had, or a deviation exceeds `BOUNDS`;
    then nothing has changed.
    """
    chosen = _engine(engine)
    version, dtype = chosen.version(), _dtype(engine, chosen, precision)
    check_diffusion(run.model_spec, called(run.path), "network to export")
    weights = load_weights(run, "ema")
    parts = build(run.model_spec)
    parts.load(weights, called(run.path))
    calls = fresh_calls(on_device(parts, _CPU))
    inputs = Inputs.of(calls.inputs[0][0], calls.inputs[0][2])
    folder = beside(run.path) / FOLDER / engine
    with explained(folder, "make room, or make it writable, and run the same command again"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        with new_folder(folder, replace=True) as temporary:
            chosen.export(parts.denoiser.net, inputs, temporary, dtype)
            net = EngineNet(inputs, chosen.load(temporary, dtype))
            made = Exported(
                folder=folder,
                engine=engine,
                version=version,
                precision=_name(dtype),
                processor=_processor(),
                weights_sha256=digest(weights),
                inputs=inputs,
                files={path.name: _written(path) for path in sorted(temporary.iterdir())},
                network=_checked(calls.deviations(net), engine, dtype),
                pictures=compare_pictures(parts, net, str(run.path)),
            )
            write_chunks(temporary / RECORD, [json_text(sealed(made.record())).encode()])
    return made


def load_engine(run: RunFolder, engine: str, weights_sha256: str) -> nn.Module:
    """What `export_run` wrote, as a module for the place of the network, with as many threads as PyTorch has now.

    Refused, naming the command that mends it, where `engine` was not exported or is damaged, or where the weights
    (`weights_sha256` are those in use), the engine's version or, for machine code, the processor have changed since.
    """
    chosen, folder = _engine(engine), beside(run.path) / FOLDER / engine
    name = called(run.path)
    command = f"run `nirvana export {name} --engine {engine}`"
    if not (folder / RECORD).is_file():
        raise Refused(f"{name} has no engine '{engine}' yet; {command}")
    record = read_sealed(folder / RECORD, f"{command} again", FORMAT_VERSION)
    if changed := _changed(record, chosen, weights_sha256) or _damaged(record, folder):
        raise Refused(f"the engine in {folder} {changed}; {command} again")
    inputs = Inputs.from_json(cast("Mapping[str, Json]", record["inputs"]))
    return EngineNet(inputs, chosen.load(folder, DTYPES[cast(str, record["precision"])]))


def _changed(record: Mapping[str, Json], engine: Engine, weights_sha256: str) -> str | None:
    """What is not as it was at the export."""
    if record["weights_sha256"] != weights_sha256:
        return "was made of other weights than these (it has the averaged ones of the newest checkpoint by then)"
    if record["version"] != engine.version():
        return f"was made by its version {record['version']}, this is {engine.version()}"
    if engine.native and record["processor"] != _processor():
        return f"is machine code for another processor ({record['processor']})"
    return None


def _damaged(record: Mapping[str, Json], folder: Path) -> str | None:
    for name, file in cast("Mapping[str, Mapping[str, Json]]", record["files"]).items():
        if not (folder / name).is_file() or _sha256(folder / name) != file["sha256"]:
            return f"is damaged ({name} does not fit its sha256)"
    return None


def _engine(name: str) -> Engine:
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return ENGINES[name]


def _dtype(name: str, engine: Engine, precision: str) -> torch.dtype:
    """The precision an engine computes in; where none is asked for, bfloat16 if it has that and it is quicker here."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    dtype = pick_precision(precision, _CPU)
    if dtype not in engine.precisions:
        if precision != "auto":
            raise Refused(f"the engine '{name}' does not compute in {precision}; use the precision 'float32'")
        return torch.float32
    return dtype


def _checked(deviations: Mapping[str, Deviation], engine: str, dtype: torch.dtype) -> Mapping[str, Deviation]:
    """`deviations` that keep within the bound of `dtype`; Refused where they do not, or are NaN."""
    for reference in ("float32", "float64"):
        relative = deviations[reference].relative
        if not relative <= BOUNDS[dtype]:
            raise Refused(
                f"the engine '{engine}' deviates from PyTorch in {reference} by {relative:.2g} of the largest output,"
                f" more than the {BOUNDS[dtype]:g} allowed in {_name(dtype)}; nothing was kept, use another engine or"
                " precision"
            )
    return deviations


def _processor() -> str:
    found = machine(_CPU)
    return f"{found['processor']}, {found['instructions']}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(path: Path) -> Written:
    """Size and sha256 of what an engine wrote, flushed to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return Written(path.stat().st_size, _sha256(path))
