"""What `nirvana profile` prints: tables that add up, in 100 columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import nirvana.recipes.profile as recipes
from nirvana.cli.main import main
from nirvana.cli.profile import text
from nirvana.recipes.profile import Half, RunProfile, Sizes
from nirvana.train.operations import ATTENTION, CONVOLUTION, DATA, KINDS, OTHER, POINTWISE
from nirvana.train.profile import Memory, Row, StepProfile

Captured = pytest.CaptureFixture[str]
MIB = 2**20

ROWS = (
    Row(CONVOLUTION, 0.05, 12, 4 * 10**9, 100 * 10**6),
    Row(POINTWISE, 0.02, 30, 0, 300 * 10**6),
    Row(DATA, 0.005, 2),
    Row(OTHER, 0.025, 400),
)
STEP = StepProfile(0.1, (0.09, 0.12), 20, ROWS, Memory(300 * MIB, 200 * MIB), torch.float32)
TRAINING = Half(32, STEP, 160e9, sizes=Sizes(4 * MIB, 4 * MIB, 8 * MIB, 8 * MIB))
SAMPLING = Half(16, STEP, 160e9, "ddim, guidance 2.5", 25)
FOUND = RunProfile(Path("runs/flowers"), (3, 32, 32), 2_500_000, "cpu", 2, TRAINING, SAMPLING, {})

TABLE = """\
                                 ms   share    GFLOP  GFLOP/s  MB moved    GB/s   calls
convolution                   50.00   50.0%     4.00    80.00    100.00    2.00      12
Python, views, dispatch       25.00   25.0%                                         400
elementwise, reduction        20.00   20.0%                      300.00   15.00      30
data loader                    5.00    5.0%                                           2
all                          100.00  100.0%     4.00    40.00    400.00    4.00     444
"""
COMMON = """\
spread   half of 20 steps took 90.0 to 120.0 ms
ceiling  160 GFLOP/s, by a 3x3 convolution of 128 channels, forward and backward
reached  25% of it by the step, 50% by its convolutions
"""


def test_the_tables_are_these() -> None:
    assert text(FOUND) == (
        "runs/flowers: 2.5 million parameters, pictures of 3x32x32\n"
        "on cpu, 2 threads\n\n"
        f"a training step of 32 pictures, float32: 100.0 ms\n{TABLE}"
        f"speed    320.0 pictures/s\n{COMMON}"
        "data     the loop waits 5.0% of a step for data\n"
        "held     weights 4.0 MiB, gradients 4.0 MiB, optimiser 8.0 MiB, averages 8.0 MiB\n"
        "memory   peak 300 MiB, 200 MiB of it before the first step\n\n"
        f"a sampling step of 16 pictures by ddim, guidance 2.5, float32: 100.0 ms\n{TABLE}"
        f"speed    6.4 pictures/s with 25 steps\n{COMMON}"
        "memory   peak 300 MiB, 200 MiB of it before the first step"
    )


def test_no_line_is_wider_than_100_columns_with_large_numbers() -> None:
    rows = tuple(Row(kind, 123.456, 123_456, 12 * 10**15, 123 * 10**12) for kind in KINDS)
    step = StepProfile(123.456 * len(KINDS), (99.9, 9999.9), 50, rows, Memory(10**12, 10**11), torch.bfloat16)
    sizes = Sizes(10**10, 10**10, 10**10, 10**10)
    half = Half(4096, step, 123456e9, "ddpm-learned, guidance 12.5", 1000, sizes)
    printed = text(replace(FOUND, training=half, sampling=half)).splitlines()
    assert max(map(len, printed)) <= 100
    # Every cell of a row stands apart from its neighbours.
    assert all(len(line.split()) >= 8 for line in printed if line.startswith((ATTENTION, CONVOLUTION)))


def test_a_half_that_is_missing_is_one_line() -> None:
    found = replace(FOUND, training=None, missing={"training": "the data of runs/flowers cannot be read (gone)"})
    assert "\n\nno training step: the data of runs/flowers cannot be read (gone)\n\na sampling step" in text(found)


def test_the_command_passes_its_options_on_and_prints(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def profile_run(name: str, *, batch: int | None, device: str, say: object) -> RunProfile:
        asked.append((name, batch, device))
        say("measuring")  # type: ignore[operator]
        return FOUND

    monkeypatch.setattr(recipes, "profile_run", profile_run)
    assert main(["profile", "runs/flowers", "--batch", "8", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (text(FOUND) + "\n", "measuring\n")
    assert main(["profile", "runs/flowers", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and json.loads(captured.out) == json.loads(json.dumps(FOUND.to_json()))
    assert asked == [("runs/flowers", 8, "cpu"), ("runs/flowers", None, "auto")]
    values = json.loads(captured.out)
    assert values["training"]["waiting_for_data"] == pytest.approx(0.05)
    assert values["training"]["of_ceiling"] == 0.25 and values["sampling"]["sizes_bytes"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "is not there"),
        (["."], "no run folder"),
        (["x", "--batch", "0"], "--batch must be at least 1"),
        (["x", "--device", "cpuu"], "is not there"),
        ([], "MODEL is missing"),
    ],
)
def test_what_is_refused_is_one_line(
    capsys: Captured, args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["profile", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
