"""Training beside the peers: whole steps on networks of equal arithmetic and size, in turn, each in its own process.

Our step is a step of the real training loop (levels, weighted loss, clipping, AdamW, two averages, records); the peers'
are those of their documentation and Trainer. Run: make bench, or python benchmarks/bench_training.py
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from measure import Options, options, paired_ratio, publish, table, target
from peers.driver import Candidate, in_turn, workers

from nirvana.train.device import has_bfloat16

LIMIT = 45.0
"""Seconds a candidate may spend on a table: emulated bfloat16 takes as long for a single step."""
TOLERANCE = 0.10
"""By so much the parameters and the arithmetic of matched networks may differ."""
ROUNDING = {False: 1e-4, True: 0.05}
"""By so much, relative to the largest number, an output in float32 (False) and bfloat16 may be off that in float64."""
MATCHED = {"width": 96, "multipliers": [1, 2, 1], "blocks": 1, "attention": [2]}
SAME_LEVELS = {"width": 64, "multipliers": [1, 2, 2], "blocks": 2, "attention": [1]}
OURS, UNMATCHED = "nirvana", "nirvana, levels and widths as diffusers'"
CEILINGS = {"128 channels, 16x16": (128, 16), "64 channels, 32x32": (64, 32)}
SHIPPED_TARGET, FAST_TARGET, CEILING_TARGET, GFLOPS_TARGET = 2.5, 1.5, 0.6, 280.0


class Row(TypedDict):
    """What is known of a candidate."""

    seconds: list[float]
    batch: int
    bfloat16: bool
    parameters: int
    flops: int
    deviation: float
    peak_bytes: int | None
    versions: dict[str, str]


Rows = dict[str, Row]
Ceilings = Mapping[bool, float]
"""The most 10^9 operations a second that a convolution reached, by whether it was in bfloat16."""


@dataclass(frozen=True)
class Setting:
    """What pictures a table is about."""

    shape: tuple[int, int, int]
    batch: int

    def ours(self, network: Mapping[str, Any] = MATCHED, *, keep: bool = True, bfloat16: bool = False) -> Candidate:
        """nirvana with this network; as `nirvana train` runs it, freed memory is kept."""
        return self._candidate("nirvana_training", {"network": network}, keep, bfloat16, peers=False)

    def diffusers(self, *, keep: bool = False, bfloat16: bool = False) -> Candidate:
        """UNet2DModel; bfloat16 comes with channels-last."""
        return self._candidate("diffusers_training", {}, keep, bfloat16, peers=True)

    def ddp(self, *, keep: bool = False, bfloat16: bool = False) -> Candidate:
        """denoising-diffusion-pytorch's Unet, of a width that matches the others; bfloat16 comes with channels-last."""
        return self._candidate("ddp_training", {"dim": 72, "mults": [1, 2, 2]}, keep, bfloat16, peers=True)

    def _candidate(self, module: str, network: Mapping[str, Any], keep: bool, bfloat16: bool, peers: bool) -> Candidate:
        common = {"shape": self.shape, "batch": self.batch, "keep_memory": keep, "bfloat16": bfloat16}
        return Candidate(f"{module}:Training", {**common, **network}, peers)


def convolutions(batch: int) -> dict[str, Candidate]:
    """Plain convolutions of the sizes that most of the arithmetic is in."""
    return {
        f"{name}, {'bfloat16' if bfloat16 else 'float32'}": Candidate(
            "ceiling:Convolution", {"channels": channels, "side": side, "batch": batch, "bfloat16": bfloat16}
        )
        for bfloat16 in ((False, True) if native() else (False,))
        for name, (channels, side) in CEILINGS.items()
    }


def native() -> bool:
    """Whether the hardware computes in bfloat16."""
    return has_bfloat16(torch.device("cpu"))


def measured(candidates: Mapping[str, Candidate], rounds: int) -> Rows:
    """All candidates in turn. ValueError, before anything is timed, where an output is not that of float64."""
    with workers(candidates) as running:
        for name, worker in running.items():
            off, most = worker.facts.get("deviation", 0.0), ROUNDING[candidates[name].settings["bfloat16"]]
            if not off <= most:
                raise ValueError(f"{name} is off float64 by {off:.1e}, and at most {most:g} is rounding")
        seconds = in_turn(running, {}, rounds, limit=LIMIT)
        return {
            name: Row(
                seconds=seconds[name],
                batch=candidates[name].settings["batch"],
                bfloat16=candidates[name].settings["bfloat16"],
                parameters=worker.facts.get("parameters", 0),
                flops=worker.facts["flops"],
                deviation=worker.facts.get("deviation", 0.0),
                peak_bytes=worker.peak_bytes,
                versions=worker.facts.get("versions", {}),
            )
            for name, worker in running.items()
        }


