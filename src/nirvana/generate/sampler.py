"""Pictures from noise with a built model: one generator loop with a preview at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from nirvana.codec import Identity
from nirvana.condition import LabelConditioner
from nirvana.diffusion.denoiser import Cond, Denoiser, Preconditioned
from nirvana.diffusion.guidance import Clipped, guided
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.sample import start, trajectory
from nirvana.diffusion.solver import SOLVERS
from nirvana.errors import Refused, nearest, unknown
from nirvana.generate.grids import SEARCHED, check_search, grid_of, name_of, steps_of
from nirvana.generate.network import Compiled, in_bfloat16
from nirvana.generate.request import SampleRequest
from nirvana.generate.spec import ModelParts, on_device

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


class Sampler:
    """Makes what a request asks for. parts: the model; where: what refusals call it, such as its run folder.

    engines: loads the exported network of an engine; None where there is none. compile: run networks compiled.
    """

    def __init__(
        self,
        parts: ModelParts,
        device: torch.device,
        where: str,
        *,
        engines: Callable[[str], nn.Module] | None = None,
        compile: bool = False,
    ) -> None:
        self.parts = on_device(parts, device)
        self.device = device
        self.where = where
        self._engines = engines
        self._compile = compile
        self._denoisers: dict[tuple[str, str], Preconditioned] = {}

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
        clip: bool | None = None,
        guidance_interval: tuple[float, float] | None = None,
        precision: str = "float32",
        engine: str = "torch",
    ) -> SampleRequest:
        """The complete request: what is None becomes what the run recommends. Refused where the model cannot do it."""
        best = self.parts.recommended
        one_by_default = best.guidance if self.labels else 1.0
        grid = best.grid if grid is None else grid
        request = SampleRequest(
            n=n,
            labels=self._labels(prompt, label),
            steps=steps_of(grid, best.steps) if steps is None else steps,
            solver=best.solver if solver is None else solver,
            grid=grid,
            guidance=one_by_default if guidance is None else guidance,
            seed=seed,
            batch=max(1, min(BATCH, BATCH_NUMBERS // math.prod(self.parts.shape))) if batch is None else batch,
            weights=weights,
            clip=best.clip if clip is None else clip,
            guidance_interval=guidance_interval,
            precision=precision,
            engine=engine,
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
            return f"{self.where} was trained without labels or captions; leave the prompt '{prompt}' out"
        known = ", ".join(self.labels[:20]) + (", ..." if len(self.labels) > 20 else "")
        return (
            f"{self.where} knows labels, not prompts; '{prompt}' is none of them{nearest(prompt, self.labels)}"
            f" (use --label with one of: {known})"
        )

    def check(self, request: SampleRequest) -> None:
        """Refused where this model cannot do `request`: solver, grid, labels, guidance, engine."""
        if request.solver not in SOLVERS:
            raise unknown("solver", request.solver, SOLVERS)
        if request.solver == "ddpm-learned" and not self.parts.denoiser.learned_variance:
            others = ", ".join(sorted(SOLVERS.keys() - {"ddpm-learned"}))
            raise Refused(
                f"{self.where} has not learned a variance, so 'ddpm-learned' cannot run; use one of: {others}"
            )
        for name in request.labels:
            self.parts.conditioner.index(name)
        if self.labels and not request.labels:
            raise Refused(
                f"{self.where} needs labels, and the request has none; name some of: {', '.join(self.labels)}"
            )
        if not self.labels and (request.guidance != 1 or request.guidance_interval is not None):
            raise Refused(f"{self.where} was trained without labels, so there is nothing to guide; leave guidance at 1")
        if request.grid == SEARCHED:
            check_search(request)
        else:
            self.levels(request)
        self._denoiser(request)

    def levels(self, request: SampleRequest) -> list[Level]:
        """The steps + 1 noise levels that `request` visits; Refused where its grid or its network has none such."""
        grid = grid_of(request.grid, self.parts.trained_lam)
        try:
            levels = grid(self.parts.schedule, request.steps)
            self.parts.denoiser.check_level(levels[0])
        except ValueError as error:
            name = name_of(request.grid)
            raise Refused(f"the grid '{name}' cannot have {request.steps} steps here: {error}") from None
        return levels

    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` at every step of every batch (or only of `batches`). Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """
        self.check(request)
        self.levels(request)  # refuses a searched grid that is still to be found
        return self._stream(request, request.batches() if batches is None else batches)

    def _stream(self, request: SampleRequest, batches: Sequence[range]) -> Iterator[Preview]:
        levels, parts = self.levels(request), self.parts
        for batch in batches:
            noise = SeededNoise([request.seed + i for i in batch], parts.shape, device=self.device)
            # Entered anew for every step: a context manager held across a yield would leak into the caller.
            with torch.inference_mode():
                denoiser, cond = self.conditioned(request, batch)
                x = start(noise, levels[0])
                walk = trajectory(denoiser, x, levels, SOLVERS[request.solver](), cond=cond, noise=noise)
            while True:
                with torch.inference_mode():
                    step = next(walk, None)
                if step is None:
                    break
                yield Preview(batch, step.index + 1, request.steps, x, step.prediction.x0, step.x, parts.codec)
                x = step.x

    def conditioned(self, request: SampleRequest, batch: range) -> tuple[Denoiser, Cond]:
        """The steered denoiser for the pictures `batch` of `request`, and the condition it is called with."""
        conditioner, denoiser = self.parts.conditioner, self._denoiser(request)
        if not isinstance(conditioner, LabelConditioner):
            return self._clipped(denoiser, request), {}
        names = [cast(str, request.label(i)) for i in batch]
        cond = conditioner(torch.tensor([conditioner.index(name) for name in names], device=self.device))
        steered = guided(denoiser, cond, conditioner.null(cond), request.guidance, request.guidance_interval)
        return self._clipped(steered, request), cond

    def _denoiser(self, request: SampleRequest) -> Preconditioned:
        """The denoiser in the precision and engine of `request`, made once. Refused where there is no such engine."""
        form = request.engine, request.precision
        if form not in self._denoisers:
            self._denoisers[form] = self.parts.denoiser.around(self._network(*form))
        return self._denoisers[form]

    def _network(self, engine: str, precision: str) -> nn.Module:
        if engine != "torch":
            if self._engines is None:
                raise Refused(f"{self.where} has no exported engines; use the engine 'torch'")
            return self._engines(engine)
        net = self.parts.denoiser.net
        net = in_bfloat16(net) if precision == "bfloat16" else net
        return Compiled(net, self.device) if self._compile else net

    def _clipped(self, denoiser: Denoiser, request: SampleRequest) -> Denoiser:
        """The range is kept after guidance, which leaves it."""
        return Clipped(denoiser, *self.parts.codec.bounds) if request.clip else denoiser

    def pictures(self, request: SampleRequest) -> UInt8[ndarray, "n h w c"]:
        """The finished pictures of `request`."""
        return np.concatenate([self.finished(preview) for preview in self.stream(request) if preview.done])

    def finished(self, preview: Preview) -> UInt8[ndarray, "b h w c"]:
        """The pictures of a finished batch. Refused where they are not finite."""
        if not bool(torch.isfinite(preview.x).all()):
            raise Refused(f"the model in {self.where} gave numbers that are not finite; lower the guidance")
        return preview.pictures
