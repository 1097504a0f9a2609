"""`nirvana verify`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from nirvana.cli.console import Console, duration
from nirvana.errors import Failed, Refused

if TYPE_CHECKING:
    from nirvana.verify.finding import Finding


def verify(
    console: Console,
    own: Annotated[Positional[tuple[str, ...]], arg(metavar="[MODULE:SOLVER ...]", help_behavior_hint="")] = (),
    *,
    solver: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="")] = (),
    schedule: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME", help_behavior_hint="")] = (),
    quick: bool = False,
    workers: Annotated[int, arg(metavar="N")] = 0,
    out: Annotated[str, arg(metavar="DIR")] = "verification",
) -> None:
    """Prove solvers against exact answers: orders, counts, distributions; DIR/verification.md and .json say all.

    Your own solver is named package.module:MySolver, a class or a function that makes one; the current folder is
    importable. Exit code 0: all passed; 1: a proof failed; 2: there is nothing to prove as asked.

    examples:
      nirvana verify --quick
      nirvana verify --solver dpmpp-2m --solver ddim --schedule cosine
      nirvana verify my_package.solvers:MySolver

    Args:
        own: solvers of yours; then only these and those of --solver are proven
        solver: one of ours; repeat it for several (all, and schedules, grids, parameterizations, guidance)
        schedule: on which to prove them; repeat it for several (all; with --quick three)
        quick: one spacing of the levels, three schedules, fewer seeds: two minutes
        workers: processes at once; 0 is one for each processor
        out: folder for the report
    """
    if workers < 0:
        raise Refused(f"--workers {workers} is less than 0; give a number of processes, or 0 for one each processor")
    from nirvana.diffusion.named import SOLVERS
    from nirvana.verify import plan, report
    from nirvana.verify.settings import SCHEDULES

    if wrong := [name for name in own if ":" not in name]:
        raise Refused(f"'{wrong[0]}' names no solver of yours: write package.module:MySolver, or --solver {wrong[0]}")
    report.kept(Path(out))  # refused now, and not when all is proven
    chosen = (*own, *solver)
    schedules = schedule or (plan.QUICK_SCHEDULES if quick else tuple(SCHEDULES))
    todo = plan.jobs(chosen or tuple(SOLVERS), schedules, quick=quick, ours=not chosen)
    started = time.perf_counter()
    findings: list[Finding] = []
    with console.progress("proving", len(todo), "proofs") as bar:
        for done, found in enumerate(plan.run_all(todo, workers or _processors()), start=1):
            findings += found
            failed = len(report.failures(findings))
            bar.update(done, f"{failed} failed" if failed else "")
    findings.sort(key=lambda f: (f.proof, f.subject, f.setting))
    report.write(Path(out), findings, quick=quick)
    if not console.json:
        _table(findings)
    seconds = time.perf_counter() - started
    line = f"{report.summary(findings)} in {duration(seconds)}; written to {Path(out) / report.MARKDOWN}"
    console.result(line, {**report.to_json(findings, quick=quick), "seconds": round(seconds, 1)})
    if failed := report.failures(findings):
        first = failed[0]
        where = f"{first.proof} of {first.subject} on {first.setting}"
        raise Failed(f"{len(failed)} proofs failed; the first: {where}: {first.detail}")


def _table(findings: Sequence[Finding]) -> None:
    """The table of solvers, and below it every proof that failed."""
    from rich import box
    from rich.console import Console as Rich
    from rich.table import Table

    from nirvana.verify import report

    wide = None if sys.stdout.isatty() else 160
    screen = Rich(width=wide, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(report.HEADER):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for row in report.rows(findings):
        table.add_row(*row.cells, style="" if row.passed else "bold red")
    if table.rows:
        screen.print(table)
    for finding in report.failures(findings):
        screen.print(f"FAIL {finding.proof} of {finding.subject} on {finding.setting}: {finding.detail}", style="red")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
