"""Checkpoints, EMA snapshots and weights: tensors on their way to the disk and back, with every byte verified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nirvana.errors import Refused
from nirvana.files import Json, Written, json_text, new_folder, remove_folder, replace_chunks, sealed, write_chunks
from nirvana.train.ema import Average, synthesize
from nirvana.train.run import FORMAT_VERSION, Checkpoint, RunFolder, Snapshot
from nirvana.train.tensors import read_tensors, tensor_chunks
from nirvana.zoo import called

TASK, OPTIMIZER = "task.safetensors", "optimizer.safetensors"
_CHUNK = 1 << 20


class Progress(NamedTuple):
    """What a checkpoint knows besides its tensors (see `Checkpoint`)."""

    images: int
    scheduled: bool
    settled: bool
    rollbacks: int
    seconds: float
    window: list[Json]


def _ema_name(profile: int) -> str:
    return f"ema{profile}.safetensors"


def save(
    run: RunFolder,
    progress: Progress,
    task: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    averages: Sequence[Average],
) -> Path:
    """Write a checkpoint; it is on the disk, or (OSError) was never there, when this returns.

    One of the same name is replaced: only an unscheduled one can be there, or one that a rollback left behind.
    """
    path = run.checkpoint_path(progress.images)
    contents = {TASK: task, OPTIMIZER: optimizer}
    contents.update({_ema_name(number): average.tensors for number, average in enumerate(averages)})
    with new_folder(path, replace=True) as temporary:
        written = {name: write_chunks(temporary / name, tensor_chunks(t)) for name, t in contents.items()}
        text = json_text(sealed(state_of(progress, averages, written)))
        write_chunks(temporary / "state.json", [text.encode()])
    return path


def state_of(progress: Progress, averages: Sequence[Average], written: Mapping[str, Written]) -> dict[str, Json]:
    """What `state.json` says of a checkpoint, before it is sealed."""
    return {
        "format_version": FORMAT_VERSION,
        "images": progress.images,
        "scheduled": progress.scheduled,
        "settled": progress.settled,
        "rollbacks": progress.rollbacks,
        "seconds": progress.seconds,
        "window": progress.window,
        "sigma_rels": [average.sigma_rel for average in averages],
        "files": {name: {"bytes": file.size, "sha256": file.sha256} for name, file in written.items()},
    }


def verify(checkpoint: Checkpoint, names: Sequence[str] | None = None) -> None:
    """Compare size and sha256 of the files (all, or `names`) with the state. Raises Refused, naming the damaged one."""
    for name in checkpoint.files if names is None else names:
        path = checkpoint.path / name
        if name not in checkpoint.files or not path.is_file():
            raise Refused(f"{path} is missing; {checkpoint.way_out}")
        size, sha256 = checkpoint.files[name]
        if path.stat().st_size != size:
            raise Refused(f"{path} is damaged ({path.stat().st_size} bytes, not {size}); {checkpoint.way_out}")
        if _sha256(path) != sha256:
            raise Refused(f"{path} is damaged (its sha256 does not fit); {checkpoint.way_out}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def load(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors of a file of a checkpoint, verified. Raises Refused where it is missing or damaged."""
    verify(checkpoint, [name])
    return read_tensors(checkpoint.path / name, checkpoint.way_out)


def load_averages(checkpoint: Checkpoint) -> list[Average]:
    """The EMA weights of a checkpoint, in the order of its profiles."""
    return [
        Average(checkpoint.images, sigma_rel, load(checkpoint, _ema_name(number)))
        for number, sigma_rel in enumerate(checkpoint.sigma_rels)
    ]


def save_snapshot(run: RunFolder, fraction: Fraction, average: Average) -> Path:
    """Keep an average for later (autoguidance, other EMA lengths), in one step."""
    path = run.snapshot_path(fraction, average.sigma_rel)
    replace_chunks(path, tensor_chunks(average.tensors))
    return path


def load_snapshot(run: RunFolder, snapshot: Snapshot) -> Average:
    """A kept average. Raises Refused where it is damaged."""
    way_out = "delete it (only guidance by early weights and other EMA lengths need it), or restore it from a copy"
    images = run.plan.snapshot_images(snapshot.fraction)
    return Average(images, snapshot.sigma_rel, read_tensors(snapshot.path, way_out))


def prune(run: RunFolder) -> None:
    """Delete checkpoints that are not needed: all but the newest `keep` scheduled ones and the newest of all.

    Call it only when the newest checkpoint is durable. Those that a rollback left behind go as well.
    """
    valid = list(run.valid_checkpoints())
    needed = [checkpoint for checkpoint in valid if checkpoint.scheduled][: run.plan.keep]
    paths = {checkpoint.path for checkpoint in (*valid[:1], *needed)}
    for checkpoint in list(run.checkpoints()):
        if checkpoint.path not in paths:
            remove_folder(checkpoint.path)


