"""The two older families as tasks of the training loop: a GAN in two phases, a VAE in one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nirvana.diffusion import sample_rng
from nirvana.generate.latent_spec import GanParts, LatentParts, VaeParts
from nirvana.latent import Evidence, Posterior, Relativistic
from nirvana.recipes.task import Pictures, WeightsTask
from nirvana.train.device import sent
from nirvana.train.task import Loss, Phase, Position

CRITIC, GENERATOR = "critic", "generator"

GAN_BETAS = (0.0, 0.99)
"""Without momentum, as the gradient of one player changes with the other (Huang et al. 2024)."""


class LatentTask(WeightsTask):
    """What the two tasks share: latent vectors that are functions of (seed, sample index, phase).

    The weights must be where they will be trained.
    """

    def __init__(self, parts: LatentParts, phases: Sequence[Phase]) -> None:
        super().__init__(parts.modules(), phases)
        self._latent = parts.latent

    def normal(self, phase: Phase, position: Position) -> Float[Tensor, "b latent"]:
        """Unit normals, drawn on the CPU, so that every device trains alike."""
        drawn = torch.empty(len(position.indices), self._latent)
        for row, index in zip(drawn, position.indices, strict=True):
            row.normal_(generator=sample_rng(position.seed, index, f"train/{phase.name}"))
        return sent(drawn, self.device)

    def ema_parameters(self) -> dict[str, Tensor]:
        """What pictures are drawn with, and for a VAE also what finds their latent vectors: not the critic."""
        return {name: tensor for name, tensor in super().ema_parameters().items() if not name.startswith(CRITIC)}


class AdversarialTask(LatentTask):
    """Train generator and critic of `parts` in turn on `objective`, both at every step, on the same real pictures.

    Each phase draws latent vectors of its own; a drawn picture is paired with the real one whose class it has.
    compile: make kernels of the generator; the critic is differentiated twice, which kernels are not.
    """

    def __init__(
        self, parts: GanParts, objective: Relativistic, *, weight_decay: float = 0.0, compile: bool = False
    ) -> None:
        named = dict(parts.modules().named_parameters())
        critic = {name: tensor for name, tensor in named.items() if name.startswith(CRITIC)}
        generator = {name: tensor for name, tensor in named.items() if name not in critic}
        made = partial(Phase, betas=GAN_BETAS, weight_decay=weight_decay)
        super().__init__(parts, (made(CRITIC, critic), made(GENERATOR, generator)))
        self.parts, self.objective = parts, objective
        if compile:
            parts.decoder.compile()

    def loss(self, phase: Phase, batch: Pictures, position: Position) -> Loss:
        """The loss of the player whose phase it is."""
        parts = self.parts
        real = parts.codec.encode(sent(batch.x0, self.device))
        vector = parts.critic_conditioner(batch.labels).get("vector")

        def scores(x: Tensor) -> Tensor:
            return parts.critic(x, vector)

        training = phase.name == GENERATOR
        with torch.set_grad_enabled(training):
            drawn = parts.draw(self.normal(phase, position), parts.conditioner(batch.labels))
        if training:
            each = self.objective.generator(scores, real, drawn)
            return Loss(each.mean(), each)
        found = self.objective.critic(scores, real, drawn)
        terms = {"pair": found.pair.mean(), "r1": found.r1.mean(), "r2": found.r2.mean()}
        return Loss(found.per_sample.mean(), found.per_sample, terms)


class VariationalTask(LatentTask):
    """Train encoder, decoder and scale of `parts` on the evidence bound. Losses are bits per dimension."""

    def __init__(
        self, parts: VaeParts, objective: Evidence, *, weight_decay: float = 0.0, compile: bool = False
    ) -> None:
        parameters = dict(parts.modules().named_parameters())
        super().__init__(parts, (Phase("vae", parameters, weight_decay=weight_decay),))
        self.parts, self.objective = parts, objective
        if compile:
            compiled: tuple[nn.Module, ...] = (parts.encoder, parts.decoder)
            for module in compiled:
                module.compile()

    def loss(self, phase: Phase, batch: Pictures, position: Position) -> Loss:
        """The bound of these pictures at one draw of z each."""
        parts = self.parts
        x0 = parts.codec.encode(sent(batch.x0, self.device))
        cond = parts.conditioner(batch.labels)
        posterior = Posterior.of(parts.encoder(x0, cond.get("vector")))
        log_sigma = parts.scale()
        mean = parts.draw(posterior.sample(self.normal(phase, position)), cond)
        reconstruction, kl = self.objective.terms(x0, mean, log_sigma, posterior)
        each = self.objective.loss(reconstruction, kl)
        terms = {"reconstruction": reconstruction.mean(), "kl": kl.mean(), "sigma": log_sigma.exp()}
        return Loss(each.mean(), each, terms)
