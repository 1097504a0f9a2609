"""Grids as they are written, the searched one, and that a picture made on it needs no cache to be made again."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from nirvana import files
from nirvana.cli.main import main
from nirvana.diffusion.grid import GRIDS, LISTS, karras
from nirvana.diffusion.level import strictly_monotone
from nirvana.diffusion.schedule import RectifiedFlow
from nirvana.diffusion.search import candidates
from nirvana.errors import Refused
from nirvana.generate import grids, searched
from nirvana.generate.grids import grid_of, listed, steps_of
from nirvana.generate.model import Model, load
from nirvana.generate.reproduction import reproduce
from nirvana.generate.request import SampleRequest
from nirvana.generate.sheet import axis, requests
from tiny_run import make_run, spec

RANGE = (-5.0, 5.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("grids") / "pets")


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A quicker search, and a cache of the test's own."""
    monkeypatch.setattr(searched, "TRAJECTORIES", 4)
    monkeypatch.setattr(searched, "candidates", lambda first, lam: candidates(first, lam, 8))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(run: Path) -> Model:
    return load(run)


@pytest.fixture
def calls(model: Model) -> Iterator[list[int]]:
    seen: list[int] = []
    handle = model.parts.denoiser.net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


def test_written_grids_are_read_number_by_number() -> None:
    ratios = [math.inf, 3.0000000000000004, 0.1, 0.0]
    assert listed("ratios", ratios) == "ratios:inf,3.0000000000000004,0.1,0.0"
    assert grids._parsed(listed("ratios", ratios)) == ("ratios", ratios)
    assert steps_of("ratios:5,1,0", 25) == 2 and steps_of("karras", 25) == 25 and steps_of("searched", 25) == 25
    assert len(grid_of("lam:-3,0,inf", RANGE)(RectifiedFlow(), 2)) == 3


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("karas", "unknown grid 'karas'; did you mean 'karras'. .known: exponential, karras, lam, leading"),
        ("ratioz:5,0", "did you mean 'ratios'"),
        ("ratios", "takes its levels, from noise to data: write ratios:NUMBER"),
        ("ratios:", "no list of numbers"),
        ("ratios:5,x,0", "no list of numbers"),
        ("karras:5,0", "not written as NAME:KEY=VALUE"),
        ("karras:roh=5", "has no parameter 'roh'; did you mean 'rho'"),
        ("karras:rho=-1", "rho must be positive"),
        ("uniform:rho=1", "has no parameter 'rho'.*known: none"),
        ("ratios:5,nan,0", "number 1 of the list, nan, is not a ratio"),
        ("ratios:0", "at least 2"),
        ("searched", "still to be found"),
    ],
)
def test_what_is_no_grid_is_refused(written: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        grid_of(written, RANGE)


@pytest.mark.parametrize(
    ("grid", "steps", "message"),
    [
        ("trailin", 3, "did you mean 'trailing'"),
        ("ratios:5,1,0", 3, "grid 'ratios' cannot have 3 steps here: a list of 3 levels is walked in 2 steps"),
        ("ratios:1,5,0", None, "not strictly monotone"),
        ("ratios:5,1,0.1", None, "has noise"),
        ("searched", 65, "at most 64 steps, got 65"),
    ],
)
def test_a_request_is_refused_before_a_call(
    model: Model, calls: list[int], grid: str, steps: int | None, message: str
) -> None:
    with pytest.raises(Refused, match=message):
        model.request(grid=grid, steps=steps)
    assert calls == []


def test_a_searched_grid_takes_a_solver_without_noise(model: Model, calls: list[int]) -> None:
    with pytest.raises(Refused, match="solver without noise, such as ddim; 'ddpm' draws noise"):
        model.request(grid="searched", solver="ddpm")
    assert calls == []


def test_a_solver_with_numbers_is_searched_for(model: Model) -> None:
    assert model.settled(model.request(grid="searched", solver="ddim:eta=0", steps=2)).grid.startswith("searched:inf,")
    with pytest.raises(Refused, match="draws noise"):
        model.request(grid="searched", solver="ddim:eta=0.5")


def test_an_eps_network_is_refused_at_pure_noise_before_a_call(tmp_path: Path) -> None:
    model = load(make_run(tmp_path / "eps", spec(parameterization="eps", native="unit", c_noise="angle")))
    with pytest.raises(Refused, match="start the levels at alpha > 0"):
        model.request(grid="uniform")
    assert model.request(grid="karras").grid == "karras"


def test_numbers_of_a_grid() -> None:
    ratios = [float(level.ratio) for level in grid_of("karras:rho=3,pure=1", RANGE)(RectifiedFlow(), 4)]
    expected = [float(level.ratio) for level in karras(RANGE, 3.0)(RectifiedFlow(), 4)]
    assert ratios == [math.inf, *expected[1:]]
    lam = [float(level.lam) for level in grid_of("uniform-lam:rho=2", RANGE)(RectifiedFlow(), 2)]
    assert lam == pytest.approx([-5.0, 2.5, math.inf], rel=1e-13)


def test_a_list_sets_the_steps_and_is_walked(model: Model) -> None:
    request = model.request(grid="ratios:inf,4,1,0.25,0", label="cat")
    assert request.steps == 4
    ratios = [float(level.ratio) for level in model.sampler().levels(request)]
    assert ratios == pytest.approx([math.inf, 4, 1, 0.25, 0], rel=1e-15)
    # The times of rectified flow behind these ratios give the same pictures as uniform times.
    flow = model.generate(label="cat", steps=4, seed=3)
    same = model.request(grid="times:1,0.75,0.5,0.25,0", label="cat", seed=3)
    assert np.array_equal(model.gather(same, model.stream(same)).array, flow.array)


def test_the_search_is_made_once_and_kept_whole(model: Model, calls: list[int], tmp_path: Path) -> None:
    asked = model.request(grid="searched", steps=3, label="cat", n=2)
    with pytest.raises(Refused, match=r"still to be found.*model.settled"):
        model.stream(asked)
    seen: list[tuple[int, int]] = []
    found = model.settled(asked, lambda done, total: seen.append((done, total)))
    assert found.grid.startswith("searched:inf,") and found.grid.endswith(",0.0") and found.steps == 3
    assert seen[-1][0] == seen[-1][1] > 40 and len(calls) > 40
    assert strictly_monotone(model.sampler().levels(found)) == "falling"
    (kept,) = (tmp_path / "cache" / "nirvana" / "grids").iterdir()
    assert json.loads(kept.read_text())["grid"] == found.grid
    calls.clear()
    assert model.settled(asked) == found and model.settled(found) == found
    assert model.generate("cat", grid="searched", steps=3, n=2).request == found
    calls.clear()
    # Other seeds, labels and counts are served by the same search.
    other = model.settled(model.request(grid="searched", steps=3, label="dog", n=5, seed=9, batch=2))
    assert other.grid == found.grid and calls == []
    # One that was edited is found anew.
    kept.write_text(kept.read_text().replace("inf,", "inf,9,"))
    assert model.settled(asked) == found and len(calls) > 40
    assert model.settled(model.request()) == model.request()


@pytest.mark.parametrize("changes", [{"steps": 4}, {"guidance": 1.0}, {"weights": "raw"}, {"clip": True}])
def test_what_changes_the_walk_has_a_search_of_its_own(
    model: Model, tmp_path: Path, changes: dict[str, object]
) -> None:
    usual = {"grid": "searched", "steps": 3, "guidance": 2.0}
    model.settled(model.request(**usual))  # pyright: ignore[reportArgumentType]
    model.settled(model.request(**{**usual, **changes}))  # pyright: ignore[reportArgumentType]
    assert len(list((tmp_path / "cache" / "nirvana" / "grids").iterdir())) == 2


def test_a_full_disk_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_json", full)
    with pytest.raises(Refused, match=r"no space left on the disk; .*XDG_CACHE_HOME"):
        model.settled(model.request(grid="searched", steps=2))


def test_a_network_that_takes_no_pure_noise_is_searched_from_its_trained_range(tmp_path: Path) -> None:
    described = spec(parameterization="edm", native="ratio", c_in="edm", c_noise="edm", trained_lam=[-3.0, 4.0])
    model = load(make_run(tmp_path / "edm", described))
    found = model.settled(model.request(grid="searched", steps=2))
    assert float(found.grid.partition(":")[2].split(",")[0]) == pytest.approx(math.exp(3), rel=1e-12)


def test_a_picture_says_its_levels_and_is_made_again_without_the_cache(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["generate", str(run), "--grid", "searched", "--steps", "3", "-n", "2", "--out", str(out), "--json"]
    assert main([*command, "--device", "cpu"]) == 0
    made = json.loads(capsys.readouterr().out)["request"]["grid"]
    assert made.startswith("searched:inf,")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(searched, "search", None)  # whoever searches now, fails
    for name in ("000.png", "001.png", "grid.png"):
        assert reproduce(out / name).same_bytes
    request = SampleRequest.from_json(json.loads(json.dumps({**SampleRequest(steps=3).to_json(), "grid": made})))
    assert torch.equal(*(load(run).sampler().levels(r)[1].alpha for r in (request, request)))


def test_a_sheet_compares_it(model: Model) -> None:
    cells = requests(model, model.request(steps=2, label="cat"), axis("grid=uniform,searched"))
    assert [grids.name_of(request.grid) for request in cells[0]] == ["uniform", "searched"]
    assert cells[0][1].grid != "searched"


def test_the_table_of_the_docs_is_the_registry() -> None:
    text = (Path(__file__).parents[2] / "docs" / "grids.md").read_text()
    for name, grid in GRIDS.items():
        assert f"| `{name}` | {grid.when} |\n" in text
    rows = [line.split("`")[1].partition(":")[0] for line in text.splitlines() if line.startswith("| `")]
    assert rows == [*GRIDS, *LISTS, "searched"]
