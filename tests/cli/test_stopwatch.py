"""Where the time of a command went, by a clock that the tests turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from nirvana.cli import stopwatch
from nirvana.cli.main import main
from nirvana.cli.stopwatch import Stopwatch
from tiny_run import make_run


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Takes(nn.Module):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now += self.seconds
        return x


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", found)
    return found


def test_every_second_is_counted_once(clock: Clock) -> None:
    watch, encoder = Stopwatch(98.0), Takes(clock, 3.0)
    watch.lap("imports")
    with watch.apart(encoder, "texts"):
        clock.now += 1
        encoder(torch.zeros(1))
        encoder(torch.zeros(1))
        clock.now += 4
    watch.lap("sampling")
    encoder(torch.zeros(1))
    watch.lap("sampling")
    assert watch.seconds == {"imports": 2.0, "texts": 6.0, "sampling": 8.0}
    assert str(watch) == "imports 2.00 s, texts 6.00 s, sampling 8.00 s; together 16.00 s"


def test_generate_says_it_where_it_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(make_run(tmp_path / "run")), str(tmp_path / "pictures")
    assert main(["generate", run, "--out", out, "--verbose"]) == 0
    assert "imports" in capsys.readouterr().err
    assert main(["generate", run, "--out", out, "--verbose", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["spent"]) == {"imports", "model", "texts", "sampling", "writing"}
    assert main(["generate", run, "--out", out, "--json"]) == 0
    assert "spent" not in json.loads(capsys.readouterr().out)
