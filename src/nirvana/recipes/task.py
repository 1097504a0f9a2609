"""Diffusion as a task of the training loop, and pictures as its batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from nirvana.condition import MASKED
from nirvana.condition.masks import NUMBERS, hidden
from nirvana.data import Dataset, Wording, flips, mirrored, order, said
from nirvana.diffusion import Objective, sample_rng, stratified
from nirvana.generate.family import Parts
from nirvana.generate.spec import ModelParts
from nirvana.train.device import sent
from nirvana.train.task import Loss, Phase, Position, Task


@dataclass(frozen=True, eq=False)
class Pictures:
    """A batch: pictures as bytes, (b, c, h, w), their integer labels (zeros where there are none), and their texts.

    inputs: what they are to be made of, for a model of pairs.
    """

    x0: UInt8[Tensor, "b c h w"]
    labels: Int64[Tensor, " b"]
    texts: tuple[str, ...] = ()
    inputs: UInt8[Tensor, "b d h w"] | None = None


class PictureBatches:
    """The pictures of a data set by global sample index: order, flips and texts are functions of (seed, index).

    wording: of the captions; None: batches have no texts.
    """

    def __init__(self, data: Dataset, seed: int, *, flip: bool, wording: Wording | None = None) -> None:
        self.data, self.seed, self.flip, self.wording = data, seed, flip, wording

    def batch(self, indices: range) -> Pictures:
        """The pictures that the global sample indices show."""
        chosen = order(self.seed, len(self.data), indices)
        images, beside = self.data.images[chosen], self.data.inputs
        inputs = None if beside is None else beside.images[chosen]
        if self.flip:
            which = flips(self.seed, indices)
            images, inputs = mirrored(images, which), None if inputs is None else mirrored(inputs, which)
        labels = torch.zeros(len(chosen), dtype=torch.int64)
        if self.data.labels is not None:
            labels = torch.from_numpy(self.data.labels[chosen])
        texts: tuple[str, ...] = ()
        if self.wording is not None and self.data.captions is not None:
            texts = said(self.wording, self.data.captions, chosen.tolist(), self.seed, indices)
        return Pictures(_channels_first(images), labels, texts, None if inputs is None else _channels_first(inputs))

    def files(self, indices: range) -> list[str]:
        """Their files, in order."""
        return self.data.files(order(self.seed, len(self.data), indices).tolist())


def _channels_first(images: UInt8[np.ndarray, "b h w c"]) -> UInt8[Tensor, "b c h w"]:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@runtime_checkable
class PictureTask(Task[Pictures], Protocol):
    """A task on pictures, of any family."""

    @property
    def parts(self) -> Parts:
        """The model."""
        ...

    @property
    def modules(self) -> nn.ModuleDict:
        """All its weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...


class WeightsTask:
    """What the tasks of all families share: the weights of `modules` by name, and the phases that train them."""

    def __init__(self, modules: nn.ModuleDict, phases: Sequence[Phase]) -> None:
        self.modules, self._phases = modules, phases

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.modules.parameters()).device

    @property
    def phases(self) -> Sequence[Phase]:
        """In the order they run in."""
        return self._phases

    def state_dict(self) -> dict[str, Tensor]:
        """All weights under the names that the model's parts take."""
        return dict(self.modules.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Take the weights over in place."""
        return self.modules.load_state_dict(state_dict)

    def ema_parameters(self) -> dict[str, Tensor]:
        """All parameters: a model is sampled with their averages."""
        return {name: parameter.detach() for name, parameter in self.modules.named_parameters()}


class DiffusionTask(WeightsTask):
    """Train the denoiser and conditioner of `parts` on `objective`.

    Level, dropout of the condition, noise and mask of a picture are functions of (seed, global sample index) alone; the
    levels of a batch are stratified over `strata` indices. `compile`: make kernels of the network (in place: names
    stay). The weights must be where they will be trained.
    """

    def __init__(
        self, parts: ModelParts, objective: Objective, *, strata: int, weight_decay: float = 0.0, compile: bool = False
    ) -> None:
        self.parts, self.objective, self.strata = parts, objective, strata
        if compile:
            parts.denoiser.net.compile()
        modules = parts.modules()
        # One phase: all parameters that are not frozen, together.
        parameters = {name: p for name, p in modules.named_parameters() if p.requires_grad}
        super().__init__(modules, (Phase("diffusion", parameters, weight_decay=weight_decay),))

    def loss(self, phase: Phase, batch: Pictures, position: Position) -> Loss:
        """The objective at the levels, with the noise and the dropout, of these sample indices."""
        del phase
        parts, device = self.parts, self.device
        x0 = parts.codec.encode(sent(batch.x0, device))
        u, coin, eps = self._draw(position, x0.shape[1:])
        level = self.objective.sampler(stratified(u, torch.tensor(position.indices), self.strata))
        told = parts.conditioner(batch.labels, parts.conditioner.dropped(coin), batch.texts)
        cond = {**told, **self._seen(batch, x0, position)}
        measured = self.objective.loss(parts.denoiser, x0, sent(eps, device), level, cond)
        terms = {name: value.mean() for name, value in measured.terms.items()}
        return Loss(measured.total, measured.per_sample, terms if len(terms) > 1 else {}, measured.lam)

    def _seen(self, batch: Pictures, x0: Float[Tensor, "b c h w"], position: Position) -> dict[str, Tensor]:
        """What is seen beside the noisy picture: a part of it, or its input; of some nothing."""
        concat, size = self.parts.concat, (x0.shape[2], x0.shape[3])
        if concat is None:
            return {}
        drawn = torch.stack(
            [
                torch.rand(1 + NUMBERS, generator=sample_rng(position.seed, index, "concat"))
                for index in position.indices
            ]
        )
        u = sent(drawn, self.device)
        shown = (u[:, 0] >= concat.drop)[:, None, None, None]
        if concat.kind == MASKED:
            return concat.slot(x0, shown & ~hidden(u[:, 1:], size))
        if batch.inputs is None:
            raise ValueError("a model of pairs needs the inputs of its pictures")
        return concat.slot(self.parts.codec.encode(sent(batch.inputs, self.device)), shown)

    @staticmethod
    def _draw(
        position: Position, shape: torch.Size
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"], Float[Tensor, "b c h w"]]:
        """u for the level, a coin for the condition, and eps: drawn on the CPU, so that every device trains alike."""
        uniforms, noises = torch.empty(len(position.indices), 2), torch.empty(len(position.indices), *shape)
        for uniform, noise, index in zip(uniforms.unbind(), noises.unbind(), position.indices, strict=True):
            rng = sample_rng(position.seed, index, "train")
            uniform.uniform_(generator=rng)
            noise.normal_(generator=rng)
        return uniforms[:, 0], uniforms[:, 1], noises
