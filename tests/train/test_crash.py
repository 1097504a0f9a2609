"""Nothing is lost: whenever a training is killed, starved of disk or interrupted, the same command ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from own_process import report_of


@pytest.mark.parametrize(("scenario", "least"), [("kill", 90), ("full", 50), ("interrupt", 5)])
def test_every_end_is_the_same(scenario: str, least: int, tmp_path: Path) -> None:
    found = report_of("train.crash_worker", scenario, str(tmp_path))["found"]
    assert len(found) >= least
    assert {name: problems for name, problems in found.items() if problems} == {}
