"""Nothing is lost: whenever a training is killed, starved of disk or interrupted, the same command ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("scenario", "least"), [("kill", 90), ("full", 50), ("interrupt", 5)])
def test_every_end_is_the_same(scenario: str, least: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "train.crash_worker", scenario, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout)["found"]
    assert len(found) >= least
    assert {name: problems for name, problems in found.items() if problems} == {}
