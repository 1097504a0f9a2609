"""The mutation tool: what it changes, what it counts, and that a planted gap in the tests is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mutation.mutants import mutants, sample
from mutation.project import Project, relevant, scope_at, stages
from mutation.report import write_between
from mutation.worker import Recorded

ROOT = Path(__file__).parents[1]


def afters(text: str) -> set[str]:
    return {mutant.after for mutant in mutants("a.py", text.encode())}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a + b", {"x = a - b"}),
        ("x = (a) / (b)", {"x = (a) * (b)"}),
        ("x = -a", {"x = a"}),
        ("x = 3", {"x = 4", "x = 2"}),
        ("x = a[0]", {"x = a[1]", "x = a[(-1)]"}),
        ("x = 0.5", {"x = 1.0"}),
        ("x = a < 1e-9", {"x = a <= 1e-9", "x = a > 1e-9"}),
        ("x = a.lam - nxt.lam", {"x = a.lam + nxt.lam", "x = a.lam - now.lam"}),
        ("x = level.alpha", {"x = level.sigma"}),
        ("x = a is None and b", {"x = a is not None and b", "x = a is None or b"}),
        ("if eta:\n    pass", {"if (not eta):"}),
        ("x = not a", {"x = a"}),
        ("x = a.clamp(min=b)", {"x = a.clamp(max=b)"}),
        ("x += b", {"x -= b"}),
        ("def f(a=True):\n    return a & b", {"def f(a=False):", "return a | b"}),
        ("x = 'é' + a", {"x = 'é' - a"}),
        ("raise ValueError(f'{a + 1}')", set()),
        ("def f(a: Literal[1]) -> Array[2]:\n    '''-1'''", set()),
        ("x = zip(a, strict=True)", set()),
        ("Alias = float | Tensor", set()),
    ],
)
def test_what_is_changed(text: str, expected: set[str]):
    assert afters(text) == expected


def test_every_mutant_of_the_mathematics_compiles_and_has_a_key_of_its_own():
    project = Project(ROOT, ("src/nirvana/diffusion",), (), Path(), Path())
    found = project.mutants()
    assert len(found) > 1000
    assert len({mutant.key for mutant in found}) == len(found)
    texts = dict(project.sources())
    for mutant in found[::7]:
        compile(mutant.applied(texts[mutant.file]), mutant.file, "exec")


def test_a_sample_is_fixed_and_an_edit_elsewhere_keeps_it():
    text = "".join(f"def f{i}(now, nxt):\n    return now.a{i} - nxt.b{i} * {i + 2}\n" for i in range(60))
    found = mutants("a.py", text.encode())
    picked = sample(found, 40, 0)
    assert picked == sample(list(reversed(found)), 40, 0)
    assert [m.key for m in picked] != [m.key for m in sample(found, 40, 1)]
    moved = sample(mutants("a.py", b"import math\n\n" + text.encode()), 40, 0)
    assert {m.key for m in moved} == {m.key for m in picked}


def test_equal_changes_of_equal_lines_are_told_apart():
    found = mutants("a.py", b"def f(a):\n    x = -a\n    x = -a\n")
    assert len({mutant.key for mutant in found}) == 2


def test_the_scope_is_the_qualified_name_of_the_function():
    text = b"class A:\n    x = 1\n    def f(self):\n        def g():\n            return 2\n"
    assert [m.scope for m in mutants("a.py", text)] == ["", "", "A.f.<locals>.g", "A.f.<locals>.g"]
    assert scope_at(text, text.index(b"x = 1")) == ""
    assert scope_at(text, text.index(b"return 2")) == "A.f.<locals>.g"


def test_tests_that_call_the_function_run_the_likeliest_first():
    tests = {
        "tests/test_other.py::slow": Recorded(2.0, frozenset({"nirvana/a.py:f"})),
        "tests/test_other.py::fast": Recorded(0.1, frozenset({"nirvana/a.py:f.<locals>.<genexpr>"})),
        "tests/test_a.py::mirror": Recorded(5.0, frozenset({"nirvana/a.py:f", "nirvana/a.py:g"})),
        "tests/test_a.py::elsewhere": Recorded(0.1, frozenset({"nirvana/a.py:ff", "nirvana/b.py:f"})),
    }
    mutant, *_ = mutants("src/nirvana/a.py", b"def f(a):\n    return -a\n")
    fast, slow = "tests/test_other.py::fast", "tests/test_other.py::slow"
    assert stages(mutant, tests, None) == [["tests/test_a.py::mirror"], [fast, slow]]
    assert stages(mutant, tests, slow) == [[slow, "tests/test_a.py::mirror"], [fast]]
    assert stages(mutant, {}, None) == []
    at_module_level, *_ = mutants("src/nirvana/a.py", b"x = -a\n")
    assert set(relevant(at_module_level, tests)) == set(tests)


THING = '''"""Planted."""


def step(now: float, nxt: float) -> float:
    return 2 * (nxt - now)


def bounded(a: float) -> float:
    return a if a <= 3 else 3
'''
ENDLESS = """

