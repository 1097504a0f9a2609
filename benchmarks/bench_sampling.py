"""Sampling beside the peers: the same network, weights, noise and steps in diffusers' pipeline and in our loop.

Each candidate runs in its own process, in turn. Before a timing counts, its pictures are compared with the pipeline's.
Run: make bench, or python benchmarks/bench_sampling.py
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import torch
from measure import Options, options, paired_ratio, publish, table, target
from peers.driver import Candidate, Worker, in_turn, workers

from nirvana.train.device import has_bfloat16

SHAPE = (3, 32, 32)
STEPS = 20
BATCHES = (1, 16)
ETAS = {"deterministic": 0.0, "stochastic": 1.0}
TOLERANCE, LOWER = 1e-4, 0.1
"""The largest deviation of a final state from the pipeline's, of its largest number; of a network in bfloat16."""
LOOP_STEPS, LOOP_ROUNDS = 50, 20
PIPELINE, DDP = "diffusers, DDIMPipeline", "denoising-diffusion-pytorch, its own Unet"
EAGER, ENGINE = "nirvana, channels-last", "nirvana, OpenVINO"
KEPT, FREED = f"{PIPELINE}, with our allocator setting", f"{EAGER}, without our allocator setting"
HALF = f"{EAGER}, bfloat16"
LOWERED = {HALF: "channels-last", "nirvana, OpenVINO, bfloat16": "openvino", "nirvana, AOTInductor, bfloat16": "aoti"}
ENGINES = {"nirvana": "eager", EAGER: "channels-last", ENGINE: "openvino"}
SAMPLING_TARGET, ENGINE_TARGETS = 1.5, {1: 3.0, 16: 2.0}
LOOP_SHARE, LOOP_MICROSECONDS = 0.5, {"deterministic": 300.0, "stochastic": 800.0}


class Sampled(TypedDict):
    """A candidate's timings by "<kind>, batch <n>", and what was checked."""

    seconds: dict[str, list[float]]
    off_pipeline: dict[str, float]
    deviation: float | None
    peak_bytes: int | None
    versions: dict[str, str]


Loop = dict[str, dict[str, list[float]]]
"""Seconds of whole runs without a network, by kind, then by candidate."""


def order(batch: int, eta: float, seed: int, *, steps: int = STEPS, one: bool = False, save: str | None = None) -> Any:
    """What the cases are asked for."""
    return {"batch": batch, "steps": steps, "eta": eta, "seed": seed, "one_generator": one, "save": save}


def ours(engine: str, weights: str | None, *, bfloat16: bool = False, keep: bool = True) -> Candidate:
    """Our loop, in the environment that has the network."""
    settings = {"shape": SHAPE, "weights": weights, "engine": engine, "bfloat16": bfloat16, "keep_memory": keep}
    return Candidate("nirvana_sampling:Sampling", settings, peers=True)


def lowered() -> dict[str, str]:
    """What we run in bfloat16, by name, where the hardware computes in it."""
    return LOWERED if has_bfloat16(torch.device("cpu")) else {}


def pipeline(weights: str | None, *, keep: bool = False) -> Candidate:
    """Their pipeline."""
    settings = {"shape": SHAPE, "weights": weights, "keep_memory": keep}
    return Candidate("diffusers_sampling:Pipeline", settings, peers=True)


