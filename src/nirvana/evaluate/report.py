"""The report of an evaluation: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from nirvana.evaluate.curves import CALLS, Curve
from nirvana.evaluate.evaluation import Outcome
from nirvana.evaluate.prompts import attribute_rows
from nirvana.evaluate.scores import PAGE, Evaluation, Score
from nirvana.files import Json, write_text
from nirvana.generate.latent_spec import DIRECT
from nirvana.modality import to_png_bytes
from nirvana.page import data_uri, document
from nirvana.train.plot import Line, plot
from nirvana.train.report import chart

_MEANINGS = {
    "FD": "distance of the distributions, quality and variety in one figure",
    "KID": "the same without bias at few samples: the one to compare runs by",
    "precision": "share of samples that look like real pictures",
    "recall": "share of real pictures that the samples reach",
    "density": "how deep samples lie among real pictures",
    "coverage": "share of real pictures with a sample close by: modes that are made",
    "as asked": "share of samples that show the class that was asked for",
    "p of no copies": "below 0.01: training pictures are repeated",
    "bits per dimension": "how improbable the model holds real pictures to be: -log2 P(picture)/numbers of a picture",
    "RMSE to the partner": "how far samples are from what their inputs belong to; what those leave open adds to it",
    "RMSE to another's": "the same for other inputs: what a model would have that sees none",
    "alignment": "how well pictures fit their texts",
}
_COLOURS = ("a", "b", "c", "d")


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write the page into `folder` in one step, and return its path. OSError where it cannot be written."""
    path = folder / PAGE
    write_text(path, page(outcome))
    return path


def page(outcome: Outcome) -> str:
    """The page as text."""
    evaluation = outcome.evaluation
    copies = cast("Mapping[str, Any]", evaluation.details.get("copies", {}))
    sections = [
        _about(evaluation),
        _scores(evaluation.scores),
        _notes(evaluation.notes),
        *(_picture(title, picture) for title, picture in outcome.pictures.items()),
        '<div class="charts">',
        *_charts(outcome.curves),
        _closeness(copies),
        "</div>",
        _shares(cast("Mapping[str, Any]", evaluation.details.get("shares", {}))),
        _attributes(attribute_rows(evaluation.details)),
        _by_class(cast("Sequence[Mapping[str, Json]]", evaluation.details.get("classes", []))),
    ]
    title = f"{Path(str(evaluation.about['run'])).name}, evaluated"
    return document(title, f"<main><h1>{escape(title)}</h1>{''.join(sections)}</main>", _OWN)


