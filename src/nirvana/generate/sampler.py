"""Pictures from noise with a built model: one generator loop with a preview at every step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import nn

from nirvana.condition import Reading
from nirvana.diffusion.denoiser import Cond, Preconditioned
from nirvana.diffusion.grid import below
from nirvana.diffusion.level import Level
from nirvana.diffusion.noise import Between, Noise, SeededNoise
from nirvana.errors import Refused
from nirvana.generate.asked import end_of
from nirvana.generate.beginning import Beginning, FromNoise
from nirvana.generate.changes import Changes
from nirvana.generate.editing import check_edit
from nirvana.generate.family import Parts
from nirvana.generate.grids import SEARCHED, check_search, grid_of, name_of, steps_of
from nirvana.generate.named import made, taken
from nirvana.generate.network import Compiled, in_bfloat16
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.spec import ModelParts, on_device
from nirvana.generate.steering import Classifier, Guide, Steering, class_names, default_guidance, solver_of
from nirvana.generate.wanted import check_engine, check_whole, readings, subjects, wanted

BATCH = 64
BATCH_NUMBERS = 2**17
"""A batch is at most 64 pictures and this many numbers, where the user does not say: 64 of 28x28, 10 of 3x64x64."""


P = TypeVar("P", bound=Parts)


class PictureSampler(ABC, Generic[P]):
    """Makes what a request asks for. parts: the model; where: what refusals call it, such as its run folder."""

    def __init__(self, parts: P, device: torch.device, where: str) -> None:
        self.parts = on_device(parts, device)
        self.device = device
        self.where = where

    @abstractmethod
    def check(self, request: SampleRequest) -> None:
        """Refused where this model cannot do `request`."""

    @abstractmethod
    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` at every step of every batch (or only of `batches`). Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """

    def names(self, classifier: str | None) -> tuple[str, ...]:
        """The classes a label can be of, where `classifier` steers."""
        del classifier
        return self.labels

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; empty for a model without."""
        return self.parts.conditioner.names

    @property
    def subjects(self) -> tuple[str, ...]:
        """What pictures are of where nobody says: examples of captions, or the classes; empty for a model without."""
        return subjects(self.parts.conditioner)

    @property
    def batch(self) -> int:
        """How many pictures are computed at once, where nothing says otherwise."""
        return max(1, min(BATCH, BATCH_NUMBERS // math.prod(self.parts.shape)))

    def request(
        self,
        prompt: str | Sequence[str] | None = None,
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
        rule: str = "cfg",
        negative: str | None = None,
        autoguidance: str | None = None,
        classifier: str | None = None,
        to: str | None = None,
        edit: Changes | None = None,
        strict: bool = False,
    ) -> SampleRequest:
        """The complete request: what is None becomes what the run recommends. Refused where the model cannot do it.

        Without prompt and label new pictures take turns at all classes, or at examples of captions; what is new in an
        edit is of nothing in particular. A w in the text of the rule is the guidance. clip: None keeps what fills a
        hole in the range of the data too, as the mean of x0 is; Langevin steps would follow a network that leaves it
        further and further. to: "TEXT", "seed:S" or "TEXT seed:S". strict: refuse prompts that are not read as one.
        """
        best = self.parts.recommended
        usual = best.steps if grid is None else steps_of(grid, best.steps)
        grid = best.grid if grid is None else grid
        rule, w = taken("rule", rule, "w")
        if guidance is not None and w is not None:
            raise Refused(f"the guidance {guidance:g} and the w={w:g} of the rule are the same thing; give one of them")
        guidance = guidance if w is None else w
        plain = edit is not None and prompt is None and label is None
        if guidance is None and plain and self.subjects and negative is None and autoguidance is None:
            guidance = 0.0  # there is nothing to follow
        if guidance is None:
            recommended = best.guidance if self.subjects else 1.0
            guidance = default_guidance(rule, autoguidance is not None, recommended)
        if plain:
            labels, prompts = (), ("",) if self.parts.conditioner.prompts else ()
        else:
            labels, prompts = wanted(self.parts.conditioner, self.where, prompt, label, self.names(classifier))
        end, end_seed = end_of(to)
        if to is not None and prompt is None and label is None:
            labels, prompts = labels[:1], prompts[:1]  # a way has one beginning
        request = SampleRequest(
            n=n,
            labels=labels,
            prompts=prompts,
            to=end,
            to_seed=end_seed,
            steps=usual if steps is None else steps,
            solver=best.solver if solver is None else solver,
            grid=grid,
            guidance=guidance,
            seed=seed,
            batch=self.batch if batch is None else batch,
            weights=weights,
            clip=(best.clip or (edit is not None and edit.fills)) if clip is None else clip,
            guidance_interval=guidance_interval,
            precision=precision,
            engine=engine,
            rule=rule,
            negative=negative,
            autoguidance=autoguidance,
            classifier=classifier,
            edit=edit,
        )
        self.check(request)
        if strict:
            check_whole(self.parts.conditioner, self.where, request)
        return request

    def readings(self, request: SampleRequest) -> list[Reading]:
        """How the model reads every text of `request`, each once; none for a model without texts."""
        return readings(self.parts.conditioner, request)

    def noise(self, request: SampleRequest, batch: range, shape: Sequence[int]) -> Noise:
        """The noise of the pictures `batch`, each of `shape`; on a way to another seed it lies between the two."""
        if request.to_seed is None:
            return SeededNoise([request.seed_of(i) for i in batch], shape, device=self.device)
        begin, end = (
            SeededNoise([seed] * len(batch), shape, device=self.device) for seed in (request.seed, request.to_seed)
        )
        return Between(begin, end, [request.share(i) for i in batch])

    def pictures(self, request: SampleRequest) -> UInt8[ndarray, "n h w c"]:
        """The finished pictures of `request`."""
        return np.concatenate([self.finished(preview) for preview in self.stream(request) if preview.done])

    def finished(self, preview: Preview) -> UInt8[ndarray, "b h w c"]:
        """The pictures of a finished batch. Refused where they are not finite."""
        if not bool(torch.isfinite(preview.x).all()):
            raise Refused(f"the model in {self.where} gave numbers that are not finite; lower the guidance")
        return preview.pictures


class Sampler(PictureSampler[ModelParts]):
    """Makes what a request asks of a diffusion model.

    engines: loads the exported network of an engine; earlier: the same model at an earlier moment of its training;
    None where there is none. classifiers: make those that can steer, by name. compile: run networks compiled.
    """

    def __init__(
        self,
        parts: ModelParts,
        device: torch.device,
        where: str,
        *,
        engines: Callable[[str], nn.Module] | None = None,
        earlier: Callable[[str], ModelParts] | None = None,
        classifiers: Mapping[str, Callable[[], Classifier]] | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(parts, device, where)
        self._engines = engines
        self._earlier = earlier
        self._makers = dict(classifiers or {})
        self._compile = compile
        self._levels: dict[tuple[str, int, float], list[Level]] = {}
        self._denoisers: dict[tuple[str, str], Preconditioned] = {}
        self._weak: dict[tuple[str, str], ModelParts] = {}
        self._classifiers: dict[str, Classifier] = {}

    def names(self, classifier: str | None) -> tuple[str, ...]:
        """The classes a label can be of: the model's, or else the classifier's."""
        return class_names(self.parts, self._guide(classifier))

    def check(self, request: SampleRequest) -> None:
        """Refused where this model cannot do `request`: solver, grid, labels, guidance, engine."""
        if request.grid == SEARCHED:
            check_search(request)
        else:
            self.levels(request)
        self.steering(request)
        check_engine(self.parts.conditioner, request)
        if request.edit is not None:
            check_edit(request, self.levels(request), self.parts.shape, self.parts.concat, self.where)

    def steering(self, request: SampleRequest) -> Steering:
        """What `request` makes of this model. Refused where it cannot be steered so."""
        return Steering(
            request,
            self.where,
            self.parts,
            self._denoiser(request),
            self.device,
            weak=self._earlier_parts(request),
            guide=self._guide(request.classifier),
        )

    def levels(self, request: SampleRequest) -> list[Level]:
        """The steps + 1 noise levels that `request` visits; Refused where its grid or its network has none such."""
        strength = 1.0 if request.edit is None else request.edit.strength
        key = request.grid, request.steps, strength
        levels = self._levels.get(key)
        if levels is None:
            grid = below(grid_of(request.grid, self.parts.trained_lam), strength)
            try:
                levels = grid(self.parts.schedule, request.steps)
                self.parts.denoiser.check_level(levels[0])
            except ValueError as error:
                name = name_of(request.grid)
                raise Refused(f"the grid '{name}' cannot have {request.steps} steps here: {error}") from None
            self._levels = {key: levels}  # of the latest alone: an edit asks for the same ones again and again
        return levels

    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` at every step of every batch (or only of `batches`). Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """
        self.check(request)
        self.levels(request)  # refuses a searched grid that is still to be found
        return self._stream(request, request.batches() if batches is None else batches)

    def translated(
        self,
        request: SampleRequest,
        inputs: UInt8[torch.Tensor, "m d h w"],
        batches: Sequence[range] | None = None,
    ) -> Iterator[Preview]:
        """`stream` of a model of pairs: picture i is drawn from inputs[i mod m]."""
        self.check(request)
        self.levels(request)
        return self._stream(request, request.batches() if batches is None else batches, inputs)

    def _stream(
        self, request: SampleRequest, batches: Sequence[range], inputs: torch.Tensor | None = None
    ) -> Iterator[Preview]:
        steering, levels, concat = self.steering(request), self.levels(request), self.parts.concat
        for batch in batches:
            noise, beside = self.noise(request, batch, self.parts.shape), None
            if inputs is not None and concat is not None:
                shown = inputs[[i % len(inputs) for i in batch]].to(self.device)
                beside = concat.slot(self.parts.codec.encode(shown), torch.ones(1, 1, 1, 1, dtype=torch.bool))
            yield from self.drawn(steering, levels, batch, noise, FromNoise(), beside)

    def drawn(
        self,
        steering: Steering,
        levels: Sequence[Level],
        batch: range,
        noise: Noise,
        beginning: Beginning,
        beside: Cond | None = None,
    ) -> Iterator[Preview]:
        """Every step of drawing the pictures `batch` of a request along `levels`.

        beside: the slot of what the network sees; None: nothing.
        """
        request, codec = steering.request, self.parts.codec
        # A classifier steers by gradients, which inference mode does not record.
        quiet = torch.inference_mode if request.classifier is None else torch.no_grad
        # Entered anew for every step: a context manager held across a yield would leak into the caller.
        with quiet():
            denoiser, cond = steering.conditioned(batch, beside)
            walk = beginning(denoiser, levels, solver_of(request), cond, noise)
        for number in range(1, request.walked + 1):
            with quiet():
                moment = next(walk)
            yield Preview(batch, number, request.walked, moment.before, moment.x0, moment.x, codec)

    def _denoiser(self, request: SampleRequest) -> Preconditioned:
        """The denoiser in the precision and engine of `request`, made once. Refused where there is no such engine."""
        form = request.engine, request.precision
        if form not in self._denoisers:
            denoiser = self.parts.denoiser
            exported = request.engine != "torch"
            net = self._exported(request.engine) if exported else self._network(denoiser.net, request.precision)
            self._denoisers[form] = denoiser.around(net)
        return self._denoisers[form]

    def _exported(self, engine: str) -> nn.Module:
        if self._engines is None:
            raise Refused(f"{self.where} has no exported engines; use the engine 'torch'")
        return self._engines(engine)

    def _network(self, net: nn.Module, precision: str) -> nn.Module:
        net = in_bfloat16(net) if precision == "bfloat16" else net
        return Compiled(net, self.device) if self._compile else net

    def _earlier_parts(self, request: SampleRequest) -> ModelParts | None:
        """The model at the moment of `autoguidance`, made once. Refused where there is no such moment."""
        if request.autoguidance is None:
            return None
        form = request.autoguidance, request.precision
        if form not in self._weak:
            if self._earlier is None:
                raise Refused(f"{self.where} has no earlier weights; leave autoguidance out")
            parts = on_device(self._earlier(request.autoguidance), self.device)
            net = self._network(parts.denoiser.net, request.precision)
            self._weak[form] = replace(parts, denoiser=parts.denoiser.around(net))
        return self._weak[form]

    def _guide(self, written: str | None) -> Guide | None:
        """The classifier that is written so, made once. Refused where it is unknown."""
        if written is None:
            return None
        if not self._makers:
            raise Refused(
                f"{self.where} was loaded without a classifier, so '{written}' cannot steer it; load it with"
                " classifiers=nirvana.evaluate.CLASSIFIERS, or with your own"
            )

        def guide(name: str, scale: float = 1.0) -> Guide:
            if name not in self._classifiers:
                self._classifiers[name] = self._makers[name]()
            return Guide(self._classifiers[name], scale)

        return made("classifier", written, {name: partial(guide, name) for name in self._makers})