def off_pipeline(running: Mapping[str, Worker], batch: int, eta: float) -> dict[str, dict[str, float]]:
    """How far each candidate is from the pipeline when both start from and add the same noise.

    state: relative to the largest number; pictures: on their scale of 0 to 1. Raises ValueError beyond `TOLERANCE`,
    and in bfloat16 beyond `LOWER`.
    """
    made: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, worker) in enumerate(running.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            worker.run(order(batch, eta, seed=7, one=True, save=str(place)))
            made[name] = {part: np.load(place / f"{part}.npy") for part in ("state", "images")}
    theirs = made[PIPELINE]
    largest = np.abs(theirs["state"]).max()
    found: dict[str, dict[str, float]] = {}
    for name, mine in made.items():
        off = {part: float(np.abs(mine[part] - theirs[part]).max()) for part in mine}
        off["state"] /= float(largest)
        if not off["state"] <= (LOWER if name in LOWERED else TOLERANCE):
            raise ValueError(f"{name} at batch {batch}, eta {eta} is off the pipeline by {off['state']:.1e}")
        found[name] = off
    return found


def whole(rounds: int, quick: bool) -> dict[str, Sampled]:
    """Whole samplings with the network."""
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "weights.safetensors")
        with Worker(Candidate("diffusers_sampling:Weights", {"shape": SHAPE, "weights": weights}, peers=True)):
            pass
        same = {
            PIPELINE: pipeline(weights),
            KEPT: pipeline(weights, keep=True),
            **{name: ours(engine, weights) for name, engine in ENGINES.items()},
            FREED: ours(ENGINES[EAGER], weights, keep=False),
            **{name: ours(engine, weights, bfloat16=True) for name, engine in lowered().items()},
        }
        ddp = Candidate("ddp_sampling:Sampling", {"shape": SHAPE, "dim": 72, "mults": [1, 2, 2], "steps": STEPS}, True)
        with workers({**same, DDP: ddp}) as running:
            alike = {name: running[name] for name in same}
            found = {name: _sampled(worker) for name, worker in running.items()}
            for batch in (2,) if quick else BATCHES:
                for kind, eta in ETAS.items():
                    what = f"{kind}, batch {batch}"
                    for name, off in off_pipeline(alike, batch, eta).items():
                        found[name]["off_pipeline"][what] = off["state"]
                        found[name]["off_pipeline"][f"{what}, pictures"] = off["images"]
                    timed, asked = (running if eta == 0 else alike), order(batch, eta, seed=11)
                    if eta == 0:
                        running[DDP].run(asked)  # the others were warmed by the check
                    for name, seconds in in_turn(timed, asked, rounds, warmed=True).items():
                        found[name]["seconds"][what] = seconds
            for name, worker in running.items():
                found[name]["peak_bytes"] = worker.peak_bytes
    return found


def _sampled(worker: Worker) -> Sampled:
    deviation = cast("float | None", worker.facts.get("deviation"))
    if deviation is not None and not deviation <= TOLERANCE:
        raise ValueError(f"a network is off float64 by {deviation:.1e}")
    return Sampled(seconds={}, off_pipeline={}, deviation=deviation, peak_bytes=None, versions=worker.facts["versions"])


def loop_alone(quick: bool) -> Loop:
    """The loops around a network that answers with a stored tensor: what they cost themselves."""
    found: Loop = {}
    with workers({PIPELINE: pipeline(None, keep=True), "nirvana": ours("eager", None)}) as running:
        for kind, eta in ETAS.items():
            for batch in BATCHES:
                asked = order(batch, eta, seed=11, steps=LOOP_STEPS)
                found[f"{kind}, batch {batch}"] = in_turn(running, asked, 2 if quick else LOOP_ROUNDS)
    return found


def whole_tables(found: Mapping[str, Sampled]) -> list[str]:
    """A table for each kind and batch: pictures a second, the ratio to the pipeline, the deviations."""
    parts: list[str] = []
    for what, theirs in found[PIPELINE]["seconds"].items():
        batch = int(what.rpartition(" ")[2])
        lines: list[list[str]] = []
        for name, sampled in found.items():
            if what not in sampled["seconds"]:
                continue
            mine, off = sampled["seconds"][what], sampled["off_pipeline"]
            lines.append(
                [
                    name,
                    f"{batch / statistics.median(mine):.3f}",
                    f"{1e3 * statistics.median(mine) / STEPS:.1f}",
                    f"{paired_ratio(theirs, mine):.2f}x",
                    f"{off[what]:.0e}" if what in off else "other network",
                    f"{off[f'{what}, pictures']:.0e}" if what in off else "other network",
                ]
            )
        head = ["pictures/s", "ms a step", "against the pipeline", "state off the pipeline", "pictures off it"]
        parts += [f"{STEPS} steps, {what}:", table(["sampler", *head], lines)]
    return parts


