"""Runs tests against a changed copy of the source: each run is a fork of a process that has the libraries loaded."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

import hypothesis
import pytest

PACKAGE = "nirvana"
FAILED_TO_RUN = 99
"""The exit code of a run that did not come as far as pytest."""
MEMORY = 12 << 30
"""Bytes of address space of one run: a mutant that fills the memory is stopped there."""


@dataclass(frozen=True)
class Recorded:
    """A test: its seconds, and the functions of the package it calls, as "file:qualified name"."""

    seconds: float
    functions: frozenset[str]


Recordings = dict[str, Recorded]
"""By their node id."""


@dataclass(frozen=True)
class Run:
    """How a run ended. killer: the node id of the first failure; said: what failed, in one line."""

    end: Literal["passed", "failed", "timeout", "crashed"]
    killer: str = ""
    said: str = ""
    ran: int = 0


class Tree:
    """A copy of the source that one worker changes, one file at a time, and puts right again."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root, self.place, self._changes = root, place, 0
        shutil.copytree(root / "src", place / "src", ignore=shutil.ignore_patterns("__pycache__"))

    @contextlib.contextmanager
    def changed(self, file: str, source: bytes) -> Generator[None]:
        """`file` holds `source` inside."""
        path = self.place / file
        path.write_bytes(source)
        original = (self.root / file).stat()
        # Byte code is matched by second and size: a time of its own makes sure that none of another source is taken.
        self._changes += 1
        os.utime(path, (original.st_mtime + self._changes, original.st_mtime + self._changes))
        try:
            yield
        finally:
            shutil.copy2(self.root / file, path)

    def run(self, files: Sequence[str], plugin: object, seconds: float) -> int | None:
        """The exit code of pytest over `files` with this source; None where it took longer; negative after a signal."""
        return forked(lambda: self._pytest(files, plugin), seconds, self.place / "log.txt")

    def _pytest(self, files: Sequence[str], plugin: object) -> int:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(self.root)
        os.environ["PYTHONPATH"] = str(self.place / "src")  # for the processes that tests start
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["NIRVANA_UNCHECKED"] = "1"  # see tests/conftest.py
        sys.path.insert(0, str(self.place / "src"))
        sys.pycache_prefix = str(self.place / "bytecode")
        sys.dont_write_bytecode = False
        options = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider", "--basetemp", str(self.place / "tmp")]
        loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is loaded before pytest comes to it
        return int(pytest.main([*options, *loaded, *files], plugins=[plugin, _FromHere(self.place / "src")]))


class _FromHere:
    """Makes sure that the changed source is what is tested, and that a failure is not narrowed down first."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def pytest_configure(self) -> None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("mutation")

    def pytest_collection_finish(self) -> None:
        module = sys.modules.get(PACKAGE)
        if module is not None and not Path(str(module.__file__)).is_relative_to(self.source):
            raise pytest.UsageError(f"{PACKAGE} was imported from {module.__file__}, not from {self.source}")


class Recorder:
    """Notes for each test how long it takes and which functions below `source` it calls.

    What a module calls while it is imported, and what a fixture of a wider scope calls, counts for each of its tests.
    """

    def __init__(self, source: Path, out: Path) -> None:
        self.prefix, self.out = f"{source.resolve()}/", out
        self._of_code: dict[CodeType, str | None] = {}
        self._of_module: dict[str, set[str]] = {}
        self._of_test: dict[str, set[str]] = {}
        self._seconds: dict[str, float] = {}
        self._into: set[str] = set()

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        del event, argument  # a call: without a local trace function there are no other events
        code = frame.f_code
        if code not in self._of_code:
            inside = code.co_filename.startswith(self.prefix)
            self._of_code[code] = f"{code.co_filename.removeprefix(self.prefix)}:{code.co_qualname}" if inside else None
        name = self._of_code[code]
        if name is not None:
            self._into.add(name)

    @contextlib.contextmanager
    def _noting(self, into: set[str]) -> Generator[None]:
        outer, tracer, self._into = self._into, sys.gettrace(), into
        sys.settrace(self._called)
        try:
            yield
        finally:
            self._into = outer
            sys.settrace(tracer)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Generator[None, Any, Any]:
        with self._noting(self._module(collector.nodeid)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        with self._noting(self._module(str(request.node.nodeid) or next(iter(self._of_module), ""))):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        start = time.perf_counter()
        with self._noting(self._of_test.setdefault(item.nodeid, set())):
            result = yield
        self._seconds[item.nodeid] = time.perf_counter() - start
        return result

    def pytest_sessionfinish(self) -> None:
        tests = {
            name: {
                "seconds": round(self._seconds[name], 4),
                "functions": sorted(called | self._module(name)),
            }
            for name, called in self._of_test.items()
        }
        self.out.write_text(json.dumps(tests))

    def _module(self, node: str) -> set[str]:
        return self._of_module.setdefault(node.split("::")[0], set())


class Chosen:
    """Runs the tests with the ids `order`, in this order, and writes the first failure to `out`."""

    def __init__(self, order: Sequence[str], out: Path) -> None:
        self.order = {name: i for i, name in enumerate(order)}
        self.out = out
        self.ran = 0
        self._note("", "")

    def _note(self, killer: str, said: str) -> None:
        self.out.write_text(json.dumps({"killer": killer, "said": said, "ran": self.ran}))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report.nodeid, _last_line(report.longreprtext))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.ran += 1
        if report.failed:
            self._note(report.nodeid, _last_line(report.longreprtext))


def _last_line(text: str) -> str:
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (errors or text.splitlines() or [""])[0][:160]


def forked(body: Callable[[], int], seconds: float, log: Path) -> int | None:
    """The exit code of `body` in a child of its own session, its output in `log`; None where it was stopped."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = FAILED_TO_RUN
        try:
            os.setsid()
            with log.open("wb") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            code = body()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            code = None
            break
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what its tests started and left
    return code


def record(tree: Tree, file: str, seconds: float) -> Recordings:
    """The tests of `file` on the source as it is. Raises RuntimeError, with their output, where they do not pass."""
    out = tree.place / "recorded.json"
    out.unlink(missing_ok=True)
    code = tree.run([file], Recorder(tree.place / "src", out), seconds)
    if code not in (0, 5):
        said = (tree.place / "log.txt").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{file} fails on the source as it is (pytest exits with {code}):\n{said}")
    return read_tests(json.loads(out.read_text()))


def read_tests(table: Mapping[str, Mapping[str, Any]]) -> Recordings:
    """The recorded tests, from their JSON."""
    return {name: Recorded(float(of["seconds"]), frozenset(of["functions"])) for name, of in table.items()}


def attempt(tree: Tree, tests: Sequence[str], seconds: float) -> Run:
    """Run `tests` in this order until the first fails. Raises RuntimeError where pytest itself gives up."""
    out = tree.place / "first_failure.json"
    files = list(dict.fromkeys(name.split("::")[0] for name in tests))
    code = tree.run(files, Chosen(tests, out), seconds)
    noted: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    killer, said, ran = str(noted.get("killer", "")), str(noted.get("said", "")), int(noted.get("ran", 0))
    if code is None:
        return Run("timeout", killer or tests[0], f"longer than {seconds:.0f} s", ran)
    if code < 0 or code == pytest.ExitCode.INTERNAL_ERROR:
        return Run("crashed", killer or tests[0], f"signal {-code}" if code < 0 else "pytest broke down", ran)
    if code in (1, 2) and killer:
        return Run("failed", killer, said, ran)
    if code in (0, 5):
        return Run("passed", ran=ran)
    log = (tree.place / "log.txt").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"pytest exits with {code}:\n{log}")