def _about(evaluation: Evaluation) -> str:
    about = evaluation.about
    request = cast("Mapping[str, Any]", about["request"])
    guided = f", guidance {request['guidance']:g}" if request["labels"] or request.get("prompts") else ""
    values = {
        "samples": f"{request['n']:,}",
        "drawn in": "one call"
        if request["solver"] == DIRECT
        else f"{request['steps']} steps of {request['solver']}{guided}",
        "real pictures": f"{about['measured']:,} of {about['pictures']:,}, {about['against']}",
        "features": str(about["space"]),
        "weights after": f"{about['trained_images']:,} images",
        "at": str(about["at"]),
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f"<dl>{cells}</dl>"


def number(value: float) -> str:
    """Four significant digits, or fewer for large ones."""
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _scores(scores: Sequence[Score]) -> str:
    rows = "".join(
        f"<tr><td>{escape(s.name)}{_arrow(s)}<div class=note>{escape(_meaning(s.name))}</div></td>"
        f"<td class=figure>{number(s.value)}</td>"
        f"<td>{'' if s.interval is None else f'{number(s.interval.low)} to {number(s.interval.high)}'}</td>"
        f"<td>{'' if s.floor is None else number(s.floor)}</td>"
        f"<td>{s.samples:,}{f' / {s.references:,}' if s.references else ''}</td>"
        f"<td class=warning>{escape(s.warning)}</td></tr>"
        for s in scores
    )
    head = ("score", "value", "95% interval", "real against real", "samples / real", "")
    return (
        f"<section><h2>Scores</h2><table><thead><tr>{''.join(f'<th>{h}</th>' for h in head)}</tr></thead>"
        f"<tbody>{rows}</tbody></table><p class=note>Real against real: the same figure for half of the real pictures"
        " against the others: no model does reliably better. Precision and its like take the other set as given.</p>"
        "</section>"
    )


def _arrow(score: Score) -> str:
    return {"lower": " ↓", "higher": " ↑"}.get(score.better, "")


def _meaning(name: str) -> str:
    return next((text for start, text in _MEANINGS.items() if name.startswith(start)), "")


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<section><h2>Notes</h2><ul>{items}</ul></section>" if items else ""


def _picture(title: str, picture: Image.Image) -> str:
    uri = data_uri(to_png_bytes(np.asarray(picture)))
    return f'<section><h2>{escape(title)}</h2><img alt="{escape(title)}" src="{uri}"></section>'


def _charts(curves: Sequence[Curve]) -> list[str]:
    result: list[str] = []
    for against in dict.fromkeys(curve.against for curve in curves):
        chosen = [curve for curve in curves if curve.against == against]
        lines = [
            Line(c.name, [(p.x, p.value) for p in c.points], style, dots=True, whiskers=[p.interval for p in c.points])
            for c, style in zip(chosen, _COLOURS, strict=False)
        ]
        keys = " ".join(f'<span class="key {line.style}">{escape(line.name)}</span>' for line in lines)
        svg = plot(lines, against, logarithmic=False, doubling=against == CALLS)
        result.append(chart(f"{chosen[0].of} against {against}", f"{svg}<p class=note>{keys}</p>"))
    return result


def _closeness(copies: Mapping[str, Any]) -> str:
    if "samples" not in copies:
        return ""
    lines = [
        Line(name, [((i + 0.5) / 20, share) for i, share in enumerate(copies[name])], style, dots=True)
        for name, style in (("unseen", "faint"), ("samples", "a"))
    ]
    svg = plot(lines, "distance to the nearest training picture / to the 10th", logarithmic=False)
    return chart(
        "Closeness to training pictures", svg, "coloured: samples; grey: real pictures not trained on; 0: copies"
    )


def _shares(shares: Mapping[str, Any]) -> str:
    if not shares:
        return ""
    rows = cast("Sequence[Mapping[str, Any]]", shares["classes"])
    most = max(max(row["interval"][1], row["real"]) for row in rows) or 1
    body = "".join(
        f"<tr><td>{escape(row['class'])}</td><td class=figure>{row['share']:.1%}</td>"
        f"<td>{row['interval'][0]:.1%} to {row['interval'][1]:.1%}</td><td>{row['real']:.1%}</td>"
        f"<td class=wide><div class=share style='width:{100 * row['share'] / most:.1f}%'></div>"
        f"<div class='share real' style='width:{100 * row['real'] / most:.1f}%'></div></td></tr>"
        for row in rows
    )
    accuracy = "" if shares["accuracy"] is None else f", right on {shares['accuracy']:.1%} of real pictures kept apart"
    return (
        "<section><h2>Classes of the samples</h2><table><thead><tr><th>class</th><th>samples</th><th>95% interval</th>"
        f"<th>real</th><th></th></tr></thead><tbody>{body}</tbody></table>"
        f"<p class=note>named by: {escape(str(shares['by']))}{accuracy}; grey: real pictures</p></section>"
    )


def _attributes(rows: Sequence[Mapping[str, Json]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><td>{escape(str(row['attribute']))}</td><td class=figure>{row['right']:.1%}</td>"
        f"<td>{row['of']:,}</td></tr>"
        for row in rows
    )
    return (
        "<section><h2>What was asked, attribute by attribute</h2><table><thead><tr><th>attribute</th><th>right</th>"
        f"<th>of</th></tr></thead><tbody>{body}</tbody></table></section>"
    )


def _by_class(classes: Sequence[Mapping[str, Json]]) -> str:
    if not classes:
        return ""
    scores = [(str(row["class"]), Score.from_json(row)) for row in classes]
    body = "".join(
        f"<tr><td>{escape(name)}</td><td class=figure>{number(s.value)}</td>"
        f"<td>{'' if s.interval is None else f'{number(s.interval.low)} to {number(s.interval.high)}'}</td>"
        f"<td>{s.samples:,} / {s.references:,}</td></tr>"
        for name, s in sorted(scores, key=lambda pair: -pair[1].value)
    )
    return (
        f"<section><h2>{escape(scores[0][1].name)}, class by class, worst first</h2><table><thead>"
        "<tr><th>class</th><th>value</th><th>95% interval</th><th>samples / real</th></tr></thead>"
        f"<tbody>{body}</tbody></table></section>"
    )


_OWN = """
:root{--c:#2c8a55;--d:#8a4fc2}@media(prefers-color-scheme:dark){:root{--c:#6fcf97;--d:#c39bf0}}
td{white-space:normal}td:nth-child(3){white-space:nowrap}.figure{font-size:16px;font-variant-numeric:tabular-nums;white-space:nowrap}.warning{color:var(--b)}ul{margin:0}
.share{height:7px;background:var(--a);border-radius:3px;margin:3px 0}.share.real{background:var(--soft);opacity:.5}
.wide{width:40%}img{width:auto}polyline.c,line.c{stroke:var(--c)}polyline.d,line.d{stroke:var(--d)}circle.c{fill:var(--c)}
circle.d{fill:var(--d)}.key::before{content:'';display:inline-block;width:18px;height:3px;margin:0 6px 3px 10px}
.key.a::before{background:var(--a)}.key.b::before{background:var(--b)}.key.c::before{background:var(--c)}
.key.d::before{background:var(--d)}
"""