def microseconds(loop: Loop, what: str, name: str) -> float:
    """A step's median without a network."""
    return 1e6 * statistics.median(loop[what][name]) / LOOP_STEPS


def targets(found: Mapping[str, Sampled], loop: Loop) -> str:
    """What was aimed at, and what came out."""
    rows: list[list[str]] = []
    for what, theirs in found[PIPELINE]["seconds"].items():
        kind, _, size = what.partition(", batch ")
        if kind == "deterministic":
            same, lower = [EAGER, ENGINE], [name for name in LOWERED if name in found]
            ratios = {name: paired_ratio(theirs, found[name]["seconds"][what]) for name in (*same, *lower)}
            best = max(ratios[name] for name in same)
            engine = max(ratio for name, ratio in ratios.items() if name not in (EAGER, HALF))
            rows.append(target(f"the better of the two in float32, batch {size}", best, SAMPLING_TARGET, "x"))
            rows.append(target(f"the best engine, batch {size}", engine, ENGINE_TARGETS.get(int(size)), "x"))
            rows += [target(f"{name}, batch {size}", ratio, None, "x") for name, ratio in ratios.items()]
    for what, seconds in loop.items():
        share = 1 / paired_ratio(seconds[PIPELINE], seconds["nirvana"])
        rows.append(target(f"the loop alone, share of the pipeline's, {what}", share, LOOP_SHARE, at_most=True))
        kind, _, size = what.partition(", batch ")
        if int(size) == max(BATCHES):
            mine = microseconds(loop, what, "nirvana")
            rows.append(target(f"the loop alone, {what}", mine, LOOP_MICROSECONDS[kind], " us", at_most=True))
    return table(["nirvana against the pipeline", "measured", "target", ""], rows)


def loop_table(loop: Loop) -> str:
    """Microseconds a step without a network."""
    lines: list[list[str]] = []
    for what, seconds in loop.items():
        theirs, mine = (microseconds(loop, what, name) for name in (PIPELINE, "nirvana"))
        ratio = 1 / paired_ratio(seconds[PIPELINE], seconds["nirvana"])
        lines.append([what, f"{theirs:.0f}", f"{mine:.0f}", f"{ratio:.2f}"])
    return table(["the loop alone, microseconds a step", "DDIMPipeline", "nirvana", "nirvana / DDIMPipeline"], lines)


def memory_table(found: Mapping[str, Sampled]) -> str:
    """Peak memory and deviation from float64 of each process."""
    lines = [
        [
            name,
            f"{sampled['peak_bytes'] / 2**20:.0f}" if sampled["peak_bytes"] else "unknown",
            f"{sampled['deviation']:.0e}" if sampled["deviation"] is not None else "see the pictures",
        ]
        for name, sampled in found.items()
    ]
    return table([f"process, batches up to {max(BATCHES)}", "peak MB", "network off float64"], lines)


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def main() -> None:
    asked = options(__doc__ or "", rounds=3)
    found = whole(asked.rounds, asked.quick)
    loop = loop_alone(asked.quick)
    values = {"whole": found, "loop_steps": LOOP_STEPS, "loop": loop}
    text = page(found, loop, asked)
    publish("sampling", "Sampling beside the peers", asked.command("bench_sampling.py"), text, values, asked.docs)


def page(found: Mapping[str, Sampled], loop: Loop, asked: Options) -> str:
    """The section's text."""
    versions = {name: version for sampled in found.values() for name, version in sampled["versions"].items()}
    parts = [
        f"3x32x32, float32 but where a line says otherwise, {_listed(versions)}. The network is"
        " diffusers' UNet2DModel of the training table with random weights, the same file on both sides; times are"
        f" medians of {asked.rounds} rounds in turn. For the check both start from the same noise and add the same."
        " Ours run with the allocator as `nirvana generate` sets it (glibc keeps what is freed) but where a line says"
        " otherwise, the peers as they ship.",
        targets(found, loop),
        *whole_tables(found),
        f"The network replaced by a stored tensor, {LOOP_STEPS} steps, the allocator set alike. Stochastic noise is"
        " drawn from a generator for each picture on both sides.",
        loop_table(loop),
        memory_table(found),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    main()
