"""What was measured of a model as the text and the pictures of its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nirvana.evaluate.curves import CALLS, Curve
from nirvana.evaluate.evaluation import Outcome
from nirvana.evaluate.report import number
from nirvana.evaluate.scores import Score
from nirvana.files import Json
from nirvana.train.plot import Line, plot

COLOURS = {"a": "#2a6fdb", "b": "#c2571a", "c": "#2c8a55", "d": "#8a4fc2"}
"""The styles of the lines of a plot."""

_STYLE = (
    "svg{background:#fff;font:11px system-ui,sans-serif}text{fill:#666}.rule{stroke:#e4e1d9}"
    "polyline{fill:none;stroke-width:2;stroke-linejoin:round}"
) + "".join(
    f"polyline.{name},line.{name}{{stroke:{colour}}}circle.{name},tspan.{name}{{fill:{colour}}}"
    for name, colour in COLOURS.items()
)


@dataclass(frozen=True)
class Section:
    """A part of a card: Markdown under a heading, the files beside it that the text shows, and the figures in it."""

    title: str
    text: str
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    figures: Mapping[str, Json] = field(default_factory=dict[str, Json])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)) + "\n"


def drawing(lines: Sequence[Line], x_name: str, *, doubling: bool = False) -> bytes:
    """A plot as an SVG file that needs no page around it, with its key."""
    _, _, inside = plot(lines, x_name, logarithmic=False, doubling=doubling).partition(">")
    key = "".join(
        f'<text x="{60 + 145 * place}" y="278"><tspan class="{line.style}">&#9632;</tspan> {line.name}</text>'
        for place, line in enumerate(lines)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 288" width="640"><style>{_STYLE}</style>'
    return f"{head}{inside.removesuffix('</svg>')}{key}</svg>\n".encode()


def scores(outcome: Outcome) -> Section:
    """Every figure of the evaluation with its interval, and those of real pictures against real ones."""
    about = outcome.evaluation.about
    rows = [
        [score.name, number(score.value), _interval(score), "" if score.floor is None else number(score.floor)]
        for score in outcome.evaluation.scores
    ]
    n = outcome.evaluation.scores[0].samples
    text = (
        f"{n:,} pictures as the model recommends to draw them, against {about['against']}"
        f" (`nirvana evaluate`; what the figures mean stands in `docs/evaluation.md`).\n\n"
        + table(["", "value", "95% interval", "real against real"], rows)
        + "".join(f"\n{note}.\n" for note in outcome.evaluation.notes)
    )
    return Section("Scores", text, figures={"scores": [score.to_json() for score in outcome.evaluation.scores]})


def _interval(score: Score) -> str:
    return "" if score.interval is None else f"{number(score.interval.low)} to {number(score.interval.high)}"


def curves(outcome: Outcome) -> Iterator[Section]:
    """Quality against network calls and against guidance, as tables with intervals and as plots."""
    for against in dict.fromkeys(curve.against for curve in outcome.curves):
        chosen = [curve for curve in outcome.curves if curve.against == against]
        name = f"{against.replace(' ', '-')}.svg"
        text = f"{chosen[0].of}, 500 pictures a point.\n\n![{against}]({name})\n\n{_points(chosen)}"
        figures: dict[str, Json] = {f"against {against}": [curve.to_json() for curve in chosen]}
        yield Section(f"Against {against}", text, {name: _plotted(chosen, against)}, figures)


def _plotted(curves: Sequence[Curve], against: str) -> bytes:
    lines = [
        Line(c.name, [(p.x, p.value) for p in c.points], style, dots=True, whiskers=[p.interval for p in c.points])
        for c, style in zip(curves, COLOURS, strict=False)
    ]
    return drawing(lines, against, doubling=against == CALLS)


def _points(curves: Sequence[Curve]) -> str:
    rows = [
        [curve.name, f"{point.x:g}", number(point.value), f"{number(point.interval[0])} to {number(point.interval[1])}"]
        for curve in curves
        for point in curve.points
    ]
    return table(["", curves[0].against, "value", "95% interval"], rows)
