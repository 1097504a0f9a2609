"""What all benchmarks share: paired timing, and the page and JSON file that results are written to."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

DOCS = Path(__file__).parent.parent / "docs"


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


def publish(name: str, title: str, command: str, text: str, values: object) -> None:
    """Replace the section `name` of docs/benchmarks.md, and write docs/benchmarks/<name>.json."""
    page = DOCS / "benchmarks.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    section = f"{begin}## {title}\n\n`{command}`, on {machine()}.\n\n{text}{end}"
    before = page.read_text()
    if begin in before:
        head, _, rest = before.partition(begin)
        before = head + section + rest.partition(end)[2]
    else:
        before += "\n" + section
    page.write_text(before)
    (DOCS / "benchmarks").mkdir(exist_ok=True)
    record = json.dumps({"machine": machine(), "values": values}, indent=2)
    (DOCS / "benchmarks" / f"{name}.json").write_text(record + "\n")
    print(f"{title}\n\n{text}")
