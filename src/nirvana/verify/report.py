"""The findings for people (a table, Markdown) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from nirvana.errors import Refused
from nirvana.files import Json, explained, write_json, write_text
from nirvana.verify.finding import Finding

MARKDOWN, JSON = "verification.md", "verification.json"
FORMAT_VERSION = 1
OPEN, CLOSE = "<!-- mutation -->", "<!-- /mutation -->"
"""What stands between them in the Markdown is kept when it is written anew."""

_OF_SOLVERS = ("order", "moments", "weak order", "started order", "round trip", "full range", "endpoints", "refusals")

_OF_INPAINTING = ("inpainting", "inpainting converges", "inpainting calibration")

HEADER = ("solver", "schedule", "order", "measured", "started", "measured", "full range", "calls", "verdict")


@dataclass(frozen=True)
class Row:
    """One solver on one schedule."""

    cells: tuple[str, ...]
    passed: bool


def rows(findings: Iterable[Finding]) -> list[Row]:
    """A row for each solver and schedule: the smallest slope of all spacings, the calls of 9 steps, the verdict."""
    of_solvers = [f for f in findings if f.proof in _OF_SOLVERS]
    by = sorted(of_solvers, key=_key)
    return [_row(*key, list(group)) for key, group in groupby(by, key=_key)]


def _key(finding: Finding) -> tuple[str, str]:
    return finding.subject, finding.schedule


def _row(subject: str, schedule: str, group: Sequence[Finding]) -> Row:
    main = [f for f in group if f.proof in ("order", "moments", "weak order")]
    started = [f for f in group if f.proof in ("started order", "moments")]
    full = [f for f in group if f.proof == "full range"]
    calls = [f.calls for f in group if f.proof == "endpoints" and f.calls is not None]
    passed = all(f.passed for f in group)
    cells = (
        subject,
        schedule,
        *_declared_measured(main),
        *_declared_measured(started),
        _declared_measured(full)[1],
        str(calls[0]) if calls else "",
        "pass" if passed else "FAIL",
    )
    return Row(cells, passed)


def _declared_measured(group: Sequence[Finding]) -> tuple[str, str]:
    if not group:
        return "", ""
    declared, worst = group[0].declared, [f.measured for f in group]
    none = any(value is None for value in worst)
    return f"{declared:.0f}", "none" if none else f"{min(v for v in worst if v is not None):.2f}"


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that did not pass."""
    return [finding for finding in findings if not finding.passed]


def summary(findings: Sequence[Finding]) -> str:
    """One line."""
    failed = len(failures(findings))
    return f"{len(findings)} proofs, {'all passed' if not failed else f'{failed} FAILED'}"


def to_json(findings: Sequence[Finding], *, quick: bool) -> dict[str, Json]:
    """Everything that was found."""
    return {
        "format_version": FORMAT_VERSION,
        "quick": quick,
        "passed": not failures(findings),
        "findings": [finding.to_json() for finding in findings],
    }


