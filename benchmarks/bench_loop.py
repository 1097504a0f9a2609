"""What the sampling loop itself costs a step: everything but the network, which answers with a stored tensor.

The end of every walk is checked against the same arithmetic in float64 first. Run: python benchmarks/bench_loop.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import options, paired, publish, table
from torch import Tensor, nn

from nirvana.diffusion import (
    DDIM,
    SOLVERS,
    Ancestral,
    Chain,
    Cond,
    Denoiser,
    Eps,
    Flow,
    FlowTimeCode,
    Level,
    Noise,
    Preconditioned,
    RectifiedFlow,
    Schedule,
    SeededNoise,
    Solver,
    TableCode,
    guided,
    linear_betas,
    trajectory,
    uniform,
)
from nirvana.diffusion.noise import Key

SHAPE = (3, 32, 32)
STEPS = 25
WALKS = 20
"""Walks in one measurement."""
VECTOR = 64
CHAIN = Chain(linear_betas())


class Stored(nn.Module):
    """A network that costs nothing: F is a stored tensor, in the number format of x."""

    slots = frozenset({"vector"})

    def __init__(self, batch: int) -> None:
        super().__init__()
        answer = torch.randn(2 * batch, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.answers = {dtype: answer.to(dtype) for dtype in (torch.float32, torch.float64)}

    def forward(self, x: Tensor, noise: Tensor, cond: Cond) -> Tensor:
        del noise, cond
        return self.answers[x.dtype][: len(x)]


class Doubled:
    """The noise that another one draws, in float64."""

    def __init__(self, noise: SeededNoise) -> None:
        self._noise = noise

    def initial(self) -> Tensor:
        return self._noise.initial().double()

    def path(self, now: Level, nxt: Level) -> Tensor:
        return self._noise.path(now, nxt).double()

    def fresh(self, key: Key) -> Tensor:
        return self._noise.fresh(key).double()


@dataclass(frozen=True)
class Case:
    """What is walked: a network that predicts eps on a table of 1000 steps, or a rectified flow; by which solver.

    limit: the most microseconds a step may cost at batch 16, where there is a target.
    """

    name: str
    solver: Solver[Any]
    eps: bool = False
    guidance: float = 1.0
    limit: float | None = None

    @property
    def schedule(self) -> Schedule:
        return CHAIN.schedule() if self.eps else RectifiedFlow()

    def denoiser(self, batch: int) -> tuple[Denoiser, Cond]:
        """The denoiser of a stored tensor, and the condition of its walk."""
        net = Stored(batch)
        if self.eps:
            code = TableCode(CHAIN.schedule())
            model = Preconditioned(net, Eps(), native="unit", c_in="none", c_noise=code)
        else:
            model = Preconditioned(net, Flow(), native="sum", c_in="none", c_noise=FlowTimeCode())
        cond = {"vector": torch.ones(batch, VECTOR)}
        return guided(model, cond, {"vector": torch.zeros(batch, VECTOR)}, self.guidance), cond

    def walk(self, denoiser: Denoiser, cond: Cond, noise: Noise, x: Tensor) -> Tensor:
        """The end of a walk from x along levels of its own: a grid is made, no coefficient is known before."""
        levels = uniform(self.schedule, STEPS)
        with torch.inference_mode():
            for step in trajectory(denoiser, x, levels, self.solver, cond=cond, noise=noise):
                x = step.x
        return x

    def prepared(self, batch: int, walks: int) -> Callable[[], None]:
        """`walks` walks of a batch, checked against float64."""
        denoiser, cond = self.denoiser(batch)
        noise, same = SeededNoise(range(batch), SHAPE), SeededNoise(range(batch), SHAPE)
        x = noise.initial()
        single = self.walk(denoiser, cond, noise, x)
        double = self.walk(denoiser, cond, Doubled(same), x.double())
        off = float((single - double).abs().max())
        if not off < 1e-4 * float(double.abs().max()):
            raise SystemExit(f"{self.name}: the walk in float32 ends {off:g} beside that in float64")

        def run() -> None:
            for _ in range(walks):
                self.walk(denoiser, cond, noise, x)

        return run


CASES = [
    Case("DDIM", DDIM(), limit=300),
    Case("DDIM, eps network", DDIM(), eps=True, limit=300),
    Case("DDIM, guidance 3", DDIM(), guidance=3.0),
    Case("DPM-Solver++ 2M", SOLVERS["dpmpp-2m"]()),
    Case("UniPC-2", SOLVERS["unipc-2"]()),
    Case("DDIM, eta = 1", DDIM(1.0), limit=800),
    Case("SA-Solver", SOLVERS["sa-solver"]()),
    Case("ancestral", Ancestral(), limit=800),
    Case("ancestral, eps network", Ancestral(), eps=True, limit=800),
]


def main() -> None:
    given = options(__doc__ or "", rounds=15)
    walks = 1 if given.quick else WALKS
    rows, values = [], {}
    for batch in (1, 16):
        found = paired({case.name: case.prepared(batch, walks) for case in CASES}, given.rounds)
        for case in CASES:
            cost = 1e6 * found[case.name] / (walks * STEPS)
            limit = f"{case.limit:.0f}" if case.limit is not None and batch == 16 else ""
            rows.append([case.name, str(batch), f"{cost:.0f}", limit])
            values[f"{case.name}, batch {batch}"] = cost
    text = table(["walk of 25 steps", "batch", "microseconds a step", "target, at most"], rows)
    text += "\n3x32x32, float32. A step is all but the network: its coefficients, noise, guidance and arithmetic.\n"
    publish("loop", "What the sampling loop itself costs", given.command("bench_loop.py"), text, values, given.docs)


if __name__ == "__main__":
    main()