def check_matched(rows: Rows) -> None:
    """Raise ValueError where a network, but for `UNMATCHED`, is not within `TOLERANCE` of the first."""
    reference, of = next(iter(rows.items()))
    for name, row in rows.items():
        if name == UNMATCHED:
            continue
        for quantity, found, wanted in (
            ("parameters", row["parameters"], of["parameters"]),
            ("operations", row["flops"], of["flops"]),
        ):
            if abs(found / wanted - 1) > TOLERANCE:
                raise ValueError(f"{name} has {found} {quantity}, {reference} {wanted}: not within {TOLERANCE:.0%}")


def gflops(row: Row) -> float:
    """10^9 operations a second, by the median."""
    return row["flops"] * row["batch"] / statistics.median(row["seconds"]) / 1e9


def faster_peer(rows: Rows) -> str:
    """The peer that trains more pictures a second."""
    return min((n for n in rows if not n.startswith(OURS)), key=lambda n: statistics.median(rows[n]["seconds"]))


def best_of_ours(rows: Rows) -> str:
    """The fastest matched network of ours."""
    ours = (name for name in rows if name.startswith(OURS) and name != UNMATCHED)
    return min(ours, key=lambda name: statistics.median(rows[name]["seconds"]))


def against(rows: Rows, name: str) -> float:
    """How many times as fast as the faster peer, round by round."""
    return paired_ratio(rows[faster_peer(rows)]["seconds"], rows[name]["seconds"])


def rows_table(rows: Rows, ceilings: Ceilings) -> str:
    """A line a candidate; the last column is against the faster peer."""
    head = ["network", "M parameters", "GFLOP/picture", "pictures/s", "GFLOP/s", "of ceiling", "peak MB", "off float64"]
    lines: list[list[str]] = []
    for name, row in rows.items():
        peak, ceiling = row["peak_bytes"], ceilings.get(row["bfloat16"])
        lines.append(
            [
                name,
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['flops'] / 1e9:.2f}",
                f"{row['batch'] / statistics.median(row['seconds']):.2f}",
                f"{gflops(row):.0f}",
                f"{gflops(row) / ceiling:.0%}" if ceiling else "",
                f"{peak / 2**20:.0f}" if peak else "unknown",
                f"{row['deviation']:.0e}",
                f"{against(rows, name):.2f}x",
            ]
        )
    return table([*head, f"against {faster_peer(rows)}"], lines)


def as_shipped(setting: Setting) -> dict[str, Candidate]:
    """Everyone as they ship."""
    return {
        "diffusers": setting.diffusers(),
        "denoising-diffusion-pytorch": setting.ddp(),
        f"{OURS}, without its allocator setting": setting.ours(keep=False),
        OURS: setting.ours(),
        **({f"{OURS}, bfloat16": setting.ours(bfloat16=True)} if native() else {}),
    }


def same_allocator(setting: Setting) -> dict[str, Candidate]:
    """Everyone with the allocator setting that is ours."""
    return {
        "diffusers": setting.diffusers(keep=True),
        "denoising-diffusion-pytorch": setting.ddp(keep=True),
        OURS: setting.ours(),
        UNMATCHED: setting.ours(SAME_LEVELS),
    }


def bfloat16(setting: Setting) -> dict[str, Candidate]:
    """The peers in bfloat16 and channels-last, beside ours in float32 and, where the hardware has it, in bfloat16.

    All with the allocator setting that is ours.
    """
    return {
        "diffusers": setting.diffusers(keep=True, bfloat16=True),
        "denoising-diffusion-pytorch": setting.ddp(keep=True, bfloat16=True),
        f"{OURS}, float32": setting.ours(),
        **({f"{OURS}, bfloat16": setting.ours(bfloat16=True)} if native() else {}),
    }


