"""How long a user waits before anything happens, ours and the peers: fresh processes in turn, medians.

Run: make bench, or python benchmarks/bench_start.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import options, publish, table
from peers.driver import peers_python

BARE = "a bare interpreter"
FIRST_PROMPTS = (("shapes", "a red circle above a blue square", 6_000), ("emoji", "a red heart, flat emoji", 12_000))
"""Models that ship, a prompt, and the milliseconds until its pictures are on the disk; emoji takes the extra `text`."""


@dataclass(frozen=True)
class Start:
    """A command; limit: the milliseconds it may take; beyond_bare: the interpreter's own start is taken off."""

    command: Sequence[str]
    limit: float | None = None
    beyond_bare: bool = False


def seconds(command: Sequence[str]) -> float:
    """The time of `command` in a fresh process. It runs where the cases are, so that they can be imported."""
    path = str(Path(__file__).with_name("peers"))
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    return time.perf_counter() - started


def starts(folder: Path) -> dict[str, Start]:
    """What is measured. A run of the default recipe is made in `folder` for the first picture."""
    ours, peers = sys.executable, peers_python()
    nirvana = str(Path(ours).with_name("nirvana"))
    run, pictures = str(folder / "run"), str(folder / "pictures")
    seconds([nirvana, "train", "digits", "--images", "32", "--out", run])
    generate = [nirvana, "generate", run, "-n", "1", "--seed", "7", "--out", pictures]
    return {
        BARE: Start([ours, "-c", "pass"]),
        "import nirvana": Start([ours, "-c", "import nirvana"], limit=100, beyond_bare=True),
        "nirvana --help": Start([nirvana, "--help"], limit=250),
        "import torch": Start([ours, "-c", "import torch"]),
        "nirvana generate RUN -n 1, to the picture on the disk": Start(generate),
        **{
            f"nirvana generate {name} '{prompt}' -n 4": Start(
                [nirvana, "generate", name, prompt, "-n", "4", "--out", pictures], limit=limit
            )
            for name, prompt, limit in FIRST_PROMPTS
        },
        "from diffusers import UNet2DModel, DDIMPipeline": Start(
            [peers, "-c", "from diffusers import UNet2DModel, DDIMPipeline"]
        ),
        "import denoising_diffusion_pytorch": Start([peers, "-c", "import ddp_library"]),
    }


def main() -> None:
    asked = options(__doc__ or "", rounds=7)
    with tempfile.TemporaryDirectory() as folder:
        cases = starts(Path(folder))
        found: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(asked.rounds + 1):  # the first round warms the disk's cache
            for name, case in cases.items():
                took = seconds(case.command)
                if turn:
                    found[name].append(took)
    bare = statistics.median(found[BARE])
    rows: list[list[str]] = []
    for name, case in cases.items():
        took = 1000 * (statistics.median(found[name]) - (bare if case.beyond_bare else 0))
        rows.append([name, f"{took:.0f}", f"{case.limit:.0f}" if case.limit else ""])
    text = table(["fresh process", "ms", "limit, ms"], rows)
    text += "\n`import nirvana` is counted without the start of the interpreter. Pictures are counted to the files.\n"
    publish("start", "Start-up", asked.command("bench_start.py"), text, found, asked.docs)


if __name__ == "__main__":
    main()
