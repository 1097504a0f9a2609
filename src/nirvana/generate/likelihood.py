"""How probable a trained model holds pictures to be, in bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from nirvana.condition import LabelConditioner
from nirvana.diffusion.denoiser import Cond, Denoiser
from nirvana.diffusion.guidance import Clipped
from nirvana.diffusion.level import Level, walk
from nirvana.diffusion.likelihood import (
    Estimate,
    ExactTrace,
    Flow,
    HutchinsonTrace,
    Terms,
    bits_per_dim,
    bound_terms,
    byte_decoder,
    ladder,
    noise_terms,
    signs,
    uniform_terms,
    variational_bound,
)
from nirvana.diffusion.markov import Variance
from nirvana.diffusion.named import SOLVERS
from nirvana.diffusion.noise import SeededNoise
from nirvana.diffusion.prediction import Prediction
from nirvana.diffusion.solver import Solver
from nirvana.errors import Refused, unknown
from nirvana.files import Json
from nirvana.generate.likelihood_request import LEVELS, LikelihoodRequest
from nirvana.generate.sampler import PictureSampler, Sampler

Bytes = UInt8[np.ndarray, "n h w c"]
Numbers = Float64[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What `Model.log_likelihood` finds of n pictures; all bits are -log2 P(picture)/D, D the numbers of a picture.

    bits: of each picture. standard_errors: of those, over the probes; NaN for one probe. terms: what the bits are the
    sum of. evaluated: in words, which probability this is. calls: of the network for each picture.
    """

    bits: Numbers
    standard_errors: Numbers
    terms: Mapping[str, Numbers]
    dims: int
    calls: int
    evaluated: str
    request: LikelihoodRequest

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def nats(self) -> Numbers:
        """log P(picture) of each, the natural logarithm."""
        return -self.bits * self.dims * math.log(2)

    @property
    def mean(self) -> float:
        """The bits per dimension of all pictures."""
        return float(self.bits.mean())

    @property
    def standard_error(self) -> float:
        """Of `mean`, as an estimate for pictures like these: their spread/sqrt(n). NaN for one picture."""
        return _standard_error(self.bits)

    def of_terms(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error of each term."""
        return {name: (float(values.mean()), _standard_error(values)) for name, values in self.terms.items()}

    @staticmethod
    def joined(parts: Sequence[Likelihood]) -> Likelihood:
        """The pictures of all parts, which have one request."""
        first = parts[0]
        return Likelihood(
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.standard_errors for part in parts]),
            {name: np.concatenate([part.terms[name] for part in parts]) for name in first.terms},
            first.dims,
            first.calls,
            first.evaluated,
            first.request,
        )

    def to_json(self) -> dict[str, Json]:
        """All of it, as JSON values; null stands for NaN."""
        return {
            "bits_per_dim": self.mean,
            "standard_error": _finite(self.standard_error),
            "terms": {name: {"mean": m, "standard_error": _finite(e)} for name, (m, e) in self.of_terms().items()},
            "pictures": len(self),
            "dims": self.dims,
            "calls": self.calls,
            "evaluated": self.evaluated,
            "request": self.request.to_json(),
            "each": {
                "bits_per_dim": [float(value) for value in self.bits],
                "standard_error": [_finite(float(value)) for value in self.standard_errors],
                "log_likelihood": [float(value) for value in self.nats],
            },
        }


def _standard_error(values: Numbers) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class _Watched:
    """A denoiser whose calls are told to `tick`."""

    denoiser: Denoiser
    tick: Callable[[], None]

    def __call__(self, x: Tensor, level: Level, cond: Cond, nxt: Level | None = None) -> Prediction:
        self.tick()
        return self.denoiser(x, level, cond, nxt)


class Evaluation:
    """The likelihood of pictures under a model, batch by batch. Refused where the model cannot do the request.

    denoiser: what stands for the network's own, such as an exact one.
    """

    def __init__(self, sampler: Sampler, request: LikelihoodRequest, denoiser: Denoiser | None = None) -> None:
        self.sampler, self.parts, self.request = sampler, sampler.parts, request
        self._denoiser = self.parts.denoiser if denoiser is None else denoiser
        own = self.parts.chain if request.levels is None and request.ratio is None else None
        learned = denoiser is None and self.parts.denoiser.learned_variance
        # The decoder of a ladder has the variance beta_1, which is that of x0 given x_1 however many steps follow.
        of_steps: Variance = "learned" if own is not None and learned else "small"
        self._variances: tuple[Variance, Variance] = (of_steps, "large" if own is None else of_steps)
        self.chain = own or ladder(self._range(), request.levels or LEVELS)
        if request.method == "bound" and request.chosen_steps > self.chain.T:
            raise Refused(
                f"the bound of {self.chain.T} levels takes at most {self.chain.T} steps, got {request.chosen_steps};"
                " that many is the whole sum"
            )
        self.levels = self._levels()
        self._solver = _solver(request.solver, self.levels)
        self.calls = self._count() * request.probes

    def _range(self) -> tuple[float, float]:
        """The range of lam that was trained, up to the first level that is asked for."""
        low, high = self.parts.trained_lam
        if self.request.ratio is None:
            return low, high
        first = -math.log(self.request.ratio)
        if not low < first <= high:
            raise Refused(
                f"{self.sampler.where} was trained on noise sigma/alpha of {math.exp(-high):.3g} to"
                f" {math.exp(-low):.3g}, so its likelihood cannot start at the ratio {self.request.ratio:g}"
            )
        return low, first

    def _levels(self) -> list[Level]:
        """The levels of the flow, from data to noise: lam evenly spaced between the levels 1 and T of the chain."""
        high, low = (float(self.chain.level(torch.tensor(t)).lam) for t in (1, self.chain.T))
        return walk(Level.from_lam(torch.linspace(high, low, self.request.chosen_steps + 1, dtype=torch.float64)))

    def _count(self) -> int:
        """Network calls for one estimate of one picture."""
        if self.request.method == "bound":
            return self.request.chosen_steps
        of_flow = self._solver.calls(self.levels) or 0
        return of_flow + (1 if self.request.dequantise == "noise" else 0)

    @property
    def evaluated(self) -> str:
        """In words, which probability the bits are of."""
        ratio = float(self.levels[0].ratio)
        if self.request.method == "bound":
            T, steps = self.chain.T, self.request.chosen_steps
            how = "all of them" if steps == T else f"{steps} of them drawn"
            return f"the variational bound on -log2 P(bytes) over {T} levels from sigma/alpha = {ratio:.2g}, {how}"
        where = f"the density of the probability flow at sigma/alpha = {ratio:.2g}"
        if self.request.dequantise == "uniform":
            return f"a bound on -log2 P(bytes): {where}, of bytes spread uniformly over their bins"
        return f"a bound on -log2 P(bytes): {where}, of bytes spread by the noise of that level, and their decoder"

    def batches(self, n: int) -> list[range]:
        """The pictures of each batch."""
        return batches_of(self.sampler, self.request, n)

    def run(
        self, pictures: Bytes, labels: Sequence[str] | None, tick: Callable[[], None] = lambda: None
    ) -> Iterator[Likelihood]:
        """A `Likelihood` for each batch; `tick` hears of each network call. Refused at once where they do not fit.

        labels: the class of each picture; None is the model without a class.
        """
        check_pictures(self.sampler, pictures)
        numbers = numbers_of(self.sampler, labels, len(pictures))
        of = partial(self._of, denoiser=_Watched(self._denoiser, tick))
        return of_each(self.batches(len(pictures)), pictures, numbers, of, self.sampler.where, "; use more steps")

    def _of(self, bytes_: Tensor, labels: Tensor | None, batch: range, denoiser: Denoiser) -> Likelihood:
        device = self.sampler.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        x0 = self.parts.codec.encode(bytes_.to(device)).to(dtype)
        noise = SeededNoise([self.request.seed + i for i in batch], self.parts.shape, dtype=dtype, device=device)
        cond = self._cond(len(x0), labels)
        found = [self._terms(x0, denoiser, cond, noise, probe) for probe in range(self.request.probes)]
        dims = x0[0].numel()
        bits = {name: bits_per_dim(torch.stack([terms[name] for terms in found]), dims).cpu() for name in found[0]}
        total = Estimate.of(sum(bits.values(), torch.zeros(())))
        return Likelihood(
            total.mean.numpy(),
            total.standard_error.numpy(),
            {name: Estimate.of(values).mean.numpy() for name, values in bits.items()},
            dims,
            self.calls,
            self.evaluated,
            self.request,
        )

    def _cond(self, n: int, labels: Tensor | None) -> Cond:
        conditioner, concat = self.parts.conditioner, self.parts.concat
        seen = {} if concat is None else concat.nothing(n, self.parts.shape[1:], self.sampler.device)
        with torch.no_grad():
            if labels is None:
                told = conditioner(torch.zeros(n, dtype=torch.int64), torch.ones(n, dtype=torch.bool))
            else:
                told = conditioner(labels)
        return {**told, **seen}

    def _terms(self, x0: Tensor, denoiser: Denoiser, cond: Cond, noise: SeededNoise, probe: int) -> Terms:
        variance, of_decoder = self._variances
        decoder = byte_decoder(self.chain, of_decoder)
        if self.parts.recommended.clip:  # the denoiser that pictures are made with
            denoiser = Clipped(denoiser, *self.parts.codec.bounds)
        if self.request.method == "bound":
            calls = self.request.chosen_steps
            return bound_terms(
                variational_bound(
                    self.chain,
                    denoiser,
                    x0,
                    cond=cond,
                    noise=noise,
                    decoder=decoder,
                    variance=variance,
                    calls=calls,
                    key=probe,
                )
            )
        flow = Flow(denoiser, cond, self.levels, self._solver)
        trace = ExactTrace() if self.request.exact else HutchinsonTrace(signs(noise.fresh(("probe", probe))))
        normal = noise.fresh(("dequantise", probe))
        if self.request.dequantise == "uniform":
            return uniform_terms(flow, x0, trace, normal)
        return noise_terms(flow, x0, trace, normal, decoder)


def of_each(
    batches: Sequence[range],
    pictures: Bytes,
    numbers: Tensor | None,
    of: Callable[[Tensor, Tensor | None, range], Likelihood],
    where: str,
    way_out: str = "",
) -> Iterator[Likelihood]:
    """`of`(bytes (b, c, h, w), labels, batch) for each batch. Refused, naming the model, where one is not finite."""
    for batch in batches:
        part = slice(batch.start, batch.stop)
        bytes_ = torch.from_numpy(np.array(pictures[part])).permute(0, 3, 1, 2)
        found = of(bytes_, None if numbers is None else numbers[part], batch)
        if not np.isfinite(found.bits).all():
            raise Refused(f"the model in {where} gives no finite likelihood{way_out}")
        yield found


def batches_of(sampler: PictureSampler[Any], request: LikelihoodRequest, n: int) -> list[range]:
    """The pictures of each batch."""
    size = sampler.batch if request.batch is None else request.batch
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def check_pictures(sampler: PictureSampler[Any], pictures: Bytes) -> None:
    """Refused where there are none, or none of the size that the model makes."""
    shape = sampler.parts.shape
    if pictures.shape[1:] != (*shape[1:], shape[0]):
        got = " x ".join(map(str, pictures.shape[1:]))
        raise Refused(
            f"{sampler.where} takes pictures of {' x '.join(map(str, (*shape[1:], shape[0])))} (height, width,"
            f" channels), got {got}; resize or convert them"
        )
    if not len(pictures):
        raise Refused("there is no picture to evaluate; give at least one")


def numbers_of(sampler: PictureSampler[Any], labels: Sequence[str] | None, n: int) -> Tensor | None:
    """The integer labels; None for the null class."""
    conditioner = sampler.parts.conditioner
    if labels is None:
        if isinstance(conditioner, LabelConditioner) and conditioner.drop == 0:
            raise Refused(f"{sampler.where} was trained with every label shown; give the pictures' labels")
        return None
    if len(labels) != n:
        raise Refused(f"{len(labels)} labels were given for {n} pictures; give one for each, or one for all")
    return torch.tensor([conditioner.index(name) for name in labels])


def _solver(name: str, levels: Sequence[Level]) -> Solver[Any]:
    """The solver of that name. Refused where there is none, where it draws noise, or where it chooses its steps."""
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS)
    made = {known: make() for known, make in SOLVERS.items()}
    if not made[name].deterministic or made[name].calls(levels) is None:
        why = "chooses its steps by what else is in the batch" if made[name].deterministic else "draws noise"
        fit = sorted(known for known, one in made.items() if one.deterministic and one.calls(levels) is not None)
        raise Refused(f"the solver '{name}' {why}, which a likelihood does not allow; use one of: {', '.join(fit)}")
    return made[name]
