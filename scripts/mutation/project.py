"""What is mutated and what judges it: the files, the named bugs, the equivalent mutants, the order of tests."""

from __future__ import annotations

import ast
import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .mutants import Mutant, keyed, made, mutants
from .worker import Recorded

SPARED = ("objective.py", "exact.py", "search.py")
"""Training is another matter, and the oracles are the measure: their own tests are exact. A search tries and compares:
with another of its moves it finds another grid as good, and only what it finds is tested."""


@dataclass(frozen=True)
class NamedBug:
    """A bug that real samplers have had, as a patch: the text `old` of `file` becomes `new`."""

    name: str
    mutant: Mutant


@dataclass(frozen=True)
class Project:
    """A repository: `mutated` and `tests` are folders below `root`; the two tables are TOML files."""

    root: Path
    mutated: tuple[str, ...]
    tests: tuple[str, ...]
    named: Path
    equivalent: Path

    def sources(self) -> Iterator[tuple[str, bytes]]:
        """(file, text) of every file to mutate."""
        for folder in self.mutated:
            for path in sorted((self.root / folder).rglob("*.py")):
                if path.name not in SPARED:
                    yield path.relative_to(self.root).as_posix(), path.read_bytes()

    def test_files(self) -> list[str]:
        """The files that judge."""
        found = [path for folder in self.tests for path in (self.root / folder).rglob("test_*.py")]
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def mutants(self) -> list[Mutant]:
        """Every mutant of every file."""
        return [mutant for file, source in self.sources() for mutant in mutants(file, source)]

    def named_bugs(self) -> list[NamedBug]:
        """The patches of the table. Raises ValueError where one does not fit the source in exactly one place."""
        return [_named_bug(self.root, entry) for entry in _table(self.named, "bug")]

    def equivalents(self) -> dict[tuple[str, str, str], str]:
        """(file, line, line of the mutant) -> why no test tells them apart. ValueError for a line that is gone."""
        reasons: dict[tuple[str, str, str], str] = {}
        for entry in _table(self.equivalent, "mutant"):
            file, line = entry["file"], entry["line"]
            lines = (self.root / file).read_text().splitlines() if (self.root / file).exists() else []
            if line not in map(str.strip, lines):
                raise ValueError(f"{self.equivalent.name}: {file} has no line '{line}' any more: drop the entry")
            if not entry["reason"].strip():
                raise ValueError(f"{self.equivalent.name}: '{line}' -> '{entry['mutant']}' needs a reason")
            reasons[file, line, entry["mutant"]] = entry["reason"]
        return reasons

    def digest(self) -> str:
        """Of all that a result depends on: the sources, and the tests with what they import."""
        everything = hashlib.sha256()
        paths = [*(self.root / "src").rglob("*.py"), *(self.root / "tests").glob("*.py")]
        paths += [path for folder in self.tests for path in (self.root / folder).rglob("*.py")]
        for path in sorted(set(paths)):
            everything.update(f"{path.relative_to(self.root)}\0".encode() + path.read_bytes() + b"\0")
        return everything.hexdigest()[:16]


def _table(path: Path, name: str) -> list[dict[str, str]]:
    entries: list[dict[str, Any]] = tomllib.loads(path.read_text()).get(name, [])
    return [{key: str(value) for key, value in entry.items()} for entry in entries]


def _named_bug(root: Path, entry: Mapping[str, str]) -> NamedBug:
    name, file, old, new = entry["name"], entry["file"], entry["old"].encode(), entry["new"]
    source = (root / file).read_bytes()
    if source.count(old) != 1:
        raise ValueError(
            f"the patch '{name}' fits {file} in {source.count(old)} places, it should in 1: renew it in named.toml"
        )
    start = source.index(old)
    mutant = made(file, source, start, start + len(old), new, "named", scope_at(source, start))
    ast.parse(mutant.applied(source))
    return NamedBug(name, replace(keyed([replace(mutant, before=entry["old"], after=new)])[0]))


def scope_at(source: bytes, place: int) -> str:
    """The qualified name of the innermost function around byte `place`; empty outside of functions."""
    line = source.count(b"\n", 0, place) + 1
    path: list[str] = []
    body: list[ast.stmt] = ast.parse(source).body
    name = ""
    while True:
        around = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0)
        ]
        if not around:
            return name
        path.append(around[0].name)
        if isinstance(around[0], ast.FunctionDef):
            name = "".join(path)
            path.append(".<locals>.")
        else:
            path.append(".")
        body = around[0].body


def relevant(mutant: Mutant, tests: Mapping[str, Recorded]) -> list[str]:
    """The ids of the tests that call the mutant's function, or where it is in none, anything of its file."""
    file = mutant.file.removeprefix("src/")
    if not mutant.scope:
        return [name for name, test in tests.items() if any(f.startswith(f"{file}:") for f in test.functions)]
    name = f"{file}:{mutant.scope}"
    inner = f"{name}.<locals>."
    return [key for key, test in tests.items() if any(f == name or f.startswith(inner) for f in test.functions)]


def stages(mutant: Mutant, tests: Mapping[str, Recorded], killer: str | None) -> list[list[str]]:
    """The relevant tests, the likeliest to fail first, in runs of which the second is needed if the first passes.

    First the test that killed it before and the file that mirrors the mutated one, then the others; cheap files and
    cheap tests first.
    """
    by_file: dict[str, list[str]] = {}
    for name in sorted(relevant(mutant, tests), key=lambda name: tests[name].seconds):
        by_file.setdefault(name.split("::")[0], []).append(name)
    path = Path(mutant.file)
    mirrors = tuple(f"test_{name}" for name in (path.stem.strip("_"), path.parent.name))

    def likelihood(file: str) -> tuple[bool, float]:
        return not Path(file).stem.startswith(mirrors), sum(tests[name].seconds for name in by_file[file])

    files = sorted(by_file, key=likelihood)
    known = [killer] if killer is not None and killer in tests else []
    first = known + [name for name in by_file.get(files[0], []) if name != killer] if files else known
    rest = [name for file in files[1:] for name in by_file[file] if name != killer]
    return [stage for stage in (first, rest) if stage]
