"""The benchmarks' own arithmetic and bookkeeping, without a timing of anything real."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[None]:
    """The folders that the scripts and their workers import from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.syspath_prepend(str(BENCHMARKS / "peers"))
        before = set(sys.modules)
        yield
        for name in set(sys.modules) - before:
            if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]


@pytest.fixture
def measure(benchmarks: None) -> ModuleType:
    return importlib.import_module("measure")


@pytest.fixture
def driver(benchmarks: None) -> ModuleType:
    return importlib.import_module("peers.driver")


class FakeWorker:
    """Answers with the times it was given, and notes its turns."""

    def __init__(self, name: str, seconds: list[float], turns: list[str]) -> None:
        self.name, self.seconds, self.turns = name, iter(seconds), turns

    def run(self, order: Any) -> dict[str, Any]:
        self.turns.append(self.name)
        return {"seconds": next(self.seconds)}


def test_candidates_take_turns_and_the_first_round_does_not_count(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []
    clock = iter([0.0, 0.0, 0.0, 1.0, 0.0, 10.0, 0.0, 3.0, 0.0, 30.0, 0.0, 2.0, 0.0, 20.0])
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = measure.paired({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=3)
    assert turns == ["a", "b"] * 4
    assert found == {"a": 2.0, "b": 20.0}


def test_a_ratio_pairs_the_rounds(measure: ModuleType) -> None:
    # The machine was three times slower in the second round; the ratio of the medians, 6/2, would not see that.
    assert measure.paired_ratio([4.0, 6.0, 9.0], [2.0, 2.0, 4.5]) == 2.0
    assert measure.paired_ratio([8.0], [2.0, 4.0]) == 4.0


def test_workers_take_turns_until_their_share_is_spent(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PAUSE", 0)
    turns: list[str] = []
    running = {
        "quick": FakeWorker("quick", [5.0, 1.0, 2.0, 3.0], turns),
        "slow": FakeWorker("slow", [9.0, 8.0], turns),
        "endless": FakeWorker("endless", [90.0], turns),
    }
    found = driver.in_turn(running, {}, rounds=3, limit=15.0)
    assert found == {"quick": [1.0, 2.0, 3.0], "slow": [8.0], "endless": [90.0]}
    assert turns == ["quick", "slow", "endless", "quick", "slow", "quick", "quick"]


CASE = """
from __future__ import annotations

class Greedy:
    def __init__(self, settings):
        print("what libraries print is no reply")
        self.word = settings["word"]

    def facts(self):
        return {"word": self.word}

    def prepare(self, order):
        memory = bytearray(order["bytes"])
        memory[::4096] = b"1" * len(memory[::4096])
        return lambda: {"bytes": len(memory)}
"""


@pytest.fixture
def greedy(driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Makes a worker around a case of its own that needs no torch."""
    (tmp_path / "greedy.py").write_text(CASE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda settings: driver.Worker(driver.Candidate("greedy:Greedy", settings))


def test_a_worker_is_a_process_that_answers_and_says_its_memory(greedy: Callable[[Any], Any]) -> None:
    with greedy({"word": "yes"}) as worker:
        assert worker.facts == {"word": "yes"}
        assert worker.run({"bytes": 8 << 20})["bytes"] == 8 << 20
        peak = worker.peak_bytes
        worker.run({"bytes": 64 << 20})
        if peak is not None:
            assert 50 << 20 < worker.peak_bytes - peak < 80 << 20


def test_making_the_inputs_is_not_timed(benchmarks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = importlib.import_module("worker")
    now = [0.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow:
        def facts(self) -> Any:
            return {"slow": True}

        def prepare(self, order: Any) -> Callable[[], Any]:
            now[0] += 100.0

            def run() -> Any:
                now[0] += order["seconds"]
                return {"done": True}

            return run

    replies = StringIO()
    worker.serve(Slow(), StringIO('{"seconds": 2.0}\n{"seconds": 3.0}\n'), replies)
    facts, *answers = map(json.loads, replies.getvalue().splitlines())
    assert facts == {"slow": True}
    assert [(answer["seconds"], answer["done"]) for answer in answers] == [(2.0, True), (3.0, True)]


def test_a_worker_that_ends_is_reported(greedy: Callable[[Any], Any], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"ended \(code 1\) when asked for greedy:Greedy"):
        greedy({})
    assert "KeyError: 'word'" in capfd.readouterr().err


def test_a_missing_environment_of_the_peers_says_what_to_do(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PEERS_PYTHON", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match=r"scripts/peers\.sh"):
        driver.peers_python()


def test_publishing_replaces_its_own_section_alone(measure: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nBy hand.\n")
    for name, text in (("a", "first\n"), ("b", "second\n"), ("a", "third\n")):
        measure.publish(name, name.upper(), f"run {name}", text, {"numbers": [1]}, tmp_path)
    written = page.read_text()
    assert written.startswith("# Benchmarks\n\nBy hand.\n")
    assert "first" not in written and written.index("third") < written.index("second")
    assert written.count("<!-- a -->") == written.count("<!-- /a -->") == 1
    record = json.loads((tmp_path / "benchmarks" / "a.json").read_text())
    assert record == {"command": "run a", "machine": measure.machine(), "values": {"numbers": [1]}}


def test_publishing_keeps_a_page_whose_markers_are_broken(measure: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("<!-- a -->\nnever closed\n\nmore\n")
    with pytest.raises(ValueError, match="without"):
        measure.publish("a", "A", "run a", "new\n", {}, tmp_path)
    assert "more" in page.read_text()


def test_a_quick_run_publishes_nothing(measure: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick"])
    assert measure.options("What it is.", rounds=5) == measure.Options(1, True)
    assert measure.Options(1, True).docs is None
    assert measure.Options(3, False).docs == BENCHMARKS.parent / "docs"


def test_the_table_is_markdown(measure: ModuleType) -> None:
    assert measure.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_frechet_distance_of_gaussians(benchmarks: None) -> None:
    quality = importlib.import_module("time_to_quality")
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 3))
    assert quality.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert quality.frechet_distance(a, a + np.array([1.0, 2.0, 2.0])) == pytest.approx(9)
    # Equal means, covariances S and 9 S: tr(S + 9 S - 6 S) = 4 tr S.
    centred = a - a.mean(0)
    assert quality.frechet_distance(centred, 3 * centred) == pytest.approx(4 * np.trace(np.cov(a, rowvar=False)))


def test_the_verdict_takes_the_peers_best_and_our_first(benchmarks: None) -> None:
    quality = importlib.import_module("time_to_quality")

    def point(seconds: float, distance: float) -> Any:
        return quality.Point(seconds=seconds, distance=distance, agreement=None)

    peer = [point(300, 20.0), point(600, 10.0), point(900, 12.0)]
    ours = [point(60, 15.0), point(100, 10.0), point(200, 4.0)]
    assert quality.verdict(peer, ours) == ["10.00", "600", "100", "10.00", "6.0x"]
    assert quality.verdict(peer, ours[:1]) == ["10.00", "600", "not reached", "15.00", ""]


def test_networks_that_do_not_match_are_refused(benchmarks: None) -> None:
    training = importlib.import_module("bench_training")
    rows = {"diffusers": {"parameters": 100, "flops": 1000}, "nirvana": {"parameters": 91, "flops": 1099}}
    training.check_matched({**rows, training.UNMATCHED: {"parameters": 1, "flops": 1}})
    for quantity, bad in (("parameters", 89), ("flops", 1101)):
        with pytest.raises(ValueError, match="not within 10%"):
            training.check_matched({**rows, "nirvana": {**rows["nirvana"], quantity: bad}})


def test_we_are_compared_with_the_faster_peer_and_with_the_ceiling(benchmarks: None) -> None:
    training = importlib.import_module("bench_training")

    def row(*seconds: float) -> Any:
        return {"seconds": list(seconds), "batch": 10, "flops": 2_000_000_000, "bfloat16": False}

    rows = {"diffusers": row(9.0, 8.0), "denoising-diffusion-pytorch": row(4.0, 8.0), "nirvana": row(2.0, 2.0)}
    assert training.faster_peer(rows) == "denoising-diffusion-pytorch"
    assert training.against(rows, "nirvana") == 3.0
    assert training.gflops(rows["nirvana"]) == 10.0
    # At 20 GFLOP/s a batch takes 1 s, and the peer 6 s.
    assert training.headroom(rows, "nirvana", {False: 20.0}) == 6.0


def test_a_missed_target_says_by_how_much(measure: ModuleType) -> None:
    assert measure.target("a", 3.0, 2.5, "x") == ["a", "3.00x", ">= 2.5x", "met"]
    assert measure.target("b", 2.0, 2.5, "x") == ["b", "2.00x", ">= 2.5x", "missed by 25%"]
    assert measure.target("c", 450.0, 300.0, at_most=True) == ["c", "450.00", "<= 300", "missed by 50%"]
    assert measure.target("d", 7.0, None) == ["d", "7.00", "", ""]
