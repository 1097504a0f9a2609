"""The searched grid of a request: found once for a model and its settings, then taken from the user's cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from nirvana import files
from nirvana.diffusion.level import Level, float64
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import start
from nirvana.diffusion.search import candidates, search
from nirvana.errors import Refused
from nirvana.files import Json
from nirvana.generate.grids import SEARCHED, listed
from nirvana.generate.request import SEEDS, SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.generate.steering import solver_of

TRAJECTORIES = 64
"""Walks that a grid is found on."""

FORMAT = 1
"""Version of the search: a grid found by another one is found anew."""

_SEED = SEEDS - 2**20
"""Of the first walk: far from the seeds people use, on which the grid is not to be fitted."""


def settled(
    sampler: Sampler,
    request: SampleRequest,
    sha256: str,
    spec: Mapping[str, Json],
    progress: Callable[[int, int], None] | None = None,
) -> SampleRequest:
    """`request` with the levels of its searched grid written out, so that it says all by itself; others as they are.

    sha256: of the weights; spec: of the model. The grid is found at the first use and kept in `cache_folder("grids")`,
    one file for each model, schedule, solver, number of steps and guidance. progress(done, at most) is called while it
    is searched. Refused where the model cannot do the request, no grid can be searched for it, or it gives no finite
    numbers.
    """
    if request.grid != SEARCHED:
        return request
    sampler.check(request)
    warm = _warm(sampler, request)
    key = files.digest_of({"search": FORMAT, "sha256": sha256, "spec": spec, "request": warm.to_json()})
    path = files.cache_folder("grids") / f"{key}.json"
    grid = _cached(path)
    if grid is None:
        grid = _found(sampler, warm, progress)
        _keep(path, {"grid": grid, "sha256": sha256, "request": warm.to_json()})
    return dataclasses.replace(request, grid=grid)


def _warm(sampler: Sampler, request: SampleRequest) -> SampleRequest:
    """The request whose walks the grid is found on: what steers the model is as asked for, the rest is always the same.

    A model with classes or texts walks to all of them (or of its examples) in turn, so one grid serves all.
    """
    prompts = sampler.parts.conditioner.prompts
    labels = request.labels if prompts else sampler.labels or request.labels
    return dataclasses.replace(
        request,
        n=TRAJECTORIES,
        batch=TRAJECTORIES,
        seed=_SEED,
        labels=labels,
        prompts=sampler.subjects if prompts else (),
        to=None,
        to_seed=None,
    )


def _found(sampler: Sampler, warm: SampleRequest, progress: Callable[[int, int], None] | None) -> str:
    parts = sampler.parts
    levels = candidates(_start(sampler), parts.trained_lam)
    noise = SeededNoise(range(warm.seed, warm.seed + warm.n), parts.shape, device=sampler.device)
    # Not inference mode: a classifier that steers needs gradients of its own.
    with torch.no_grad():
        denoiser, cond = sampler.steering(warm).conditioned(range(warm.n))
        x, solver = start(noise, levels[0]), solver_of(warm)
        try:
            found = search(denoiser, x, levels, solver, warm.steps, cond=cond, noise=noise, progress=progress)
        except ValueError as error:
            raise Refused(f"no grid was found for {sampler.where}: {error}") from None
    return listed(SEARCHED, [float(level.ratio) for level in found])


def _start(sampler: Sampler) -> Level:
    """Where the schedule starts; for a network that does not take pure noise, the noisiest level it was trained on."""
    first = sampler.parts.schedule(float64(1.0))
    try:
        sampler.parts.denoiser.check_level(first)
    except ValueError:
        return Level.from_lam(sampler.parts.trained_lam[0])
    return first


def _cached(path: Path) -> str | None:
    """The grid that was kept there; None where there is none, or none that is whole: then it is found anew."""
    try:
        return str(files.read_sealed(path, "it is made anew", FORMAT)["grid"])
    except (Refused, KeyError):
        return None


def _keep(path: Path, value: dict[str, Json]) -> None:
    with files.explained(path, "make room there, or choose another cache with XDG_CACHE_HOME"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, files.sealed({"format_version": FORMAT, **value}))
