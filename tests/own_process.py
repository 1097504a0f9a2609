"""Tests that kill their own processes: each is a module run on its own, which prints what it found as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def report_of(module: str, *args: str) -> Any:
    """What `python -m module args` prints, from the folder of the tests, on one thread."""
    result = subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)
