"""The evidence bound of a VAE on pictures, in bits per dimension."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from nirvana.diffusion.likelihood import Estimate, bits_per_dim
from nirvana.diffusion.markov import Gaussian, decoder_log_prob
from nirvana.diffusion.noise import SeededNoise
from nirvana.errors import Refused
from nirvana.generate.latent import LatentSampler
from nirvana.generate.latent_spec import VaeParts
from nirvana.generate.likelihood import Bytes, Likelihood, batches_of, check_pictures, numbers_of, of_each
from nirvana.generate.likelihood_request import LikelihoodRequest
from nirvana.latent import Posterior

_ONLY: Mapping[str, object] = {"steps": None, "exact": False, "levels": None, "ratio": None}


class LatentEvaluation:
    """The bound KL(q(z | x) || p(z)) - E[log2 P(bytes | z)] batch by batch; q draws z once a probe.

    P(bytes | z) is the mass of the Gaussian N(decoder(z), sigma^2) in the bin of each byte. Refused for a GAN, which
    has no likelihood, and for what only a diffusion model can do. Source: Kingma & Welling 2014, equation 3.
    """

    evaluated = "an upper bound on -log2 P(bytes): the evidence bound of the VAE"

    def __init__(self, sampler: LatentSampler, request: LikelihoodRequest) -> None:
        where = sampler.where
        if not isinstance(sampler.parts, VaeParts):
            raise Refused(f"{where} is a GAN, which gives pictures no probability; evaluate it by its samples")
        if request.method != "bound":
            raise Refused(f"{where} is a VAE, which has the variational bound alone; use the method 'bound'")
        for name, only in _ONLY.items():
            if getattr(request, name) != only:
                raise Refused(f"{where} is a VAE, whose bound has no {name} to choose; leave '{name}' out")
        self.sampler, self.parts, self.request = sampler, sampler.parts, request
        self.calls = request.probes

    def batches(self, n: int) -> list[range]:
        """The pictures of each batch."""
        return batches_of(self.sampler, self.request, n)

    def run(
        self, pictures: Bytes, labels: Sequence[str] | None, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Likelihood]:
        """A `Likelihood` for each batch; `tick` hears of each probe. Refused at once where they do not fit."""
        check_pictures(self.sampler, pictures)
        numbers = numbers_of(self.sampler, labels, len(pictures))
        return of_each(self.batches(len(pictures)), pictures, numbers, partial(self._of, tick=tick), self.sampler.where)

    @torch.inference_mode()
    def _of(self, bytes_: Tensor, labels: Tensor | None, batch: range, tick: Callable[[], None]) -> Likelihood:
        parts, device = self.parts, self.sampler.device
        labels = torch.zeros(len(bytes_), dtype=torch.int64) if labels is None else labels
        x0 = parts.codec.encode(bytes_.to(device))
        cond = parts.conditioner(labels)
        posterior = Posterior.of(parts.encoder(x0, cond.get("vector")))
        noise = SeededNoise([self.request.seed + i for i in batch], (parts.latent,), device=device)
        wide, log_var = x0.double(), 2 * parts.scale().double()
        decoded: list[Tensor] = []
        for probe in range(self.request.probes):
            mean = parts.draw(posterior.sample(noise.fresh(("bound", probe))), cond).double()
            log_prob = decoder_log_prob(wide, Gaussian(mean, log_var.expand_as(mean)))
            decoded.append(-log_prob.flatten(1).sum(1))
            tick()
        dims = x0[0].numel()
        kl = posterior.kl().double().expand(len(decoded), -1)
        bits = {"kl": bits_per_dim(kl, dims).cpu(), "decoder": bits_per_dim(torch.stack(decoded), dims).cpu()}
        total = Estimate.of(bits["kl"] + bits["decoder"])
        return Likelihood(
            total.mean.numpy(),
            total.standard_error.numpy(),
            {name: Estimate.of(values).mean.numpy() for name, values in bits.items()},
            dims,
            self.calls,
            self.evaluated,
            self.request,
        )
