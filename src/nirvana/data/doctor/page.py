"""The report of a check: one HTML file with thumbnails that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from io import BytesIO

from PIL import Image

from nirvana.data.doctor.diagnosis import Diagnosis
from nirvana.data.doctor.findings import Finding, Gravity, Mention
from nirvana.data.doctor.subject import Subject
from nirvana.page import data_uri, document

SHOWN = 24
"""Thumbnails of a finding."""
LISTED = 500
"""Names of a finding."""

_THUMBNAIL = 112
_SIGNS = {Gravity.SERIOUS: "bad", Gravity.DOUBTFUL: "doubt", Gravity.HARMLESS: "fine"}

Thumbnails = dict[tuple[bool, int], str]
"""By whether a picture is of the test set, and its number."""


def page(diagnosis: Diagnosis, command: str) -> str:
    """The page as text; `command` is what trains on what is left."""
    thumbnails = _thumbnails(diagnosis)
    title = f"{diagnosis.subject.source}, checked"
    body = (
        f"<main><h1>{escape(title)}</h1>{_summary(diagnosis)}"
        f"{_table(diagnosis)}{''.join(_section(item, thumbnails) for item in diagnosis.findings)}"
        f"{_notes(diagnosis)}<section><h2>Training on what is left</h2><code>{escape(command)}</code></section></main>"
    )
    return document(title, body, _STYLE)


def _summary(diagnosis: Diagnosis) -> str:
    pictures = len(diagnosis.subject.pictures)
    values = {
        "pictures": f"{pictures:,}",
        "used": f"{diagnosis.used:,}",
        "left out": f"{pictures - diagnosis.used:,}",
        "serious findings": str(len(diagnosis.serious)),
    }
    if diagnosis.test is not None:
        values["held against"] = f"{diagnosis.test.source}, {len(diagnosis.test.pictures):,} pictures"
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f"<dl>{cells}</dl>"


def _table(diagnosis: Diagnosis) -> str:
    if not diagnosis.findings:
        return "<section><h2>Nothing was found</h2><p>Every picture is used as it is.</p></section>"
    rows = "".join(
        f'<tr><td><span class="sign {_SIGNS[item.about.gravity]}">{item.about.gravity}</span></td>'
        f'<td><a href="#{item.kind}">{item.about.title}</a></td><td class=number>{_count(item)}</td>'
        f"<td>{escape(item.about.handling)}{_note(item)}</td></tr>"
        for item in diagnosis.findings
    )
    head = "".join(f"<th>{name}</th>" for name in ("", "what", "how many", "what training does"))
    return f"<section><h2>Findings</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _count(item: Finding) -> str:
    return f"{item.count:,}" if item.groups else f"{item.count:,} : 1"


def _note(item: Finding) -> str:
    return f"<div class=note>{escape(item.text)}</div>" if item.text else ""


def _section(item: Finding, thumbnails: Thumbnails) -> str:
    if not item.groups:
        return ""
    tiles = "".join(_group(group, thumbnails) for group in _shown(item))
    names = [mention for group in item.groups for mention in group]
    listed = "".join(f"<li>{escape(m.name)}{f' ({escape(m.detail)})' if m.detail else ''}</li>" for m in names[:LISTED])
    more = f"<p class=note>the first {LISTED:,} of {len(names):,}</p>" if len(names) > LISTED else ""
    return (
        f'<section id="{item.kind}"><h2><span class="sign {_SIGNS[item.about.gravity]}">{item.about.gravity}</span> '
        f"{item.about.title} ({item.count:,})</h2><p class=note>{escape(item.about.handling)}</p>"
        f"<div class=tiles>{tiles}</div><details><summary class=note>names</summary><ul>{listed}</ul>{more}</details>"
        "</section>"
    )


def _shown(item: Finding) -> Iterator[tuple[Mention, ...]]:
    """As many groups as there is room for, and of large ones the beginning."""
    room = SHOWN
    for group in item.groups:
        if room <= 0:
            return
        yield group[:room]
        room -= len(group)


def _group(group: tuple[Mention, ...], thumbnails: Thumbnails) -> str:
    tiles = "".join(_tile(mention, thumbnails.get((mention.in_test, mention.number))) for mention in group)
    return f"<div class=together>{tiles}</div>" if len(group) > 1 else tiles


def _tile(mention: Mention, uri: str | None) -> str:
    name, detail = escape(mention.name), escape(mention.detail)
    picture = f'<img alt="{name}" src="{uri}">' if uri else "<div class=none>unreadable</div>"
    return f'<figure title="{name}">{picture}<figcaption>{name}<br><i>{detail}</i></figcaption></figure>'


def _notes(diagnosis: Diagnosis) -> str:
    known = {picture.name for picture in diagnosis.subject.pictures}
    others = [f"{name}: {why}" for name, why in diagnosis.subject.passed_over.items() if name not in known]
    items = "".join(f"<li>{escape(note)}</li>" for note in (*diagnosis.subject.notes, *others[:LISTED]))
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>" if items else ""


def _thumbnails(diagnosis: Diagnosis) -> Thumbnails:
    """Small versions of all pictures that the page shows, each read once."""
    wanted = {(m.in_test, m.number) for item in diagnosis.findings for group in _shown(item) for m in group}
    homes: dict[bool, Subject | None] = {False: diagnosis.subject, True: diagnosis.test}
    found: Thumbnails = {}
    for in_test, home in homes.items():
        numbers = sorted(number for where, number in wanted if where == in_test)
        if home is not None and numbers:
            found |= {(in_test, number): _thumbnail(shown) for number, shown in home.show(numbers, _THUMBNAIL)}
    return found


def _thumbnail(shown: Image.Image) -> str:
    """A picture as JPEG, small ones as they are."""
    shown.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    out = BytesIO()
    shown.save(out, "JPEG", quality=85)
    return data_uri(out.getvalue(), "image/jpeg")


_STYLE = """
:root{--good:#2c8a55}@media(prefers-color-scheme:dark){:root{--good:#6fcf97}}
.sign{font-size:12px;border-radius:9px;padding:1px 9px;border:1px solid;white-space:nowrap}
.sign.bad{color:#c22f2f}.sign.doubt{color:var(--b)}.sign.fine{color:var(--good)}
.number{font-variant-numeric:tabular-nums;white-space:nowrap}a{color:var(--a)}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:10px 0}
.together{display:flex;flex-wrap:wrap;gap:10px;border:1px solid var(--rule);border-radius:8px;padding:8px}
figure{margin:0;width:112px}figure img{width:auto;height:auto;max-width:112px;max-height:112px;min-width:48px}
figcaption{font-size:11px;color:var(--soft);overflow-wrap:anywhere;margin-top:4px}
.none{width:112px;height:64px;border:1px dashed var(--soft);border-radius:6px;color:var(--soft);font-size:11px;
display:grid;place-items:center}ul{margin:6px 0 0;padding-left:20px;font-size:13px;overflow-wrap:anywhere}
"""
