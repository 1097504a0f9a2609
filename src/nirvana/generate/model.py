"""A trained model: a run folder that makes pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn

from nirvana import zoo
from nirvana.diffusion.guidance import RULES
from nirvana.diffusion.named import SOLVERS
from nirvana.errors import Refused, nearest
from nirvana.files import Json
from nirvana.generate.editable import Editable
from nirvana.generate.family import ARTICLES, Parts, check_diffusion, family_of, model_parts
from nirvana.generate.grids import NAMES, SEARCHED
from nirvana.generate.images import Images
from nirvana.generate.latent import LatentSampler
from nirvana.generate.latent_likelihood import LatentEvaluation
from nirvana.generate.likelihood import Bytes, Evaluation, Likelihood
from nirvana.generate.likelihood_request import SOLVER, LikelihoodRequest
from nirvana.generate.moment import moment
from nirvana.generate.origin import Origin, digest, origin
from nirvana.generate.preview import Preview
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import PictureSampler, Sampler
from nirvana.generate.searched import settled
from nirvana.generate.spec import ModelParts, build
from nirvana.generate.steering import Classifier
from nirvana.train.checkpoint import earlier_moments, load_earlier, load_weights, newest
from nirvana.train.device import pick_device
from nirvana.train.run import RUN, RunFolder

Classifiers = Mapping[str, Callable[[], Classifier]]
"""Name -> maker of a classifier that can steer a model."""


class _Loaded(NamedTuple):
    sampler: PictureSampler[Any]
    sha256: str
    images: int


class Model(Editable):
    """A model of a run folder. Make one with `load`; then `generate`, or `stream` for previews at every step; or edit
    pictures: `inpaint`, `outpaint`, `vary`, `blend`.

    parts: the model with its averaged weights; labels, request, check: those of its `Sampler`.
    """

    def __init__(
        self, run: RunFolder, device: torch.device, *, compile: bool = False, classifiers: Classifiers | None = None
    ) -> None:
        self.run = run
        self.device = device
        self.compiled = compile
        self._classifiers = classifiers
        self._loaded: dict[str, _Loaded] = {}
        averaged = self.sampler("ema")
        self.parts, self.labels = averaged.parts, averaged.labels
        self.request, self.check = averaged.request, averaged.check

    @property
    def family(self) -> str:
        """ "diffusion", "gan" or "vae"."""
        return family_of(self.run.model_spec)

    @property
    def called(self) -> str:
        """How users know it: by the path of its run, or by its name if it ships."""
        return zoo.called(self.run.path)

    def _load(self, which: str) -> _Loaded:
        if which not in self._loaded:
            images = newest(self.run).images
            weights = load_weights(self.run, cast(Literal["ema", "raw"], which))
            parts = model_parts(self.run.model_spec)
            parts.load(weights, self.called)
            sha256 = digest(weights)
            self._loaded[which] = _Loaded(self._sampler(parts, sha256), sha256, images)
        return self._loaded[which]

    def _sampler(self, parts: Parts, sha256: str) -> PictureSampler[Any]:
        if not isinstance(parts, ModelParts):
            if self.compiled:
                raise Refused(f"{self.called} is {ARTICLES[parts.family]}, which is not compiled; leave compile out")
            return LatentSampler(parts, self.device, self.called)
        return Sampler(
            parts,
            self.device,
            self.called,
            engines=lambda engine: self._engine(engine, sha256),
            earlier=self._earlier,
            classifiers=self._classifiers,
            compile=self.compiled,
        )

    def _engine(self, engine: str, sha256: str) -> nn.Module:
        from nirvana.generate.export import load_engine

        if self.compiled:
            raise Refused(f"the engine '{engine}' was compiled at its export; leave compile out, or use 'torch'")
        return load_engine(self.run, engine, sha256)

    def _earlier(self, written: str) -> ModelParts:
        """The model as it was at a moment of its training."""
        asked, parts = moment(written), build(self.run.model_spec)
        parts.load(load_earlier(self.run, asked.at, asked.width), self.called)
        return parts

    def sampler(self, which: str = "ema") -> PictureSampler[Any]:
        """What samples with the "ema" or "raw" weights, read at first use; Refused where they are damaged."""
        return self._load(which).sampler

    def diffusion(self, which: str, what: str) -> Sampler:
        """The sampler of a diffusion model; Refused where this is none, and so has no `what`."""
        check_diffusion(self.run.model_spec, self.called, what)
        return cast(Sampler, self.sampler(which))

    def settled(self, request: SampleRequest, progress: Callable[[int, int], None] | None = None) -> SampleRequest:
        """`request` with the levels of its grid "searched" written out, found at the first use; others as they are.

        progress(done, at most) is called while it is searched. Refused where that cannot be.
        """
        if request.grid != SEARCHED:
            return request
        loaded, sampler = self._load(request.weights), self.diffusion(request.weights, "grid to search")
        return settled(sampler, request, loaded.sha256, self.run.model_spec, progress)

    def stream(self, request: SampleRequest, batches: Sequence[range] | None = None) -> Iterator[Preview]:
        """A `Preview` at every step of every batch (or only of `batches`). Stop iterating to cancel.

        Refused at once, before any network call, where the model cannot do the request.
        """
        return self.sampler(request.weights).stream(request, batches)

    def generate(
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
        strict: bool = False,
    ) -> Images:
        """n pictures; picture i has seed `seed + i` and is the same alone and in any batch.

        prompt: a text, or several that take turns, each one alone or with others ("a cat:1.5 + a dog:0.5"); "" asks for
        nothing, None for examples of captions. to: the pictures go from the prompt (or label) to this one, all with one
        noise; with "seed:9" they go to the noise of that seed, with "a cat seed:9" to both. strict: refuse a prompt
        that is too long to be read at once.
        label: a class name, or several that take turns, each one alone or with others ("tulip:1.5+rose:0.5"); None goes
        through all classes, picture i is of class i mod K. What is None is the run's recommendation. solver, rule:
        names with their numbers ("ddim:eta=0.5", "apg:eta=0"). guidance_interval: the ratios sigma/alpha to guide
        between. grid: where the steps lie ("karras", "searched"). weights: "ema" or "raw"; clip: keep every predicted
        x0 in the range of the data. negative: a class or prompt to lead away from; autoguidance: a moment of the
        training to lead away from ("1/8"); classifier: one of those the model was loaded with ("fashion:scale=2").
        precision: "float32" or "bfloat16"; engine: "torch" or an exported one. Refused where a value or name is not
        possible.
        """
        request = self.request(
            prompt,
            label=label,
            n=n,
            steps=steps,
            solver=solver,
            guidance=guidance,
            seed=seed,
            batch=batch,
            grid=grid,
            weights=weights,
            clip=clip,
            guidance_interval=guidance_interval,
            precision=precision,
            engine=engine,
            rule=rule,
            negative=negative,
            autoguidance=autoguidance,
            classifier=classifier,
            to=to,
            strict=strict,
        )
        request = self.settled(request)
        return self.gather(request, self.stream(request))

    def gather(self, request: SampleRequest, previews: Iterator[Preview]) -> Images:
        """The finished pictures of a stream of `request`. Refused where the model gives no finite numbers."""
        sampler = self.sampler(request.weights)
        batches = [sampler.finished(preview) for preview in previews if preview.done]
        return Images.joined(batches, request, self.origin(request))

    def log_likelihood(
        self,
        pictures: Bytes | Images,
        *,
        label: str | Sequence[str] | None = None,
        method: str = "ode",
        dequantise: str = "noise",
        steps: int | None = None,
        probes: int = 1,
        exact: bool = False,
        levels: int | None = None,
        ratio: float | None = None,
        solver: str = SOLVER,
        seed: int = 0,
        batch: int | None = None,
        weights: str = "ema",
    ) -> Likelihood:
        """How probable the model holds pictures to be: `.bits` per dimension and `.nats` of each, with their errors.

        pictures: bytes, channels last, of the model's own size. label: their class, one for all or one for each; None
        asks a label model without a class. The other values are those of `LikelihoodRequest`. Refused where they or the
        pictures do not fit.
        """
        request = LikelihoodRequest(
            method=method,
            dequantise=dequantise,
            steps=steps,
            probes=probes,
            exact=exact,
            levels=levels,
            ratio=ratio,
            solver=solver,
            seed=seed,
            batch=batch,
            weights=weights,
        )
        array = pictures.array if isinstance(pictures, Images) else pictures
        labels = [label] * len(array) if isinstance(label, str) else label
        return Likelihood.joined(list(self.evaluation(request).run(array, labels)))

    def evaluation(self, request: LikelihoodRequest) -> Evaluation | LatentEvaluation:
        """What computes the likelihood of pictures batch by batch; Refused where the model cannot do the request."""
        sampler = self.sampler(request.weights)
        if isinstance(sampler, LatentSampler):
            return LatentEvaluation(sampler, request)
        return Evaluation(cast(Sampler, sampler), request)

    def origin(self, request: SampleRequest) -> Origin:
        """Where a picture of `request` comes from: model, weights, versions, machine."""
        loaded = self._load(request.weights)
        readings = loaded.sampler.readings(request)
        return origin(self.run.path, loaded.sha256, loaded.images, self.device, self.compiled, readings)

    def info(self) -> dict[str, Json]:
        """What is known about the model, as JSON."""
        weights, diffusion = self.parts.modules().parameters(), self.family == "diffusion"
        checkpoint, data = newest(self.run), self.run.data
        return {
            "path": str(self.run.path),
            "family": self.family,
            "labels": list(self.labels),
            "prompts": self.parts.conditioner.prompts,
            "shape": list(self.parts.shape),
            "concat": self.run.model_spec.get("concat"),
            "parameters": sum(p.numel() for p in weights),
            "recommended": cast("dict[str, Json]", dataclasses.asdict(self.parts.recommended)),
            "solvers": sorted(SOLVERS) if diffusion else [],
            "grids": sorted(NAMES) if diffusion else [],
            "rules": sorted(RULES) if diffusion else [],
            "moments": [str(fraction) for fraction in earlier_moments(self.run)] if diffusion else [],
            "trained_images": checkpoint.images,
            "planned_images": self.run.plan.images,
            "finished": self.run.finished,
            "checkpoint": str(checkpoint.path),
            "weights_sha256": self._loaded["ema"].sha256,
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


def load(
    path_or_name: str | Path, *, device: str = "auto", compile: bool = False, classifiers: Classifiers | None = None
) -> Model:
    """The model of a run folder, or of the run of that name in `runs/`, with its EMA weights.

    compile: run its network through `torch.compile`, which takes minutes at the first call and pays off on a GPU.
    classifiers: makers of those that a request may name, such as {"fashion": FashionJudge.load}.
    Refused where it is no run folder, is damaged, has no checkpoint yet, or comes from a newer nirvana.
    """
    run = RunFolder.open(find(path_or_name))
    return Model(run, pick_device(device), compile=compile, classifiers=classifiers)


def find(path_or_name: str | Path) -> Path:
    """The folder that `path_or_name` means: itself, or `runs/` and itself, or a model of the zoo.

    Refused names the nearest.
    """
    path = Path(path_or_name).expanduser()
    named = Path("runs") / path
    shipped = str(path_or_name) in zoo.names()
    # A folder of pictures may be called like a model of the zoo; a run of that name comes first.
    if (path / RUN).is_file() or (path.exists() and not shipped):
        return path
    if not path.is_absolute() and named.is_dir():
        return named
    if shipped:
        return zoo.folder(str(path_or_name))
    runs = [*sorted(str(run.parent) for run in Path("runs").glob("*/run.json")), *zoo.names()]
    near = nearest(str(path), runs) or nearest(str(named), runs)
    ready = f", or one of the zoo ({', '.join(zoo.names())})" if zoo.names() else ""
    raise Refused(f"{path} is not there{near or f'; name a run folder that `nirvana train` made{ready}'}")
