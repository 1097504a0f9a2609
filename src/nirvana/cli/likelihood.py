"""`nirvana likelihood`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console, duration
from nirvana.errors import Refused
from nirvana.generate.likelihood_request import SOLVER, LikelihoodRequest

if TYPE_CHECKING:
    from nirvana.data import Dataset
    from nirvana.generate.latent_likelihood import LatentEvaluation
    from nirvana.generate.likelihood import Evaluation, Likelihood

PICTURES = 64
"""So many pictures are evaluated where nothing says otherwise."""


def likelihood(
    console: Console,
    model: Annotated[Positional[str], arg(metavar="MODEL")],
    source: Annotated[Positional[str], arg(metavar="SOURCE")],
    *,
    method: Annotated[str, arg(metavar="ode|bound")] = "ode",
    n: Annotated[int | None, arg(aliases=["-n"], metavar="N", help_behavior_hint="")] = None,
    steps: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None,
    probes: Annotated[int, arg(metavar="P")] = 1,
    exact: bool = False,
    dequantise: Annotated[str, arg(metavar="noise|uniform")] = "noise",
    levels: Annotated[int | None, arg(metavar="T", help_behavior_hint="")] = None,
    ratio: Annotated[float | None, arg(metavar="R", help_behavior_hint="")] = None,
    solver: Annotated[str, arg(metavar="NAME")] = SOLVER,
    label: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None,
    unconditional: bool = False,
    seed: Annotated[int, arg(metavar="S")] = 0,
    batch: Annotated[int | None, arg(metavar="B", help_behavior_hint="")] = None,
    weights: Annotated[str, arg(metavar="ema|raw")] = "ema",
    device: Annotated[str, arg(metavar="NAME")] = "auto",
    allow_bad: bool = False,
) -> None:
    """Say how probable a trained model holds pictures to be, in bits per dimension: less is better.

    The pictures are read as for training, at the size of the model; their labels, where the model has them too, are
    its condition. Both methods bound the true value from above, but for the errors that are given.

    examples:
      nirvana likelihood runs/digits digits:test
      nirvana likelihood runs/digits digits:test --method bound -n 359
      nirvana likelihood runs/flowers flowers/ -n 16 --probes 4 --json

    Args:
        model: a run folder, the name of one in runs/, or a model of the zoo
        source: pictures, as `nirvana train` takes them, such as a folder, or digits:test (docs/data.md)
        method: the density of the probability flow, or the variational bound
        n: how many pictures, drawn by the seed (64, or all where there are fewer)
        steps: of the flow, or network calls of the bound (64)
        probes: independent estimates of each picture; two and more give each an error
        exact: the exact divergence of the flow, at a backward pass for each number of a picture
        dequantise: how bytes become continuous for the flow, by the noise of its first level or uniformly
        levels: levels of the bound (the model's own chain, else so many that it is the limit)
        ratio: noise sigma/alpha of the first level (the least that was trained)
        solver: what solves the flow
        label: class of all the pictures (their own)
        unconditional: leave their classes away
        seed: of all randomness
        batch: pictures computed at once (by their size)
        weights: averaged or last weights
        device: auto, cpu, cuda, cuda:1 or mps
        allow_bad: evaluate although many files cannot be read
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
    if n is not None and n < 1:
        raise Refused(f"-n must be at least 1, got {n}")
    if label is not None and unconditional:
        raise Refused(f"both the label '{label}' and --unconditional were given; give one of them")
    from nirvana.data import open_data, order
    from nirvana.generate.model import load

    found = load(model, device=device)
    evaluation = found.evaluation(request)
    with console.progress("reading", 0, "pictures") as bar:
        data = open_data(
            source,
            size=found.parts.shape[-1],
            allow_bad=allow_bad,
            progress=lambda done, total: bar.update(done, total=total),
        )
    count = min(len(data), PICTURES) if n is None else n
    if count > len(data):
        raise Refused(f"{source} has {len(data)} pictures, {count} were asked for; give -n {len(data)} or less")
    chosen = order(seed, len(data), range(count))
    labels = None if unconditional else _labels(data, chosen.tolist(), found.labels, label)
    started = time.perf_counter()
    result = _run(console, evaluation, data, chosen.tolist(), labels)
    seconds = time.perf_counter() - started
    condition = "no class" if labels is None else f"the class '{label}'" if label else "their own classes"
    console.result(
        f"{_table(result)}\n{count} of {len(data)} pictures in {source}, given {condition};"
        f" {result.calls} network calls each, {duration(seconds)}",
        {"source": source, "condition": condition, "seconds": round(seconds, 3), **result.to_json()},
    )


def _labels(data: Dataset, chosen: Sequence[int], known: Sequence[str], label: str | None) -> list[str] | None:
    """The class of each chosen picture; None where the model has no classes or the pictures have none."""
    if label is not None:
        return [label] * len(chosen)
    if not known or data.labels is None:
        return None
    return [data.names[int(data.labels[i])] for i in chosen]


def _run(
    console: Console,
    evaluation: Evaluation | LatentEvaluation,
    data: Dataset,
    chosen: Sequence[int],
    labels: list[str] | None,
) -> Likelihood:
    """All batches, with a progress bar; where Ctrl-C ends them, what is known so far is said."""
    from nirvana.generate.likelihood import Likelihood

    done: list[Likelihood] = []
    calls, so_far = 0, ""
    with console.progress("evaluating", len(evaluation.batches(len(chosen))) * evaluation.calls, "calls") as bar:

        def tick() -> None:
            nonlocal calls
            calls += 1
            bar.update(calls, so_far)

        try:
            for part in evaluation.run(data.images[list(chosen)], labels, tick):
                done.append(part)
                so_far = f"{_bits(Likelihood.joined(done))} bits per dimension"
        except KeyboardInterrupt:
            if not done:
                raise
            finished = sum(map(len, done))
            raise KeyboardInterrupt(f"interrupted after {finished} of {len(chosen)} pictures: {so_far}") from None
    return Likelihood.joined(done)


def _table(result: Likelihood) -> str:
    rows = {"bits per dimension": (result.mean, result.standard_error), **result.of_terms()}
    lines = [f"{name:<20}{_plus_minus(mean, error)}" for name, (mean, error) in rows.items()]
    return "\n".join([*lines, result.evaluated])


def _bits(result: Likelihood) -> str:
    return _plus_minus(result.mean, result.standard_error)


def _plus_minus(mean: float, error: float) -> str:
    return f"{mean:.4f}" if math.isnan(error) else f"{mean:.4f} ± {error:.4f}"
