"""Training time to equal quality on Fashion-MNIST, against the recipes the peers recommend.

A peer trains for its budget and is measured on the way; its best distance is the target. Ours is the whole command
`nirvana train fashion-mnist --minutes M`, from its start to its end, for longer and longer M until the target is met.
Distance: Frechet, between features of drawn and of held-out test pictures in the judge that ships; drawing takes no
training time. Not a part of make bench (it takes hours): make bench-quality, or python benchmarks/time_to_quality.py
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from measure import DOCS, publish, table
from peers.driver import Candidate, Worker

import nirvana
from nirvana.data import open_data
from nirvana.evaluate import FashionJudge

PEERS = {
    "diffusers, the course's recipe": Candidate("diffusers_quality:make", {"keep_memory": True}, peers=True),
    "denoising-diffusion-pytorch, the README's recipe": Candidate(
        "ddp_quality:make", {"keep_memory": True}, peers=True
    ),
}
LABELLED = "diffusers, the course's recipe"
REFUSED = 2
"""The exit code with which nirvana refuses."""


class Point(TypedDict):
    """Quality after `seconds` of training: distance, and the share of pictures that show the class asked for."""

    seconds: float
    distance: float
    agreement: float | None


@dataclass(frozen=True)
class Asked:
    """The command line: minutes of each peer, measurements on the way, pictures at each, sampler steps, our budgets."""

    peer_minutes: float
    checks: int
    samples: int
    steps: int
    ours: tuple[float, ...]
    quick: bool

    @property
    def command(self) -> str:
        """What reproduces the results."""
        budgets = " ".join(f"{minutes:g}" for minutes in self.ours)
        return (
            f"python benchmarks/time_to_quality.py --peer-minutes {self.peer_minutes:g} --checks {self.checks}"
            f" --samples {self.samples} --steps {self.steps} --ours {budgets}"
        )


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features (n, d) (Heusel et al. 2017, eq. 6)."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The product of two covariances has the eigenvalues of a positive matrix: what is negative is rounding.
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


class Yardstick:
    """The judge and the features of the held-out pictures."""

    def __init__(self) -> None:
        self.judge = FashionJudge.load()
        self.test = self.judge.features(open_data("fashion-mnist:test").images)

    def point(self, seconds: float, pictures: np.ndarray, labelled: bool) -> Point:
        """What `pictures` are worth; picture i was asked to be of class i mod 10 where they are labelled."""
        named, _ = self.judge.classify(pictures)
        asked = np.arange(len(pictures)) % 10
        agreement = float((named == asked).mean()) if labelled else None
        return Point(
            seconds=seconds, distance=frechet_distance(self.judge.features(pictures), self.test), agreement=agreement
        )

    def real(self, samples: int) -> float:
        """The distance of as many training pictures: what perfect pictures would have."""
        return frechet_distance(self.judge.features(open_data("fashion-mnist").images[:samples]), self.test)


def peer_points(candidate: Candidate, asked: Asked, yardstick: Yardstick, labelled: bool) -> list[Point]:
    """The quality of a peer on its way through its budget."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder, Worker(candidate) as worker:
        file = str(Path(folder) / "pictures.npy")
        for _ in range(asked.checks):
            trained = worker.run({"train": 60 * asked.peer_minutes / asked.checks})["trained"]
            worker.run({"draw": asked.samples, "steps": asked.steps, "save": file})
            points.append(yardstick.point(cast("float", trained), np.load(file), labelled))
            print(f"  {candidate.case}: {points[-1]}", file=sys.stderr, flush=True)
    return points


