"""`python -m zoo NAME [--runs DIR]`: builds a model of the zoo with its card; `make zoo MODEL=NAME` is this."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from nirvana.errors import Refused, unknown
from zoo.build import build, say
from zoo.models import SHIPPED

HOME = Path(__file__).parents[2] / "src" / "nirvana" / "zoo"


def main() -> int:
    """0, or 2 where something can be mended, which is said in a line, or 130 where it was stopped: it saves first."""
    parser = argparse.ArgumentParser(prog="zoo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help=", ".join(SHIPPED))
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"), help="where trainings and samples are kept")
    parser.add_argument("--home", type=Path, default=HOME, help="where the finished folder goes")
    asked = parser.parse_args()
    # In the background shells let Ctrl-C be ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if asked.name not in SHIPPED:
            raise unknown("model of the zoo", asked.name, SHIPPED)
        say(f"wrote {build(asked.name, SHIPPED[asked.name], asked.runs.expanduser(), asked.home)}")
    except Refused as refused:
        say(f"zoo: {refused}")
        return 2
    except KeyboardInterrupt:
        say(f"{asked.name}: stopped; the same command goes on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
