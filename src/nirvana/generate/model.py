"""A trained model: pictures from noise, as one generator loop with a preview at every step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from nirvana.codec import Identity
from nirvana.condition import LabelConditioner
from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.grid import GRIDS
from nirvana.diffusion.guidance import guided
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.solver import SOLVERS
from nirvana.errors import Refused, nearest, unknown
from nirvana.files import Json
from nirvana.generate.images import Images
from nirvana.generate.origin import Origin, digest, origin
from nirvana.generate.request import SampleRequest
from nirvana.generate.spec import ModelParts, build, on_device
from nirvana.train.checkpoint import load_weights, newest
from nirvana.train.device import pick_device
from nirvana.train.run import RunFolder

BATCH = 64
BATCH_NUMBERS = 2**17
"""A batch is at most 64 pictures and this many numbers, where the user does not say: 64 of 28x28, 10 of 3x64x64."""


@dataclass(frozen=True, eq=False)
class Preview:
    """What one step of one batch shows: `batch` are the pictures' numbers in the request, `step` counts from 1.

    before: the noisy state that the step began with; x: the state after it; x0: what the model believed on the way.
    """

    batch: range
    step: int
    steps: int
    before: Float[Tensor, "b c *s"]
    x0: Float[Tensor, "b c *s"]
    x: Float[Tensor, "b c *s"]
    codec: Identity

    @property
    def done(self) -> bool:
        """Whether this batch is finished."""
        return self.step == self.steps

    @property
    def pictures(self) -> UInt8[ndarray, "b h w c"]:
        """x0 as bytes; at the last step the finished pictures."""
        return to_bytes(self.codec, self.x if self.done else self.x0)


def to_bytes(codec: Identity, x: Float[Tensor, "b c h w"]) -> UInt8[ndarray, "b h w c"]:
    """Decoded pictures, channels last, in memory of their own."""
    return codec.decode(x).permute(0, 2, 3, 1).cpu().contiguous().numpy()


class Model:
    """A model of a run folder. Make one with `load`; then `generate`, or `stream` for previews at every step."""

    def __init__(self, run: RunFolder, device: torch.device) -> None:
        self.run = run
        self.device = device
        self._loaded: dict[str, tuple[ModelParts, str]] = {}
        self.parts = self.with_weights("ema")

    def with_weights(self, which: str) -> ModelParts:
        """The model with its "ema" or "raw" weights, read at first use; Refused where they are damaged."""
        if which not in self._loaded:
            weights = load_weights(self.run, cast(Literal["ema", "raw"], which))
            parts = build(self.run.model_spec)
            parts.load(weights, str(self.run.path))
            self._loaded[which] = on_device(parts, self.device), digest(weights)
        return self._loaded[which][0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty for a model without."""
        return self.parts.conditioner.names

    def request(
        self,
        prompt: str | None = None,
        *,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        seed: int = 0,
        batch: int | None = None,
        grid: str | None = None,
        weights: str = "ema",
    ) -> SampleRequest:
        """The complete request: what is None becomes what the run recommends. Refused where the model cannot do it."""
        best = self.parts.recommended
        one_by_default = best.guidance if self.labels else 1.0
        request = SampleRequest(
            n=n,
            labels=self._labels(prompt, label),
            steps=best.steps if steps is None else steps,
            solver=best.solver if solver is None else solver,
            grid=best.grid if grid is None else grid,
            guidance=one_by_default if guidance is None else guidance,
            seed=seed,
            batch=max(1, min(BATCH, BATCH_NUMBERS // math.prod(self.parts.shape))) if batch is None else batch,
            weights=weights,
        )
        self.check(request)
        return request

    def _labels(self, prompt: str | None, label: str | Sequence[str] | None) -> tuple[str, ...]:
        if prompt is not None and label is not None:
            raise Refused(
                f"both the prompt '{prompt}' and a label were given; this model takes labels: give one of them"
            )
        if prompt is not None and prompt not in self.labels:
            raise Refused(self._no_prompts(prompt))
        chosen = prompt if label is None else label
        if chosen is None:
            return self.labels
        names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        if not names:
            raise Refused(
                "an empty list of labels was given; name at least one, or leave it out for all of them in turn"
            )
        for name in names:
            self.parts.conditioner.index(name)
        return names

    def _no_prompts(self, prompt: str) -> str:
        if not self.labels:
            return f"{self.run.path} was trained without labels or captions; leave the prompt '{prompt}' out"
        known = ", ".join(self.labels[:20]) + (", ..." if len(self.labels) > 20 else "")
        return (
            f"{self.run.path} knows labels, not prompts; '{prompt}' is none of them{nearest(prompt, self.labels)}"
            f" (use --label with one of: {known})"
        )

    def check(self, request: SampleRequest) -> None:
        """Refused where this model cannot do `request`: solver, grid, labels, guidance."""
        if request.solver not in SOLVERS:
            raise unknown("solver", request.solver, SOLVERS)
        if request.grid not in GRIDS:
            raise unknown("grid", request.grid, GRIDS)
        if request.solver == "ddpm-learned" and not self.parts.denoiser.learned_variance:
            others = ", ".join(sorted(SOLVERS.keys() - {"ddpm-learned"}))
            raise Refused(
                f"{self.run.path} has not learned a variance, so 'ddpm-learned' cannot run; use one of: {others}"
            )
        for name in request.labels:
            self.parts.conditioner.index(name)
        if self.labels and not request.labels:
            raise Refused(
                f"{self.run.path} needs labels, and the request has none; name some of: {', '.join(self.labels)}"
            )
        if not self.labels and request.guidance != 1:
            raise Refused(
                f"{self.run.path} was trained without labels, so there is nothing to guide; leave guidance at 1"
            )
        self.levels(request)

    def levels(self, request: SampleRequest) -> list[Level]:
        """The steps + 1 noise levels that `request` visits; Refused where its grid has none such."""
        try:
            return GRIDS[request.grid](self.parts.trained_lam)(self.parts.schedule, request.steps)
        except ValueError as error:
            raise Refused(f"the grid '{request.grid}' cannot have {request.steps} steps here: {error}") from None

    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` at every step of every batch (or only of `batches`). Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """
        self.check(request)
        parts = self.with_weights(request.weights)
        return self._stream(request, parts, request.batches() if batches is None else batches)

    def _stream(self, request: SampleRequest, parts: ModelParts, batches: Sequence[range]) -> Iterator[Preview]:
        levels = self.levels(request)
        for batch in batches:
            noise = SeededNoise([request.seed + i for i in batch], parts.shape, device=self.device)
            # Entered anew for every step: a context manager held across a yield would leak into the caller.
            with torch.inference_mode():
                denoiser, cond = self._conditioned(request, parts, batch)
                x = start(noise, levels[0])
                walk = trajectory(denoiser, x, levels, SOLVERS[request.solver](), cond=cond, noise=noise)
            while True:
                with torch.inference_mode():
                    step = next(walk, None)
                if step is None:
                    break
                yield Preview(batch, step.index + 1, request.steps, x, step.prediction.x0, step.x, parts.codec)
                x = step.x

    def _conditioned(self, request: SampleRequest, parts: ModelParts, batch: range) -> tuple[Denoiser, Cond]:
        conditioner = parts.conditioner
        if not isinstance(conditioner, LabelConditioner):
            return parts.denoiser, {}
        names = [cast(str, request.label(i)) for i in batch]
        cond = conditioner(torch.tensor([conditioner.index(name) for name in names], device=self.device))
        return guided(parts.denoiser, cond, conditioner.null(cond), request.guidance), cond

    def generate(
        self,
        prompt: str | None = None,
        *,
        label: str | Sequence[str] | None = None,
        n: int = 1,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float | None = None,
        seed: int = 0,
        batch: int | None = None,
    ) -> Images:
        """n pictures; picture i has seed `seed + i` and is the same alone and in any batch.

        label: a class name, or several that take turns; None goes through all classes, picture i is of class i mod K.
        What is None is the run's recommendation. Refused where a value or name is not possible.
        """
        request = self.request(
            prompt, label=label, n=n, steps=steps, solver=solver, guidance=guidance, seed=seed, batch=batch
        )
        return self.gather(request, self.stream(request))

    def gather(self, request: SampleRequest, previews: Iterator[Preview]) -> Images:
        """The finished pictures of a stream of `request`. Refused where the model gives no finite numbers."""
        batches = [finished(preview, self.run.path) for preview in previews if preview.done]
        return Images.joined(batches, request, self.origin(request))

    def origin(self, request: SampleRequest) -> Origin:
        """Where a picture of `request` comes from: model, weights, versions, machine."""
        self.with_weights(request.weights)
        images = newest(self.run).images
        return origin(self.run.path, self._loaded[request.weights][1], images, self.device)

    def info(self) -> dict[str, Json]:
        """What is known about the model, as JSON."""
        weights = self.parts.modules().parameters()
        checkpoint, data = newest(self.run), self.run.data
        return {
            "path": str(self.run.path),
            "labels": list(self.labels),
            "shape": list(self.parts.shape),
            "parameters": sum(p.numel() for p in weights),
            "recommended": cast("dict[str, Json]", dataclasses.asdict(self.parts.recommended)),
            "solvers": sorted(SOLVERS),
            "grids": sorted(GRIDS),
            "trained_images": checkpoint.images,
            "planned_images": self.run.plan.images,
            "finished": self.run.finished,
            "checkpoint": str(checkpoint.path),
            "weights_sha256": self._loaded["ema"][1],
            "source": data.get("source"),
            "pictures": data.get("pictures"),
            "rejected": len(cast("list[Json]", data.get("rejected", []))),
            "created": self.run.info.get("created"),
            "command": self.run.info.get("command"),
            "versions": self.run.info.get("versions"),
            "config": self.run.config,
            "plan": self.run.plan.to_json(),
            "model": self.run.model_spec,
        }


def finished(preview: Preview, path: Path) -> UInt8[ndarray, "b h w c"]:
    """The pictures of a finished batch. Refused where they are not finite."""
    if not bool(torch.isfinite(preview.x).all()):
        raise Refused(f"the model in {path} gave numbers that are not finite; train it longer, or lower the guidance")
    return preview.pictures


def load(path_or_name: str | Path, *, device: str = "auto") -> Model:
    """The model of a run folder, or of the run of that name in `runs/`, with its EMA weights.

    Refused where it is no run folder, is damaged, has no checkpoint yet, or comes from a newer nirvana.
    """
    return Model(RunFolder.open(find(path_or_name)), pick_device(device))


def find(path_or_name: str | Path) -> Path:
    """The folder that `path_or_name` means: itself, or `runs/` and itself; Refused names the nearest run."""
    path = Path(path_or_name).expanduser()
    named = Path("runs") / path
    if path.exists():
        return path
    if not path.is_absolute() and named.is_dir():
        return named
    runs = sorted(str(run.parent) for run in Path("runs").glob("*/run.json"))
    near = nearest(str(path), runs) or nearest(str(named), runs)
    raise Refused(f"{path} is not there{near or '; name a run folder that `nirvana train` made'}")