def our_point(minutes: float, asked: Asked, yardstick: Yardstick) -> Point | None:
    """The quality after `nirvana train fashion-mnist --minutes M`, drawn without guidance, as the peers draw.

    None where nirvana refuses so few minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        command = [str(Path(sys.executable).with_name("nirvana")), "train", "fashion-mnist"]
        started = time.perf_counter()
        full = [*command, "--minutes", f"{minutes:g}", "--out", run]
        done = subprocess.run(full, check=False, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        if done.returncode == REFUSED:
            return None
        done.check_returncode()
        pictures = nirvana.load(run).generate(n=asked.samples, guidance=1.0).array
    point = yardstick.point(seconds, pictures, labelled=True)
    print(f"  nirvana, {minutes:g} minutes: {point}", file=sys.stderr, flush=True)
    return point


def our_points(target: float, asked: Asked, yardstick: Yardstick) -> list[Point]:
    """Longer and longer trainings until one has the distance `target`."""
    points: list[Point] = []
    for minutes in asked.ours:
        point = our_point(minutes, asked, yardstick)
        if point is not None:
            points.append(point)
            if point["distance"] <= target:
                break
    return points


def verdict(peer: list[Point], ours: list[Point]) -> list[str]:
    """The peer's best distance, its training time until then, ours until no worse, and their ratio."""
    best = min(peer, key=lambda point: point["distance"])
    reached = [point for point in ours if point["distance"] <= best["distance"]]
    row = [f"{best['distance']:.2f}", f"{best['seconds']:.0f}"]
    if not reached:
        nearest = min((point["distance"] for point in ours), default=math.inf)
        return [*row, "not reached", f"{nearest:.2f}", ""]
    first = min(reached, key=lambda point: point["seconds"])
    ratio = best["seconds"] / first["seconds"]
    return [*row, f"{first['seconds']:.0f}", f"{first['distance']:.2f}", f"{ratio:.1f}x"]


def arguments() -> Asked:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer-minutes", type=float, default=15.0, help="training of each peer")
    parser.add_argument("--checks", type=int, default=3, help="measurements of a peer on its way")
    parser.add_argument("--samples", type=int, default=1000, help="pictures drawn for each measurement")
    parser.add_argument("--steps", type=int, default=50, help="steps of the peers' samplers")
    parser.add_argument("--ours", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0, 8.0], help="our budgets, minutes")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; publishes nothing")
    given = parser.parse_args()
    if given.quick:
        return Asked(0.05, 1, 20, 2, (0.02, 1.0), True)
    return Asked(given.peer_minutes, given.checks, given.samples, given.steps, tuple(sorted(given.ours)), False)


def main() -> None:
    asked = arguments()
    yardstick = Yardstick()
    peers = {name: peer_points(candidate, asked, yardstick, name == LABELLED) for name, candidate in PEERS.items()}
    target = min(point["distance"] for points in peers.values() for point in points)
    ours = our_points(target, asked, yardstick)
    values: dict[str, Any] = {"peers": peers, "ours": ours, "real": yardstick.real(asked.samples)}
    text = page(peers, ours, values["real"], asked)
    publish("quality", "Training time to equal quality", asked.command, text, values, None if asked.quick else DOCS)


def page(peers: dict[str, list[Point]], ours: list[Point], real: float, asked: Asked) -> str:
    """The section's text."""
    head = ["peer", "its best distance", "its seconds", "our seconds", "our distance", "ratio"]
    verdicts = table(head, [[name, *verdict(points, ours)] for name, points in peers.items()])
    lines = [
        [
            name,
            f"{point['seconds']:.0f}",
            f"{point['distance']:.2f}",
            f"{point['agreement']:.0%}" if point["agreement"] is not None else "no labels",
        ]
        for name, points in {**peers, "nirvana train fashion-mnist --minutes M": ours}.items()
        for point in points
    ]
    points = table(["training", "seconds", "distance", "class as asked"], lines)
    return (
        "Frechet distance to the 10,000 test pictures in the features of the judge that ships,"
        f" {asked.samples} pictures each, without guidance; as many real pictures have {real:.2f}."
        " The peers' seconds are training steps alone, ours the whole command."
        " All keep the memory that they free (glibc's default would slow the peers further)."
        f" The peers draw by DDIM in {asked.steps} steps.\n\n{verdicts}\n{points}"
    )


if __name__ == "__main__":
    main()