def write(folder: Path, findings: Sequence[Finding], *, quick: bool) -> None:
    """Write both files into `folder`, each whole or not at all. Raises Refused where that cannot be."""
    with explained(folder, "choose another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / MARKDOWN, markdown(findings, quick=quick, mutation=kept(folder)))
        write_json(folder / JSON, to_json(findings, quick=quick))


def kept(folder: Path) -> str:
    """What an earlier report in `folder` has between the markers. Refused where one of them is missing."""
    path = folder / MARKDOWN
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if OPEN not in text and CLOSE not in text:
        return "\nNot measured yet: `make mutation`.\n"
    start, end = text.find(OPEN), text.find(CLOSE)
    if start < 0 or end < start:
        raise Refused(f"{path}: one of {OPEN} and {CLOSE} is missing; put it back, or delete the file")
    return text[start + len(OPEN) : end]


_INTRO = """\
# Verification

Written by `{command}`: {summary}.

Every solver is measured in float64 against answers that are exact: a Gaussian, whose trajectories have a closed form; a
mixture of 5 Gaussians in 8 dimensions, whose trajectories an extrapolation method of order 16 follows to 2e-13; and
nearly singular data, where nothing may blow up. `nirvana verify package.module:MySolver` does the same for your own.

## Solvers

- **order**: as declared, with exact history: the first steps start from the exact trajectory. **measured**: the slope
  of the error against the number of steps, doubled until two successive slopes agree to 0.1; the smallest over all
  spacings of the levels, among them steps of 1, 2, 1, 2, ... A solver passes from 0.15 below what it declares. A
  stochastic one is probed with unit vectors on a Gaussian: the smaller of the exact orders of mean and covariance.
- **started**: the order of a walk that starts itself, declared and measured. Encoding and then decoding has it too.
- **full range**: from the schedule's noise to sigma = 0, over the last three doublings. The last step goes an infinite
  way in lam, so that orders above 2 end there; at least 1 is asked, or what a schedule's end above 0 leaves.
- **calls**: network calls of 9 steps, counted. 1, 2, 3, 5, 7, 9, 27, 999 and 1000 steps are walked, from pure noise
  where the schedule has it, to clean data: the steps asked for and no other, no NaN, any shape, alone as in a batch.
"""


def markdown(findings: Sequence[Finding], *, quick: bool, mutation: str) -> str:
    """The report: solvers, samples, everything else, and what failed."""
    command = "nirvana verify --quick" if quick else "nirvana verify"
    parts = [
        _INTRO.format(command=command, summary=summary(findings)),
        _table(HEADER, [r.cells for r in rows(findings)]),
    ]
    if failed := failures(findings):
        parts += ["## Failed\n", _details(failed)]
    if samples := [f for f in findings if f.proof in ("distribution", "power")]:
        parts += [_SAMPLES, _details(samples)]
    if edits := [f for f in findings if f.proof in _OF_INPAINTING]:
        parts += [_INPAINTING, inpainting_table(edits)]
    if others := [f for f in findings if f.proof not in (*_OF_SOLVERS, *_OF_INPAINTING, "distribution", "power")]:
        parts += ["## Conversions, schedules, grids, guidance and the oracles\n", _details(others)]
    parts += ["## Mutation score\n", f"{OPEN}{mutation}{CLOSE}\n"]
    return "\n".join(parts)


_SAMPLES = """\
## Samples

Samples from noise to data beside exact draws of the mixture: a kernel statistic (mean embeddings at its centres) and a
logistic regression. Over the seeds their p-values are uniform. A denoiser that is told 1.02 times the ratio sigma/alpha
is rejected; the power is the part of single seeds at which it is. The steps are as many as bring the covariance of a
Gaussian within 0.8%.
"""


_INPAINTING = """\
## Inpainting

Methods beside the law of what is free given what is known, which is exact on Gaussians (correlation 0.9: mean 0.9 y,
variance 0.19): relative errors of mean and covariance, worked out with unit vectors, without chance, in 32 steps. On a
mixture, where what is known leaves two of its components, they are those of draws: of the mean in standard deviations.
Calibration ranks the truth among draws of the mixture, by value and by density: uniform where they are of its law.
"""


def inpainting_table(findings: Iterable[Finding]) -> str:
    """A row for each method and solver, those of one problem and solver by their network calls."""
    ordered = sorted(findings, key=lambda f: (f.proof, f.setting, f.subject.partition(" with ")[2], f.calls or 0))
    return _table(
        ("method", "on", "calls", "seen", "verdict"),
        [(f.subject, f.setting, "" if f.calls is None else str(f.calls), f.detail, f.verdict) for f in ordered],
    )


def _details(findings: Sequence[Finding]) -> str:
    ordered = sorted(findings, key=lambda f: (f.proof, f.subject, f.setting))
    return _table(
        ("proof", "of", "on", "seen", "verdict"),
        [(f.proof, f.subject, f.setting, f.detail, f.verdict) for f in ordered],
    )


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    made = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in made) + "\n"