def other(setting: Setting) -> dict[str, Candidate]:
    """Other pictures: everyone as they ship, ours with the stem where it would choose one."""
    stem = {f"{OURS}, stem of 2": setting.ours({**MATCHED, "stem": 2})}
    return {
        "diffusers": setting.diffusers(),
        "denoising-diffusion-pytorch": setting.ddp(),
        f"{OURS}, without its allocator setting": setting.ours(keep=False),
        OURS: setting.ours(),
        **({f"{OURS}, bfloat16": setting.ours(bfloat16=True)} if native() else {}),
        **(stem if setting.shape[1] >= 64 else {}),
    }


def targets(shipped: Rows, fast: Rows, ceilings: Ceilings) -> str:
    """What was aimed at, and what came out."""
    name, fast_name = best_of_ours(shipped), best_of_ours(fast)
    # Of the two last targets one is enough.
    of_ceiling = gflops(shipped[name]) / ceilings[shipped[name]["bfloat16"]]
    rows = [
        target("against the faster peer as it ships", against(shipped, name), SHIPPED_TARGET, "x"),
        target("against the faster peer in bfloat16 and channels-last", against(fast, fast_name), FAST_TARGET, "x"),
        target("share of the convolution ceiling", of_ceiling, CEILING_TARGET),
        target("most that the ceiling allows against the faster peer", headroom(shipped, name, ceilings), None, "x"),
        target("10^9 operations a second", gflops(shipped[name]), GFLOPS_TARGET),
    ]
    return table(["nirvana", "measured", "target", ""], rows)


def headroom(shipped: Rows, name: str, ceilings: Ceilings) -> float:
    """How much faster than the faster peer a network of ours would be that runs at the ceiling."""
    peer = shipped[faster_peer(shipped)]
    at_ceiling = ceilings[shipped[name]["bfloat16"]] * 1e9 / shipped[name]["flops"]
    return at_ceiling * statistics.median(peer["seconds"]) / peer["batch"]


def main() -> None:
    asked = options(__doc__ or "", rounds=3)
    batch, small = (2, 1) if asked.quick else (64, 16)
    reference = Setting((3, 32, 32), batch)
    top = measured(convolutions(batch), 2 * asked.rounds)
    shipped = measured(as_shipped(reference), asked.rounds)
    kept = measured(same_allocator(reference), asked.rounds)
    check_matched(shipped)
    check_matched(kept)
    fast = measured(bfloat16(reference), asked.rounds)
    others = {
        f"{c}x{h}x{w}, batch {small}": measured(other(Setting((c, h, w), small)), asked.rounds)
        for c, h, w in ((3, 32, 32), (1, 28, 28), (3, 64, 64))
    }
    values = {"ceiling": top, "shipped": shipped, "same_allocator": kept, "bfloat16": fast, "others": others}
    text = page(top, shipped, kept, fast, others, asked)
    publish("training", "Training beside the peers", asked.command("bench_training.py"), text, values, asked.docs)


def page(top: Rows, shipped: Rows, kept: Rows, fast: Rows, others: Mapping[str, Rows], asked: Options) -> str:
    """The section's text."""
    versions = {name: version for row in shipped.values() for name, version in row["versions"].items()}
    ceilings = {
        kind: max(map(gflops, rows))
        for kind in (False, True)
        if (rows := [r for r in top.values() if r["bfloat16"] == kind])
    }
    batch = next(iter(shipped.values()))["batch"]
    parts = [
        f"Whole training steps on fresh random pictures; {', '.join(f'{n} {v}' for n, v in versions.items())}. Each"
        f" candidate in its own process, in turn; medians of {asked.rounds} rounds, ratios paired round by round."
        " The allocator setting: glibc keeps what is freed. A candidate's deviation from float64 is its output's,"
        " relative to the largest.",
        targets(shipped, fast, ceilings),
        f"3x32x32, batch {batch}, networks within {TOLERANCE:.0%} in parameters and arithmetic, float32, as they ship:",
        rows_table(shipped, ceilings),
        "The same with the allocator setting on all sides (the last line is not matched in arithmetic):",
        rows_table(kept, ceilings),
        f"The peers in bfloat16 autocast and channels-last{'' if native() else ', which this processor emulates'}, with"
        " the allocator setting on all sides:",
        rows_table(fast, ceilings),
        "What plain convolutions reach, channels-last, forward and backward:",
        table(["3x3 convolution", "GFLOP/s"], [[name, f"{gflops(row):.0f}"] for name, row in top.items()]),
    ]
    for name, rows in others.items():
        parts += [f"{name}, the same networks, as they ship:", rows_table(rows, {})]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    main()
