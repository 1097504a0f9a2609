"""Write the tables of docs/inpainting.md, which `nirvana verify` proves: python scripts/inpainting_page.py."""

from __future__ import annotations

from pathlib import Path

from nirvana.files import write_text
from nirvana.verify.inpainting import CALIBRATED, GAUSSIANS, MIXTURE, calibration, mixture_moments, moments
from nirvana.verify.plan import FULL, INPAINTED

PAGE = Path(__file__).parents[1] / "docs" / "inpainting.md"
OPEN, CLOSE = "<!-- measured -->\n", "<!-- /measured -->"


SOLVERS = ("ddim", "euler-ancestral")


def table(name: str) -> str:
    """The errors of all methods on `name`, with a solver without noise and one with it."""
    if name == MIXTURE:
        found = [list(mixture_moments(INPAINTED, FULL.inner, (solver,), FULL.drawn)) for solver in SOLVERS]
    else:
        found = [list(moments(name, INPAINTED, FULL.inner, (solver,))) for solver in SOLVERS]
    lines = [f"**{name}**\n", "| method | calls | with `ddim` | with `euler-ancestral` |", "|---|---|---|---|"]
    for plain, noisy in zip(*found, strict=True):
        if plain.proof == "inpainting":
            method = plain.subject.partition(" with ")[0]
            seen = [f.detail.partition(", what")[0] for f in (plain, noisy)]
            lines.append(f"| `{method}` | {plain.calls} | {seen[0]} | {seen[1]} |")
    return "\n".join(lines) + "\n"


def calibrated() -> str:
    """What simulation-based calibration says of all methods."""
    found = list(calibration(SOLVERS, INPAINTED, FULL.cases, CALIBRATED))
    lines = ["**calibration on the mixture**\n", "| method | calls | seen |", "|---|---|---|"]
    lines += [f"| `{f.subject.replace(' with ', '` with `')}` | {f.calls} | {f.detail} |" for f in found]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The page, with its tables anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(OPEN)
    _, _, after = rest.partition(CLOSE)
    write_text(
        PAGE,
        before + OPEN + "\n" + "\n".join([*map(table, (*GAUSSIANS, MIXTURE)), calibrated()]) + "\n" + CLOSE + after,
    )


if __name__ == "__main__":
    main()
