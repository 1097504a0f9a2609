"""Where the time of a step goes: measures a run and writes the page docs/profile.md and docs/benchmarks/profile.json.

Run: python benchmarks/profile_page.py [shapes] [--out DOCS] (about half a minute)
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from measure import DOCS, machine, table

from nirvana.cli.profile import HEAD, notes, rows, title
from nirvana.files import write_text
from nirvana.recipes.profile import Half, RunProfile, profile_run

INTRODUCTION = """\
# Where the time goes

`nirvana profile RUN` measures a training step and a sampling step of a run, which it only reads. This page is what
`{command}` wrote, for a model of {parameters:.1f} million parameters and pictures of {shape}, on
{machine}.

The milliseconds of a step are the median of steps without a profiler, and so are those of the data loader; the rest is
divided as torch's profiler saw it in further steps. What no operation accounts for is the time of Python and of
dispatch. GFLOP are those of products and convolutions, 2 for a multiplication with its addition. MB are the tensors
that an operation reads and writes, as if none were in a cache. Batched products and softmax count as attention.
"""


def section(name: str, half: Half) -> str:
    """A step in Markdown."""
    head = f"## {title(name, half).removeprefix('a ').capitalize()}\n\n"
    said = "".join(f"- {what}: {text}\n" for what, text in notes(half).items())
    return f"{head}{table(['kind', *HEAD[1:]], rows(half.step))}\n{said}"


def page(found: RunProfile, command: str) -> str:
    """The page of a run of which both halves were measured."""
    shape = "x".join(map(str, found.shape))
    start = INTRODUCTION.format(
        command=command, parameters=found.parameters / 1e6, shape=shape, machine=machine().removesuffix(".")
    )
    halves = {"training": found.training, "sampling": found.sampling}
    return "\n".join([start, *(section(name, half) for name, half in halves.items() if half is not None)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", nargs="?", default="shapes", help="a run folder, or a model that ships")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder for the page")
    given = parser.parse_args()
    found, command = profile_run(given.run, say=print), f"python benchmarks/profile_page.py {given.run}"
    if found.missing:
        parser.error("; ".join(found.missing.values()))
    (given.out / "benchmarks").mkdir(parents=True, exist_ok=True)
    write_text(given.out / "profile.md", page(found, command))
    values = {name: value for name, value in found.to_json().items() if name != "run"}
    record = {"command": command, "machine": machine(), "values": values}
    write_text(given.out / "benchmarks" / "profile.json", json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
