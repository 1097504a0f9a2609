"""What filling a hole costs beside plain sampling, per network call: the methods of inpainting that need no gradient.

A network of the recipe `flow` with fresh weights, since weights do not change what a call costs. The pictures outside
of the hole are checked, and calls are counted. Run: python benchmarks/bench_editing.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import Options, options, paired, publish, table, target

from nirvana.generate.beginning import Canvas
from nirvana.generate.changes import UNREAD, Changes
from nirvana.generate.filling import filling
from nirvana.generate.request import SampleRequest
from nirvana.generate.sampler import Sampler
from nirvana.generate.spec import build
from nirvana.recipes.recipe import RECIPES, Facts

METHODS = ("replacement", "ddnm", "repaint:resample=2,jump=4", "langevin:steps=4")
STEPS = 25
BATCHES = (1, 16)
LIMIT = 1.05
"""How many times as long a network call may take where a hole is filled."""


def sampler(size: int) -> Sampler:
    """A model of coloured pictures in two classes."""
    return Sampler(build(RECIPES["flow"](Facts(size, 3, ("a", "b"))).model), torch.device("cpu"), "a fresh network")


def plain(model: Sampler, request: SampleRequest) -> Callable[[], object]:
    """What draws the pictures of `request`."""
    return lambda: list(model.stream(request))


def edited(model: Sampler, request: SampleRequest) -> Callable[[], object]:
    """What fills the left half of as many pictures."""
    _, height, width = model.parts.shape
    rng = torch.Generator().manual_seed(0)
    x0 = torch.rand(request.n, *model.parts.shape, generator=rng) * 2 - 1
    known = torch.ones(request.n, 1, height, width, dtype=torch.bool)
    known[..., : width // 2] = False
    fill, canvas, kept = filling(model, request), Canvas(x0, known), known.expand_as(x0)

    def run() -> None:
        *_, last = fill(range(request.n), canvas, range(request.n))
        if not torch.allclose(last.x[kept], x0[kept]):
            raise AssertionError("a known pixel changed")

    return run


def counted(model: Sampler, run: Callable[[], object]) -> int:
    """How often `run` calls the network."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hook = model.parts.denoiser.net.register_forward_hook(count)
    run()
    hook.remove()
    return calls


def main(given: Options) -> None:
    torch.manual_seed(0)
    size, steps = (8, 4) if given.quick else (32, STEPS)
    model, rows, values = sampler(size), list[list[str]](), dict[str, dict[str, float]]()
    for batch in BATCHES:
        requests = {"plain": model.request(n=batch, batch=batch, steps=steps, guidance=1.0)}
        for method in METHODS:
            change = Changes(UNREAD, method=method)
            requests[method] = model.request(n=batch, batch=batch, steps=steps, guidance=1.0, edit=change)
        runs = {name: (edited if request.edit else plain)(model, request) for name, request in requests.items()}
        calls = {name: counted(model, run) for name, run in runs.items()}
        seconds = paired(runs, given.rounds)
        each = {name: 1000 * seconds[name] / count for name, count in calls.items()}
        for name, count in calls.items():
            verdict = [] if name == "plain" else target("", each[name] / each["plain"], LIMIT, "x", at_most=True)[1:]
            rows.append([str(batch), name, str(count), f"{each[name]:.2f}", *(verdict or ["", "", ""])])
        values[f"batch {batch}"] = each
    head = ["batch", "method", "network calls", "ms a call", "of plain sampling", "target", ""]
    text = table(head, rows) + f"\nPictures of 3x{size}x{size}, {steps} steps of ddim, one class, no guidance.\n"
    publish("editing", "Filling holes", given.command("bench_editing.py"), text, values, given.docs)


if __name__ == "__main__":
    main(options(__doc__ or "", rounds=5))