def down(n: int) -> int:
    while n != 0:
        n -= 1
    return n
"""
TESTS = """
from nirvana.diffusion import thing
from nirvana.diffusion.thing import bounded, step


def test_step():
    assert step(1, 4) == 6


def test_bounded():
    assert [bounded(1), bounded(2.5), bounded(3), bounded(3.5), bounded(9)] == [1, 2.5, 3, 3, 3]


def test_down():
    assert not hasattr(thing, "down") or thing.down(5) == 0
"""
BUG = """
[[bug]]
name = "the step is taken twice"
file = "src/nirvana/diffusion/thing.py"
old = "return 2 * (nxt - now)"
new = "return 4 * (nxt - now)"
"""
SAME = """
[[mutant]]
file = "src/nirvana/diffusion/thing.py"
line = "return a if a <= 3 else 3"
mutant = "return a if a < 3 else 3"
reason = "at 3 both sides are 3"
"""


def plant(root: Path, thing: str = THING, tests: str = TESTS, named: str = BUG, equivalent: str = SAME) -> None:
    for name, text in {
        "src/nirvana/__init__.py": "",
        "src/nirvana/diffusion/__init__.py": "",
        "src/nirvana/diffusion/thing.py": thing,
        "tests/diffusion/test_thing.py": tests,
        "named.toml": named,
        "equivalent.toml": equivalent,
        "page.md": "# Page\n<!-- mutation -->\nold\n<!-- /mutation -->\nend\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def run(root: Path) -> subprocess.CompletedProcess[str]:
    given = {"--root": ".", "--named": "named.toml", "--equivalent": "equivalent.toml", "--store": "store"}
    options = [
        word for pair in {**given, "--page": "page.md", "--workers": "2", "--grace": "2"}.items() for word in pair
    ]
    return subprocess.run(
        [sys.executable, "-m", "mutation", "--no-preload", *options],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_good_test_kills_all_and_a_second_run_asks_nothing_again(tmp_path: Path):
    plant(tmp_path, THING + ENDLESS)
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr  # 1 of 18 survives, which is more than 3 of 100
    assert "named bugs: 1 of 1 killed" in done.stdout
    assert "1 equivalent, 0 alive" in done.stdout
    assert "at 3 both sides are 3" in done.stdout
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Page\n<!-- mutation -->\n") and page.endswith("<!-- /mutation -->\nend\n")
    assert "old" not in page and "| the step is taken twice | `diffusion/test_thing.py::test_step` |" in page
    (log,) = (tmp_path / "store").glob("*/results.jsonl")
    assert '"timeout"' in log.read_text()  # counting up never ends
    before = log.read_text()
    log.write_text(before[:-20])  # broken off in the last line
    again = run(tmp_path)
    assert "mutants 1/1" in again.stdout
    assert again.stdout.splitlines()[-2] == done.stdout.splitlines()[-2]


def test_a_gap_in_the_tests_is_found(tmp_path: Path):
    plant(tmp_path, tests=TESTS.replace("== 6", "!= 0"))
    done = run(tmp_path)
    assert done.returncode == 1
    assert "ALIVE  the step is taken twice" in done.stdout
    assert "`return 2 * (nxt - now)` -> `return 3 * (nxt - now)`  (ALIVE" in done.stdout
    assert "**alive**" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"named": BUG.replace("return 2", "return 7")}, "fits src/nirvana/diffusion/thing.py in 0 places"),
        ({"equivalent": SAME.replace('if a <= 3 else 3"\nm', 'if a <= 5 else 3"\nm')}, "drop the entry"),
        ({"equivalent": SAME.replace("at 3 both sides are 3", " ")}, "needs a reason"),
        ({"tests": TESTS.replace("== 6", "== 7")}, "fails on the source as it is"),
    ],
    ids=["patch", "gone", "reason", "failing"],
)
def test_what_does_not_fit_is_an_error(tmp_path: Path, change: dict[str, str], message: str):
    plant(tmp_path, **change)
    done = run(tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_killed_mutant_is_not_equivalent(tmp_path: Path):
    plant(tmp_path, equivalent=SAME + SAME.replace("a < 3", "a >= 3"))
    done = run(tmp_path)
    assert done.returncode == 1
    assert "WRONGLY CALLED EQUIVALENT" in done.stdout


def test_a_page_without_marks_is_refused(tmp_path: Path):
    page = tmp_path / "page.md"
    write_between(page, "mutation", "text")
    assert page.read_text() == "# Verification\n\n<!-- mutation -->\ntext\n<!-- /mutation -->\n"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="needs the marks"):
        write_between(page, "mutation", "text")
