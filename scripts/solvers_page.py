"""Make docs/solvers.md of the registry of solvers.

Run: python scripts/solvers_page.py (part of `make format`); with --check it only says whether the page is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nirvana.cli.solvers import cells, rows

PAGE = Path(__file__).parent.parent / "docs" / "solvers.md"

HEAD = """\
# Solvers

<!-- made by scripts/solvers_page.py of the registry in src/nirvana/diffusion/named.py -->

A solver takes x from one noise level to the next. `nirvana solvers` prints the tables below; `--solver NAME` chooses,
and in Python `SOLVERS["ddim"](eta=0.5)` makes one.

## How to choose

- Start with `dpmpp-2m` at 20 steps. It costs one network call a step, as `ddim` does, and its error falls with the
  square of the number of steps.
- Fewer than 15 steps: `unipc-2`; with strong guidance (w above 4) `unipc-1` or `dpmpp-2m`, since high orders amplify
  what guidance exaggerates.
- A network whose errors show in the pictures gains from noise, which lets later steps mend earlier ones: `sa-solver`
  or `dpmpp-2m-sde` at 25 steps or more, `heun-churn` where the time does not matter.
- Encoding, interpolation, likelihoods, and the same picture at any number of steps need a solver without noise.
- Edits at every step drop what a multistep solver remembers, and it is then of first order: `dpmpp-2s`. For inpainting
  take `ddim` or `euler-ancestral`: there order gains nothing ([inpainting.md](inpainting.md)).
- An answer of known accuracy: `adaptive` with its tolerance.
- `ddpm` and its kin, `heun`, `dpm-2`, `euler-ancestral` are there to repeat what papers and other programs did.

An order of p means: with twice the steps the error is 2^p times smaller, once steps are short. It is declared for a
history that is exact; in brackets stands the order from a first step on, where history is short. With noise it is the
order of mean and covariance. Every order is measured in the tests, on steps of unequal length.
A step from pure noise (alpha = 0), and one to the clean end where the coordinate is infinite there, is DDIM's: it is
exact where the predicted x0 is constant.
"""

FAMILIES = {
    "exponential": """\
## Exponential integrators

The polynomial through the last predictions of x0 (DEIS: of eps) in lam = log(alpha/sigma), integrated exactly against
the exponential of the linear part, at any spacing of the levels. With eta > 0 the same of the reverse diffusion.
""",
    "runge-kutta": """\
## Runge-Kutta

Several network calls within a step and nothing remembered. `adaptive` takes steps of its own between two levels.
""",
    "adams": """\
## Adams

The polynomial through the last predictions of eps in sigma/alpha: Adams and Bashforth's method, at any spacing.
""",
    "stochastic": """\
## Noise of another kind
""",
}


def page() -> str:
    """The text of docs/solvers.md."""
    parts = [HEAD]
    for family, words in FAMILIES.items():
        lines = [
            "| solver | order | calls a step | noise | parameters | when to choose it |",
            "|---|---|---|---|---|---|",
        ]
        for row in (row for row in rows() if row["family"] == family):
            name, order, calls, noise, when = cells(row)
            parameters = row["parameters"] if isinstance(row["parameters"], dict) else {}
            given = ", ".join(f"{key} = {value:g}" for key, value in parameters.items() if isinstance(value, float))
            lines.append(f"| `{name}` | {order} | {calls} | {'yes' if noise else ''} | {given} | {when} |")
        parts.append(words + "\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> None:
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/solvers.md is not that of the registry: run `make format`")


if __name__ == "__main__":
    main()
