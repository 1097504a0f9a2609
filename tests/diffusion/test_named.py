"""The registry: what each name makes, its parameters, and the page that is made of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nirvana.cli.main import main
from nirvana.diffusion.level import Level
from nirvana.diffusion.named import SOLVERS, Named
from nirvana.diffusion.solver import Multistep, Solver

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SOLVERS)
def test_a_name_makes_a_solver_and_says_when_to_choose_it(name: str):
    named = SOLVERS[name]
    assert isinstance(named, Named) and isinstance(named(), Solver) and named() == named.make()
    assert named() == named.make(**named.parameters)
    assert 10 < len(named.when) <= 90 and "\n" not in named.when
    assert named().order >= named().started_order >= 0


def test_the_families_are_all_there():
    assert {named.family for named in SOLVERS.values()} == {"exponential", "runge-kutta", "adams", "stochastic"}
    assert len(SOLVERS) == len({str(named()) for named in SOLVERS.values()})
    assert SOLVERS["euler-ancestral"]() == SOLVERS["ddim"](eta=1.0)
    with pytest.raises(TypeError):
        SOLVERS["mine"] = SOLVERS["ddim"]  # pyright: ignore


def test_a_multistep_solver_remembers_as_many_steps_as_its_name_says():
    made = {name: named() for name, named in SOLVERS.items()}
    points = {name: solver.points for name, solver in made.items() if isinstance(solver, Multistep)}
    assert points == {
        "ddim": 1,
        "dpmpp-2m": 2,
        "dpmpp-3m": 3,
        "unipc-1": 1,
        "unipc-2": 2,
        "unipc-2-bh1": 2,
        "unipc-3": 3,
        "deis-2": 2,
        "deis-3": 3,
        "dpmpp-2m-sde": 2,
        "dpmpp-3m-sde": 3,
        "sa-solver": 2,
        "ipndm-2": 2,
        "ipndm-3": 3,
        "ipndm": 4,
        "euler-ancestral": 1,
    }


def test_parameters_are_numbers_by_name():
    assert dict(SOLVERS["ddim"].parameters) == {"eta": 0.0} and dict(SOLVERS["heun"].parameters) == {}
    assert SOLVERS["ddim"](eta=0.5) != SOLVERS["ddim"]() == SOLVERS["ddim"](eta=0.0)
    assert not SOLVERS["ddim"](eta=0.5).deterministic
    assert SOLVERS["sa-solver"](eta=0.0) == Multistep(SOLVERS["dpmpp-3m"]().coordinate, 2, corrects=True)
    assert SOLVERS["adaptive"](tolerance=1e-5).tolerance == 1e-5
    assert SOLVERS["heun-churn"](s_churn=1.0, s_noise=1.01).s_noise == 1.01


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ddim", {"etta": 0.5}, r"'ddim' has no parameter 'etta'; did you mean 'eta'\? \(it has: eta\)"),
        ("heun", {"eta": 0.5}, r"'heun' has no parameter 'eta' \(it has: none\)"),
        ("heun-churn", {"churn": 1.0}, r"did you mean 's_churn'\? \(it has: s_churn, s_tmin, s_tmax, s_noise\)"),
        ("ddim", {"eta": 2.0}, "eta is 2.0"),
    ],
)
def test_an_unknown_parameter_is_refused(name: str, values: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        SOLVERS[name](**values)


def test_the_command_lists_them_all(capsys: pytest.CaptureFixture[str]):
    assert main(["solvers"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[1 : len(SOLVERS) + 1]] == list(SOLVERS)
    assert all(named.when in text for named in SOLVERS.values())
    assert main(["solvers", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["solvers"]
    assert [row["name"] for row in rows] == list(SOLVERS)
    for row in rows:
        solver, levels = SOLVERS[row["name"]](), [Level.from_lam(0.0), Level.from_lam(1.0)]
        assert row["order"] == solver.order and row["started_order"] == solver.started_order
        assert row["calls"] == solver.calls(levels) and row["stochastic"] is not solver.deterministic
        assert row["family"] == SOLVERS[row["name"]].family and row["parameters"] == SOLVERS[row["name"]].parameters


def test_the_page_is_that_of_the_registry():
    command = [sys.executable, str(ROOT / "scripts" / "solvers_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
