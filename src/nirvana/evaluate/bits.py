"""Bits per dimension as a part of an evaluation: how probable the model holds real pictures to be."""

from __future__ import annotations

from collections.abc import Callable

from nirvana.data import Dataset, order
from nirvana.evaluate.scores import Findings, Score
from nirvana.evaluate.statistics import normal_interval
from nirvana.files import Json
from nirvana.generate.likelihood import Likelihood
from nirvana.generate.likelihood_request import LikelihoodRequest
from nirvana.generate.model import Model

PICTURES = 64
"""So many pictures are evaluated."""


def request_of(model: Model, seed: int) -> LikelihoodRequest:
    """The probability flow for a diffusion model, the evidence bound for a VAE; Refused for a GAN: it has neither."""
    request = LikelihoodRequest(method="ode" if model.family == "diffusion" else "bound", seed=seed)
    model.evaluation(request)
    return request


def bits(model: Model, seen: Dataset, unseen: Dataset | None, seed: int, tick: Callable[[int, int], None]) -> Findings:
    """Bits per dimension of `PICTURES` unseen pictures, or of others where none are known, which is said."""
    data = seen if unseen is None else unseen
    evaluation = model.evaluation(request_of(model, seed))
    chosen = order(seed, len(data), range(min(PICTURES, len(data)))).tolist()
    labels = [data.names[int(data.labels[i])] for i in chosen] if model.labels and data.labels is not None else None
    if labels is not None and not set(labels) <= set(model.labels):
        labels = None
    done, total = 0, len(evaluation.batches(len(chosen))) * evaluation.calls

    def heard() -> None:
        nonlocal done
        done += 1
        tick(done, total)

    found = Likelihood.joined(list(evaluation.run(data.images[chosen], labels, heard)))
    interval = normal_interval(found.mean, found.standard_error) if len(found) > 1 else None
    warning = "" if unseen is not None else "no pictures are known that were not trained on: these may have been"
    score = Score("bits per dimension", found.mean, "lower", interval, len(found), 0, None, warning)
    terms: dict[str, Json] = {name: mean for name, (mean, _) in found.of_terms().items()}
    return Findings([score], {"bits": {"terms": terms, "evaluated": found.evaluated}})
