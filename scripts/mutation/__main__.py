"""Measure the tests: re-inject every named bug and a fixed sample of mutants, and count those that some test catches.

    make mutation

Results are kept in build/mutation/ by the digest of source and tests, so a run that was broken off goes on where it
stopped. Exits with 1 where a named bug survives, or more mutants than the target allows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .mutants import Mutant, sample
from .project import NamedBug, Project, stages
from .report import TARGET, Report, Result, markdown, write_between
from .worker import Recorded, Recordings, Run, Tree, attempt, read_tests, record

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
LIBRARIES = ("torch", "numpy", "scipy.stats", "beartype", "jaxtyping", "hypothesis", "diffusers.schedulers")
"""Loaded once, before the forks; those that are not installed are not needed."""
RECORD_LIMIT = 900.0
"""Seconds that a file of tests may take on the source as it is."""


@dataclass(frozen=True)
class Trial:
    """A mutant and the runs of tests that judge it, with the seconds each may take."""

    mutant: Mutant
    stages: list[tuple[list[str], float]]


_tree: list[Tree] = []
"""The tree of this worker process."""


def _prepare(root: Path, place: Path) -> None:
    _tree.append(Tree(root, Path(tempfile.mkdtemp(dir=place))))


def _record(file: str) -> Recordings:
    return record(_tree[0], file, RECORD_LIMIT)


def _judge(trial: Trial) -> Result:
    start = time.monotonic()
    tree, mutant = _tree[0], trial.mutant
    run = Run("passed")
    with tree.changed(mutant.file, mutant.applied((tree.root / mutant.file).read_bytes())):
        for tests, seconds in trial.stages:
            run = attempt(tree, tests, seconds)
            if run.end != "passed":
                break
    count = sum(len(tests) for tests, _ in trial.stages)
    said = run.said or ("" if count else "no test calls it")
    return Result(mutant.key, run.end, run.killer, said, round(time.monotonic() - start, 2))


class Progress:
    """A line now and then: how many of how many, and how long it will still take."""

    def __init__(self, what: str, total: int, every: float = 10.0) -> None:
        self.what, self.total, self.every = what, total, every
        self.done, self.start, self.said = 0, time.monotonic(), time.monotonic()

    def step(self, note: str = "") -> None:
        """One more is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.said >= self.every or self.done == self.total:
            left = (now - self.start) / self.done * (self.total - self.done)
            print(f"  {self.what} {self.done}/{self.total} {note} about {left / 60:.1f} min left", flush=True)
            self.said = now


def recorded(pool: ProcessPoolExecutor, project: Project, store: Path) -> Recordings:
    """Every test with what it calls: from `store`, or by running them all on the source as it is."""
    path = store / "tests.json"
    if not path.exists():
        files = project.test_files()
        progress = Progress("tests recorded", len(files))
        tests: dict[str, Recorded] = {}
        for done in as_completed([pool.submit(_record, file) for file in files]):
            tests.update(done.result())
            progress.step()
        table = {name: {"seconds": t.seconds, "functions": sorted(t.functions)} for name, t in sorted(tests.items())}
        path.write_text(json.dumps(table))
    return read_tests(json.loads(path.read_text()))


def judged(
    pool: ProcessPoolExecutor, trials: Sequence[Trial], known: Mapping[str, Result], log: Path
) -> Iterator[Result]:
    """The result of every trial, those in `known` at once; new ones are added to `log`, a line of JSON each."""
    yield from (known[trial.mutant.key] for trial in trials if trial.mutant.key in known)
    todo = [pool.submit(_judge, trial) for trial in trials if trial.mutant.key not in known]
    progress, alive = Progress("mutants", len(todo)), 0
    with log.open("a") as out:
        for done in as_completed(todo):
            result = done.result()
            out.write(json.dumps(asdict(result)) + "\n")
            out.flush()
            alive += result.alive
            progress.step(f"alive {alive},")
            yield result


def results(log: Path) -> dict[str, Result]:
    """What a run before this one found; a last line that was cut off is left out."""
    if not log.exists():
        return {}
    found: list[dict[str, Any]] = []
    for line in log.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return {entry["key"]: Result(**entry) for entry in found}


