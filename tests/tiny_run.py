"""A run folder with a tiny network of random weights, made through the real API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from nirvana.condition import Concat
from nirvana.generate.spec import build, network_spec
from nirvana.nn import UNetConfig
from nirvana.train import checkpoint
from nirvana.train.ema import Average
from nirvana.train.plan import TrainPlan
from nirvana.train.run import RunFolder

NAMES = ("cat", "dog", "otter")


def spec(
    names: Sequence[str] = NAMES, channels: int = 1, concat: Concat | None = None, **changes: object
) -> dict[str, object]:
    """The description of a tiny model of 8x8 pictures."""
    dim = 8 if names else 0
    learned = bool(changes.get("learned_variance", False))
    config = UNetConfig(
        channels,
        channels * (2 if learned else 1),
        width=8,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        group_width=4,
        vector_dim=dim,
        concat_channels=0 if concat is None else concat.width,
    )
    conditioner = {"kind": "labels", "names": list(names), "dim": dim} if names else {"kind": "none"}
    return {
        "network": network_spec(config),
        "parameterization": "flow",
        "native": "sum",
        "c_in": "none",
        "c_noise": "flow_time",
        "schedule": {"kind": "rectified-flow"},
        "conditioner": conditioner,
        "codec": {"kind": "identity"},
        "shape": [channels, 8, 8],
        "learned_variance": learned,
        "trained_lam": [-5.0, 5.0],
        "recommended": {"steps": 3, "solver": "ddim", "guidance": 2.0 if names else 1.0},
        **({} if concat is None else {"concat": concat.config()}),
        **changes,
    }


def weights(description: Mapping[str, object], seed: int) -> dict[str, torch.Tensor]:
    """Random weights for it, none of them zero, so that condition and noise matter."""
    shapes = build(description).modules().state_dict()
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=rng) * 0.3 for name, value in shapes.items()}


def make_run(path: Path, description: Mapping[str, object] | None = None, seed: int = 1) -> Path:
    """A finished run at `path` with EMA weights of `seed` and raw ones of `seed + 1`."""
    description = spec() if description is None else description
    plan = TrainPlan(images=100, batch=10)
    manifest = {"source": "pets", "pictures": 100, "rejected": [{"path": "bad.png", "reason": "not a picture"}]}
    run = RunFolder.create(path, {"recipe": "tiny"}, plan, manifest, description, "nirvana train pets")
    save(run, description, seed)
    return path


def save(run: RunFolder, description: Mapping[str, object], seed: int, images: int = 100) -> None:
    """A checkpoint of random weights."""
    averages = [Average(images, width, weights(description, seed)) for width in run.plan.ema]
    progress = checkpoint.Progress(images, True, True, 0, 1.0, [])
    checkpoint.save(run, progress, weights(description, seed + 1), {}, averages)
