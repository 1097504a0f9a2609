"""How long features and distances of 5,000 pictures of 32x32 take against cached statistics; and a peer's distances.

The peer gets the features that we computed: pytorch-fid's own Fréchet distance, in the peers' environment. It has no
kernel distance, no interval and no extrapolation, so it computes one of the figures that the other side computes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Options, options, publish, table

from nirvana.evaluate.frechet import Moments, blocks_of, extrapolated, frechet_distance
from nirvana.evaluate.kernel import kernel_distance
from nirvana.evaluate.manifold import manifold_scores
from nirvana.evaluate.reference import KEPT
from nirvana.evaluate.space import ModuleSpace, open_space

PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"
PEER = Path(__file__).parent / "peers" / "pytorch_fid_distance.py"


def pictures(count: int, seed: int) -> np.ndarray:
    """Soft random pictures; what they show does not matter to the time."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def ours(space: ModuleSpace, made: np.ndarray, real: np.ndarray) -> tuple[dict[str, float], np.ndarray, float]:
    """Seconds of every part, the features, and the plain Fréchet distance."""
    reference, seconds = Moments.of(real), dict[str, float]()
    reference.root  # noqa: B018  what the cache of a real evaluation would make it compute once, too
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = time.perf_counter() - started
        started = time.perf_counter()

    features = space(made)
    lap("features")
    extrapolated(blocks_of([features], len(features), space.width), reference)
    lap("FD, extrapolated, with interval")
    kernel_distance(features, real)
    lap("KID, with interval")
    manifold_scores(real[: len(made)], features)
    lap("precision, recall, density, coverage")
    return seconds, features, frechet_distance(Moments.of(features), reference)


def peer(features: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """pytorch-fid's distance of the same features, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "features.npz", a=features, b=real)
        done = subprocess.run(
            [str(PEERS), str(PEER), folder + "/features.npz"], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(chosen: Options) -> None:
    count, kept = (1500, 1500) if chosen.quick else (5000, KEPT)
    space = open_space()
    if not isinstance(space, ModuleSpace):
        sys.exit("the default space is no module")
    real = space(pictures(kept, 0))
    seconds, features, distance = ours(space, pictures(count, 1), real)
    other = peer(features, real)
    rows = [[name, f"{value:.1f}"] for name, value in seconds.items()]
    rows += [
        ["together", f"{sum(seconds.values()):.1f}"],
        ["pytorch-fid, FD of the same features", f"{other['seconds']:.1f}"],
    ]
    text = table(["part", "seconds"], rows) + (
        f"\n{count} pictures of 32x32 in {space.name}, {kept} real ones. The plain distance is {distance:.6f} here and"
        f" {other['distance']:.6f} by pytorch-fid.\n"
    )
    result = {"seconds": seconds, "distance": distance, "peer": other}
    if chosen.docs is None:
        print(text)
    else:
        publish("evaluate", "Evaluating 5,000 pictures", chosen.command("bench_evaluate.py"), text, result)


if __name__ == "__main__":
    main(options(__doc__ or "", 1))
