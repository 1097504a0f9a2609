"""What the user asked for: ranges, and what a run folder remembers of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from nirvana.errors import Refused
from nirvana.recipes.order import Order


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": 0}, "--size must be 1 to 4096"),
        ({"size": 5000}, "--size must be 1 to 4096"),
        ({"images": 0}, "--images must be 1 to"),
        ({"minutes": 0.0}, "--minutes must be more than 0"),
        ({"minutes": -1.0}, "--minutes must be more than 0"),
        ({"minutes": float("nan")}, "--minutes must be more than 0"),
        ({"minutes": float("inf")}, "at most 44640 \\(31 days\\), got inf"),
        ({"minutes": 366 * 24 * 60.0}, "at most 44640 \\(31 days\\), got 527040"),
        ({"images": 1, "minutes": 1.0}, "both --images and --minutes"),
        ({"width": 0}, "--width must be 1 to"),
        ({"batch": 0}, "--batch must be 1 to"),
        ({"accumulate": 0}, "--accumulate must be 1 to"),
        ({"batch": 4, "accumulate": 5}, "--accumulate must be 1 to the batch"),
        ({"seed": -1}, "--seed must be in"),
        ({"seed": 2**63}, "--seed must be in"),
    ],
)
def test_an_order_out_of_range_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        Order("digits", **change)


def test_the_edges_of_the_ranges_are_taken() -> None:
    Order("digits", size=4096, minutes=44640.0, width=1024, batch=4, accumulate=4, seed=2**63 - 1)
    Order("digits", size=1, images=1, width=1, batch=1)


def test_a_run_remembers_what_changes_its_result_and_not_where_it_was_computed() -> None:
    plain = Order("digits").to_json()
    assert Order("digits", device="cuda").to_json() == plain
    for change in ({"width": 8}, {"batch": 8}, {"accumulate": 2}, {"precision": "float32"}, {"compile": True}):
        assert Order("digits", **change).to_json() == {**plain, **change}  # type: ignore[arg-type]


def test_a_bad_number_is_refused_before_torch_is_imported() -> None:
    code = "import sys, nirvana.recipes.order; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "False\n"