def limit(names: Iterable[str], tests: Recordings, grace: float) -> float:
    """The seconds a run may take: several times what it takes on the source as it is, and `grace` to start."""
    return grace + 6 * sum(tests[name].seconds for name in names)


def measured(project: Project, picked: Sequence[Mutant], named: Sequence[NamedBug], options: Options) -> list[Result]:
    """Judge all of them, with what an earlier run of the same source and tests found."""
    store = options.store / project.digest()
    store.mkdir(parents=True, exist_ok=True)
    killers_file = options.store / "killers.json"
    killers: dict[str, str] = json.loads(killers_file.read_text()) if killers_file.exists() else {}
    for name in LIBRARIES if options.preload else ():
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    place = Path(tempfile.mkdtemp(prefix="mutation-"))
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(options.workers, context, _prepare, (project.root, place)) as pool:
            try:
                tests = {
                    name: test
                    for name, test in recorded(pool, project, store).items()
                    if not any(part in name for part in options.without)
                }
                trials = [
                    Trial(
                        m,
                        [(names, limit(names, tests, options.grace)) for names in stages(m, tests, killers.get(m.key))],
                    )
                    for m in [*(bug.mutant for bug in named), *picked]
                ]
                log = store / "results.jsonl"
                found = list(judged(pool, trials, results(log), log))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    killers |= {result.key: result.killer for result in found if result.killer}
    killers_file.write_text(json.dumps(killers, indent=0, sort_keys=True))
    return found


@dataclass(frozen=True)
class Options:
    """The command line."""

    root: Path
    mutated: list[str]
    tests: list[str]
    named: Path
    equivalent: Path
    sample: int
    seed: int
    workers: int
    only: str
    grace: float
    without: list[str]
    preload: bool
    page: Path | None
    store: Path


def options(arguments: Sequence[str] | None = None) -> Options:
    """The command line, read."""
    parser = argparse.ArgumentParser(prog="mutation", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--mutated", nargs="+", default=["src/nirvana/diffusion"], help="folders to mutate")
    parser.add_argument("--tests", nargs="+", default=["tests/diffusion", "tests/verify"], help="folders that judge")
    parser.add_argument("--named", type=Path, default=HERE / "named.toml", help="the named bugs")
    parser.add_argument("--equivalent", type=Path, default=HERE / "equivalent.toml", help="mutants that change nothing")
    parser.add_argument("--sample", type=int, default=400, help="how many mutants beside the named bugs")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="those of the sample whose file, kind or key holds this text")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds a run has to start, beside its tests'")
    # Each of them draws what the exact proofs of order and moments have measured: minutes for every mutant that lives.
    parser.add_argument("--without", nargs="*", default=["test_it_passes[distribution"], help="tests that do not judge")
    parser.add_argument("--no-preload", dest="preload", action="store_false", help="do not load torch before forking")
    parser.add_argument("--page", type=Path, help="write the score between its marks on this page")
    parser.add_argument("--store", type=Path, default=ROOT / "build" / "mutation", help="where results are kept")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    """Run, report, and judge the score."""
    chosen = options()
    project = Project(chosen.root, tuple(chosen.mutated), tuple(chosen.tests), chosen.named, chosen.equivalent)
    reasons, named, everything = project.equivalents(), project.named_bugs(), project.mutants()
    picked = sample(everything, chosen.sample, chosen.seed)
    if chosen.only:
        picked = [m for m in picked if chosen.only in f"{m.file} {m.kind} {m.key}"]
        named = [bug for bug in named if chosen.only in f"{bug.mutant.file} named {bug.mutant.key}"]
    print(f"{len(named)} named bugs, {len(picked)} mutants of {len(everything)}, {chosen.workers} workers", flush=True)
    start = time.monotonic()
    found = {result.key: result for result in measured(project, picked, named, chosen)}
    report = Report(named, picked, found, reasons)
    print("\n".join(report.lines()))
    print(f"{(time.monotonic() - start) / 60:.1f} minutes")
    if chosen.page is not None:
        write_between(chosen.page, "mutation", markdown(report, len(everything), chosen.seed))
    return 0 if report.passed else 1


if __name__ == "__main__":
    print(f"target: every named bug and {TARGET:.0%} of the mutants", flush=True)
    try:
        sys.exit(main())
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
