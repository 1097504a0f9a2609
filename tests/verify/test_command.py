"""`nirvana verify`: what it prints and writes, a user's own solver, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nirvana.cli.main import main
from nirvana.diffusion import Solver
from nirvana.verify import plan
from nirvana.verify.finding import Finding
from nirvana.verify.report import CLOSE, OPEN, markdown, rows, write
from nirvana.verify.subject import solver

Captured = pytest.CaptureFixture[str]
QUICK = ["--quick", "--workers", "1", "--schedule", "rectified-flow"]


@pytest.fixture(autouse=True)
def in_a_folder_with_a_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).parent / "faulty_solvers.py", tmp_path / "my_solvers.py")
    (tmp_path / "broken_module.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "raising.py").write_text("1 / 0\n")
    (tmp_path / "odd.py").write_text(
        "from my_solvers import Euler\n"
        "number = 3\n"
        "class Half:\n    order = 1\n    def step(self): ...\n"
        "class Needs:\n    def __init__(self, x): ...\n"
        "class Order(Euler):\n    def __init__(self): super().__init__(order='two')\n"
        "class Sure(Euler):\n    def __init__(self): super().__init__(deterministic='yes')\n"
        "class Calls(Euler):\n    calls = 3\n"
        "made = Euler()\n"
        "def make(): return Euler()\n"
    )


def test_a_sound_solver_of_ones_own_passes(capsys: Captured) -> None:
    name = "my_solvers:Heun"
    assert main(["verify", name, *QUICK, "--out", "report"]) == 0
    out = capsys.readouterr().out
    assert name in out and "pass" in out and "all passed" in out
    assert name in Path("report/verification.md").read_text()
    found = json.loads(Path("report/verification.json").read_text())["findings"]
    assert main(["verify", name, *QUICK[:-3], "2", *QUICK[-2:], "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["findings"] == found, "several processes find the same, and --json is one line"
    assert told["passed"] is True and {f["proof"] for f in found} >= {"order", "endpoints", "distribution"}


@pytest.mark.parametrize("name", ["my_solvers:Heun", "odd:made", "odd:make"])
def test_a_class_a_solver_and_a_function_that_makes_one_name_a_solver(name: str) -> None:
    assert isinstance(solver(name), Solver)


def test_a_fault_is_said_and_the_exit_code_is_1(capsys: Captured) -> None:
    assert main(["verify", "my_solvers:StageAtTheWrongSigma", "--solver", "unipc-2", *QUICK]) == 1
    captured = capsys.readouterr()
    assert "FAIL order of my_solvers:StageAtTheWrongSigma on rectified-flow uneven" in captured.out
    assert "proofs failed; the first: " in captured.err and captured.err.count("\n") == 1
    text = Path("verification/verification.md").read_text()
    assert "## Failed" in text and "| unipc-2 | rectified-flow | 3 |" in text
    told = json.loads(Path("verification/verification.json").read_text())
    assert told["passed"] is False and told["quick"] is True
    failed = [f for f in told["findings"] if not f["passed"]]
    assert failed and all(f["subject"] == "my_solvers:StageAtTheWrongSigma" for f in failed)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--solver", "dddim"], "unknown solver 'dddim'; did you mean 'ddim'? (known: "),
        (["--schedule", "cosin"], "unknown schedule 'cosin'; did you mean 'cosine'? (known: "),
        (["ddim"], "'ddim' names no solver of yours: write package.module:MySolver, or --solver ddim"),
        (["no_module:A"], "cannot import 'no_module': there is no such module"),
        ([":A"], "':A' names no solver: write package.module:MySolver"),
        (["broken_module:A"], "cannot import 'broken_module': 'nothing_of_this_name' is not found"),
        (["raising:A"], "cannot import 'raising': it raises ZeroDivisionError"),
        (["my_solvers:Huen"], "'my_solvers' has no 'Huen'; did you mean 'Heun'?"),
        (["odd:number"], "'odd:number' is no solver: it is a int"),
        (["odd:Needs"], "'odd:Needs' cannot be made without arguments"),
        (["odd:Half"], "without started_order, deterministic, calls, init, revise"),
        (["odd:Order"], "order is 'two', not a whole number from 0"),
        (["odd:Sure"], "deterministic is 'yes', neither True nor False"),
        (["odd:Calls"], "calls is no method"),
        (["--workers", "-1"], "--workers -1 is less than 0"),
        (["--qick"], "did you mean '--quick'?"),
    ],
)
def test_refusals(args: list[str], message: str, capsys: Captured) -> None:
    assert main(["verify", *args]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not Path("verification").exists()


FOUND = [
    Finding("order", "it", "cosine uniform", True, "a", 2.0, 2.04, 64),
    Finding("order", "it", "cosine uneven", True, "b", 2.0, 1.96, 64),
    Finding("started order", "it", "cosine uneven", False, "c | d", 2.0, None, 64),
    Finding("full range", "it", "cosine uniform", True, "e", 1.0, 2.2),
    Finding("endpoints", "it", "cosine", True, "f", calls=17),
    Finding("conversion", "eps", "oracle", True, "g", 1e-12, float("inf")),
]


def test_a_row_is_the_worst_of_its_spacings() -> None:
    (row,) = rows(FOUND)
    assert row.cells == ("it", "cosine", "2", "1.96", "2", "none", "2.20", "17", "FAIL")
    assert not row.passed


def test_what_stands_between_the_marks_is_kept(tmp_path: Path) -> None:
    write(tmp_path, FOUND, quick=True)
    path = tmp_path / "verification.md"
    text = path.read_text()
    assert "Not measured yet" in text and "c / d" in text and "`nirvana verify --quick`: 6 proofs, 1 FAILED" in text
    start, end = text.index(OPEN) + len(OPEN), text.index(CLOSE)
    path.write_text(text[:start] + "\n97.5% of 400\n" + text[end:])
    write(tmp_path, FOUND[:1], quick=False)
    again = path.read_text()
    assert f"{OPEN}\n97.5% of 400\n{CLOSE}" in again and "Not measured yet" not in again and "FAIL" not in again
    assert json.loads((tmp_path / "verification.json").read_text())["findings"][0]["measured"] == 2.04
    assert markdown(FOUND, quick=False, mutation="x").count(OPEN) == 1


def test_a_lost_mark_is_refused_before_anything_is_proven(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(plan, "run_all", None)
    folder = Path("report")
    folder.mkdir()
    (folder / "verification.md").write_text(f"{OPEN} mine")
    assert main(["verify", "--solver", "ddim", *QUICK, "--out", "report"]) == 2
    assert "is missing; put it back, or delete the file" in capsys.readouterr().err
    assert (folder / "verification.md").read_text() == f"{OPEN} mine"


def test_numbers_that_are_none_become_null() -> None:
    told = FOUND[-1].to_json()
    assert told["measured"] is None and told["declared"] == 1e-12 and told["proof"] == "conversion"
