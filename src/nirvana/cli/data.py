"""`nirvana data check`."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from nirvana.cli.console import Console
from nirvana.errors import Failed
from nirvana.files import Json

if TYPE_CHECKING:
    from nirvana.data.doctor import Diagnosis, Gravity

_WIDTH = 120
_COLOURS = {"serious": "red", "worth a look": "yellow", "taken care of": "green"}


def data_check(
    console: Console,
    source: Annotated[Positional[str], arg(metavar="SOURCE")],
    *,
    test: Annotated[str | None, arg(metavar="SOURCE", help_behavior_hint="")] = None,
    captions: bool = False,
    keep: Annotated[str | None, arg(metavar="KIND,...", help_behavior_hint="")] = None,
    out: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
    fix: Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")] = None,
) -> None:
    """Find what is wrong with pictures: damage, duplicates, rotation, captions, classes, leaks into a test set.

    It writes a page with thumbnails, and a manifest of what to use, which `nirvana train --manifest` obeys and you may
    edit. SOURCE is never changed. Exit code 1 where something is serious, 0 where not.

    examples:
      nirvana data check flowers/
      nirvana data check flowers/ --test unseen_flowers/ --keep near-duplicate
      nirvana data check flowers/ --fix clean_flowers/

    Args:
        source: what `nirvana train` takes: a folder, archive or array of pictures, or a built-in (docs/data.md)
        test: pictures that training must not have seen (of a built-in, its test part)
        captions: every picture should have one
        keep: findings that leave no picture out, such as duplicate, near-duplicate, tiny, leak
        out: folder for the page and the manifest (checks/ and the name of SOURCE)
        fix: write a cleaned copy to this new folder
    """
    from nirvana.cli.train import source_name
    from nirvana.data.decisions import MANIFEST
    from nirvana.data.doctor import check_fix, diagnose, forbid_inside, page, write_fixed
    from nirvana.files import explained, write_text

    folder = Path(out).expanduser() if out is not None else Path("checks") / source_name(source)
    forbid_inside(folder, source, "--out")
    clean = None if fix is None else Path(fix).expanduser()
    if clean is not None:
        check_fix(clean, source)
    kept = [] if keep is None else keep.split(",")
    with console.progress("checking", 0, "pictures") as bar:
        found = diagnose(
            source,
            test=test,
            captions=captions,
            keep=kept,
            say=lambda what, done, total: bar.update(done, what, total),
        )
        train = f"nirvana train {shlex.quote(source)} --manifest {shlex.quote(str(folder))}"
        bar.update(0, "writing the page")
        with explained(folder, "make room, or choose another --out"):
            folder.mkdir(parents=True, exist_ok=True)
            found.decisions.write(folder / MANIFEST)
            write_text(folder / "index.html", page(found, train))
        if clean is not None:
            write_fixed(found, clean, lambda done, total: bar.update(done, "writing the copy", total))
    console.result(_text(found, folder, clean, train), _json(found, folder, clean))
    if found.serious:
        what = ", ".join(f"{item.about.title} ({item.count})" for item in found.serious)
        raise Failed(f"{source}: serious: {what}; see {folder / 'index.html'}")


def _text(found: Diagnosis, folder: Path, clean: Path | None, train: str) -> str:
    """What people read: the findings as a table, and what to do next."""
    pictures = len(found.subject.pictures)
    lines = [f"{found.subject.source}: {pictures} pictures, {found.used} of them used"]
    if found.test is not None:
        lines.append(f"held against {found.test.source}: {len(found.test.pictures)} pictures")
    lines += [_table(found)] if found.findings else ["nothing was found: every picture is used as it is"]
    lines += [f"note: {note}" for note in found.subject.notes]
    if not found.serious:
        lines.append("nothing serious")
    lines.append(f"page: {folder / 'index.html'}")
    if clean is not None:
        lines.append(f"cleaned copy: {clean}")
        train = f"nirvana train {shlex.quote(str(clean))}"
    return "\n".join([*lines, f"next: {train}"])


def _table(found: Diagnosis) -> str:
    """The findings, as wide as the terminal."""
    from rich.console import Console as Rich
    from rich.table import Table

    colour = sys.stdout.isatty()
    table = Table(box=None, pad_edge=False, header_style="bold" if colour else "")
    for head in ("", "found", "pictures", "what training does", "first"):
        table.add_column(head, justify="right" if head == "pictures" else "left", overflow="fold")
    for item in found.findings:
        first = next((m.name for group in item.groups for m in group if not m.reference), item.text)
        count = str(item.count) if item.groups else f"{item.count} : 1"
        table.add_row(_sign(item.about.gravity), item.about.title, count, item.about.handling, _plain(first))
    out = io.StringIO()
    width = shutil.get_terminal_size((_WIDTH, 0)).columns
    Rich(file=out, width=width, force_terminal=colour, no_color=not colour).print(table)
    return out.getvalue().rstrip()


def _sign(gravity: Gravity) -> str:
    return f"[{_COLOURS[gravity]}]{gravity}[/]"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _json(found: Diagnosis, folder: Path, clean: Path | None) -> dict[str, Json]:
    return {
        "source": found.subject.source,
        "pictures": len(found.subject.pictures),
        "used": found.used,
        "test": None if found.test is None else found.test.source,
        "serious": [item.kind for item in found.serious],
        "findings": [
            {"kind": item.kind, "gravity": str(item.about.gravity), "count": item.count, "text": item.text}
            for item in found.findings
        ],
        "notes": list(found.subject.notes),
        "page": str(folder / "index.html"),
        "manifest": str(folder / "manifest.json"),
        "fixed": None if clean is None else str(clean),
    }