def newest(run: RunFolder) -> Checkpoint:
    """The newest checkpoint. Raises Refused where there is none yet."""
    checkpoint = run.latest()
    if checkpoint is None:
        raise Refused(f"{called(run.path)} has no checkpoint yet; let the training go on until it has saved one")
    return checkpoint


def load_weights(
    run: RunFolder, which: Literal["ema", "raw"] = "ema", sigma_rel: float | None = None
) -> dict[str, Tensor]:
    """Weights of the newest checkpoint under the names of the task's `state_dict`, on the CPU.

    "ema": averaged, with the plan's first profile, or with width `sigma_rel` (a tracked one, or one made from all
    kept averages); tensors that are not averaged are the trained ones. "raw": as trained.
    Raises Refused where there is no checkpoint, a file is missing or damaged, or a packed run has only averages.
    """
    checkpoint = newest(run)
    weights = load(checkpoint, TASK)
    if checkpoint.packed:
        if which == "raw" or sigma_rel is not None:
            raise Refused(f"{called(run.path)} is packed, with its averaged weights alone; leave the weights at 'ema'")
        return {name: tensor.float() if tensor.dtype == torch.half else tensor for name, tensor in weights.items()}
    if which == "ema":
        weights.update(_average(run, checkpoint, checkpoint.sigma_rels[0] if sigma_rel is None else sigma_rel))
    return weights


def _average(run: RunFolder, checkpoint: Checkpoint, sigma_rel: float) -> Mapping[str, Tensor]:
    if sigma_rel in checkpoint.sigma_rels:
        return load(checkpoint, _ema_name(checkpoint.sigma_rels.index(sigma_rel)))
    if checkpoint.images == 0:
        raise Refused(
            f"{called(run.path)} has trained no step yet; let the training go on until it has saved a checkpoint"
        )
    _check_width(sigma_rel)
    kept = [average for valid in run.valid_checkpoints() for average in load_averages(valid) if valid.images > 0]
    moments = {average.images for average in kept}
    for snapshot in run.snapshots():
        images = run.plan.snapshot_images(snapshot.fraction)
        if images < checkpoint.images and images not in moments:
            kept.append(load_snapshot(run, snapshot))
    return synthesize(kept, checkpoint.images, sigma_rel)


def earlier_moments(run: RunFolder) -> dict[Fraction, int]:
    """The fractions of the run before its newest checkpoint whose average was kept, and the images seen by then."""
    images = {snapshot.fraction: run.plan.snapshot_images(snapshot.fraction) for snapshot in run.snapshots()}
    return {fraction: seen for fraction, seen in images.items() if seen < newest(run).images}


def load_earlier(run: RunFolder, at: Fraction | int, sigma_rel: float | None = None) -> dict[str, Tensor]:
    """Averaged weights of an earlier moment, a fraction of the run or images seen, as `load_weights` gives the newest.

    sigma_rel: the width; None is the plan's first profile, another than the kept ones is made of those up to then.
    Raises Refused, listing the moments there are, where none was kept at `at`, or a file is missing or damaged.
    """
    moments = earlier_moments(run)
    found = next((fraction for fraction, images in moments.items() if at in (fraction, images)), None)
    if found is None:
        listed = ", ".join(f"{fraction} ({images} images)" for fraction, images in moments.items())
        raise Refused(
            f"{called(run.path)} kept no earlier weights at {at}; it has {listed or 'none before its newest'}"
        )
    kept = [snapshot for snapshot in run.snapshots() if snapshot.fraction in moments and snapshot.fraction <= found]
    width = run.plan.ema[0] if sigma_rel is None else sigma_rel
    exact = next((one for one in kept if (one.fraction, one.sigma_rel) == (found, width)), None)
    weights = load(newest(run), TASK)
    if exact is not None:
        return {**weights, **load_snapshot(run, exact).tensors}
    if sigma_rel is None:
        raise Refused(f"{called(run.path)} lacks {run.snapshot_path(found, width)}; name another moment, or a width")
    _check_width(width)
    return {**weights, **synthesize([load_snapshot(run, one) for one in kept], moments[found], width)}


def _check_width(sigma_rel: float) -> None:
    if not 0 < sigma_rel < 0.288:
        raise Refused(f"an EMA length of {sigma_rel} does not exist; give one between 0 and 0.288 (0.1 is usual)")
