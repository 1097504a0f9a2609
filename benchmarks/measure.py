"""What all benchmarks share: paired timing, and the page and JSON file that results are written to."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nirvana.files import write_text

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Options:
    """What every benchmark's command line takes.

    rounds: measured runs of each candidate; quick: tiny sizes, to see that all of it works, so nothing is published.
    """

    rounds: int
    quick: bool

    @property
    def docs(self) -> Path | None:
        """Where results are published; None where they are only printed."""
        return None if self.quick else DOCS

    def command(self, script: str) -> str:
        """What reproduces the results of benchmarks/`script`."""
        return f"python benchmarks/{script} --rounds {self.rounds}"


def options(what: str, rounds: int) -> Options:
    """The options on the command line."""
    parser = argparse.ArgumentParser(description=what.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="measured runs of each candidate")
    parser.add_argument("--quick", action="store_true", help="one round of tiny sizes; publishes nothing")
    given = parser.parse_args()
    return Options(1 if given.quick else max(given.rounds, 1), given.quick)


def paired(candidates: Mapping[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each candidate, run in turn (A B A B ...) after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def paired_ratio(slow: Sequence[float], quick: Sequence[float]) -> float:
    """How many times as long `slow` takes as `quick`: the median over the rounds that both were measured in."""
    return statistics.median(a / b for a, b in zip(slow, quick, strict=False))


def target(what: str, found: float, wanted: float | None, unit: str = "", *, at_most: bool = False) -> list[str]:
    """A line of a table of targets: what, measured, target, and by how much it is missed."""
    if wanted is None:
        return [what, f"{found:.2f}{unit}", "", ""]
    missed = (found / wanted if at_most else wanted / found) - 1
    verdict = "met" if missed <= 0 else f"missed by {missed:.0%}"
    return [what, f"{found:.2f}{unit}", f"{'<=' if at_most else '>='} {wanted:g}{unit}", verdict]


def machine() -> str:
    """One line about what this was measured on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = f"{len(names)} x {names[0]}" if names else model
    kind = torch.backends.cpu.get_cpu_capability()
    return f"{model} ({kind}), torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.system()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def publish(name: str, title: str, command: str, text: str, values: object, docs: Path | None = DOCS) -> None:
    """Replace the section `name` of benchmarks.md in `docs`, and write benchmarks/<name>.json; always print it."""
    print(f"{title}\n\n{text}", flush=True)
    if docs is None:
        return
    page = docs / "benchmarks.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    section = f"{begin}## {title}\n\n`{command}`, on {machine()}.\n\n{text}{end}"
    before = page.read_text()
    if begin in before:
        head, _, rest = before.partition(begin)
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"{page} has {begin.strip()} without {end.strip()}: put it back, or delete the section")
        before = head + section + after
    else:
        before += "\n" + section
    write_text(page, before)
    (docs / "benchmarks").mkdir(exist_ok=True)
    record = json.dumps({"command": command, "machine": machine(), "values": values}, indent=2)
    write_text(docs / "benchmarks" / f"{name}.json", record + "\n")
