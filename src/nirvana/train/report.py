"""RUN/index.html: a training at a glance, in one file that needs nothing else, rewritten as it goes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import cast

from nirvana.files import Json, write_text
from nirvana.page import data_uri, document
from nirvana.train.plot import Line, plot, smoothed
from nirvana.train.run import REPORT, RunFolder

_MOST_GRIDS = 16
_MOST_ROWS = 200
_REFRESH_SECONDS = 20


@dataclass(frozen=True)
class Status:
    """Where a training is: images done, images per second, seconds spent."""

    images: int
    speed: float
    seconds: float


class Report:
    """Writes the page of a run; the manifest of the data, which may be large, is read once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        data = run.data
        rejected = data.get("rejected")
        self._rejected = cast("list[Mapping[str, Json]]", rejected) if isinstance(rejected, list) else []
        self._source = data.get("source")

    def write(self, status: Status) -> None:
        """Rewrite the page in one step."""
        write_text(self._run.path / REPORT, self._page(status))

    def _page(self, status: Status) -> str:
        run, metrics = self._run, self._run.metrics()
        done = status.images >= run.plan.images
        refresh = "" if done else f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'
        name = escape(run.path.resolve().name)
        sections = [
            _figures(status, run.plan.images, self._source),
            _grids(sorted(run.samples_path.glob("[0-9]*.png"), key=lambda path: int(path.stem))),
            *_curves(metrics),
            _events(run.events()),
            _table("Rejected files", ("file", "reason"), ((r.get("path"), r.get("reason")) for r in self._rejected)),
            _table("Plan", ("field", "value"), run.plan.to_json().items()),
            _table("Config", ("field", "value"), run.config.items()),
            _table("Model", ("field", "value"), run.model_spec.items()),
            _table("Versions", ("of", "version"), cast("Mapping[str, Json]", run.info.get("versions", {})).items()),
        ]
        command = escape(str(run.info.get("command", "")))
        body = (
            f"<main><h1>{name}</h1><p class=command><code>{command}</code></p>"
            f"{''.join(sections)}</main><script>{_SCRIPT}</script>"
        )
        return document(run.path.resolve().name, body, head=refresh)


def _figures(status: Status, total: int, source: Json) -> str:
    left = (total - status.images) / status.speed if status.speed else 0.0
    share = 100 * status.images / total
    values = {
        "images": f"{status.images:,} of {total:,}",
        "images per second": f"{status.speed:,.1f}" if status.speed else "–",
        "spent": duration(status.seconds),
        "left": "done" if status.images >= total else duration(left) if status.speed else "–",
        "data": str(source) if source is not None else "–",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())
    return f'<div class=bar><div style="width:{share:.2f}%"></div></div><dl>{cells}</dl>'


def duration(seconds: float) -> str:
    """Seconds as a person says them: 75 -> 1 min 15 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _grids(paths: Sequence[Path]) -> str:
    if not paths:
        return ""
    count = min(len(paths), _MOST_GRIDS)
    chosen = [paths[-1 - (len(paths) - 1) * at // max(1, count - 1)] for at in reversed(range(count))]
    pictures = "".join(
        f'<img alt="samples after {int(path.stem):,} images" data-images="{int(path.stem):,}"'
        f'{"" if path is chosen[-1] else " hidden"} src="{data_uri(path.read_bytes())}">'
        for path in chosen
    )
    slider = (
        f'<label><input type="range" id="time" min="0" max="{count - 1}" value="{count - 1}">'
        f'<output id="at">{int(chosen[-1].stem):,} images</output></label>'
    )
    return f"<section><h2>Samples over time, from the same noise</h2><div id=grids>{pictures}</div>{slider}</section>"


def _values(metrics: Sequence[Mapping[str, Json]], key: str, phase: str) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for line in metrics:
        value = cast("Mapping[str, float | None]", line[key]).get(phase)
        if value is not None:
            found.append((float(cast("int", line["images"])), value))
    return found


def _curves(metrics: Sequence[Mapping[str, Json]]) -> list[str]:
    phases = dict.fromkeys(phase for line in metrics for phase in cast("Mapping[str, Json]", line["loss"]))
    charts: list[str] = []
    for phase in phases:
        title = "" if len(phases) == 1 else f" ({phase})"
        loss = _values(metrics, "loss", phase)
        lines = [Line("each line of the metrics", loss, "faint"), Line("smoothed", smoothed(loss), "a")]
        charts.append(chart(f"Loss{title}", plot(lines, "images")))
        charts.append(_levels(metrics, phase, title))
        charts.append(chart(f"Rate{title}", plot([Line("rate", _values(metrics, "rate", phase), "a")], "images")))
        norm = _values(metrics, "norm", phase)
        charts.append(chart(f"Norm of the gradients{title}", plot([Line("norm", smoothed(norm), "b")], "images")))
    speed = [(float(cast("int", line["images"])), cast("float", line["images_per_second"])) for line in metrics]
    charts.append(chart("Images per second", plot([Line("speed", speed, "b")], "images", logarithmic=False)))
    return ["<div class=charts>", *charts, "</div>"]


def _levels(metrics: Sequence[Mapping[str, Json]], phase: str, title: str) -> str:
    quarter = max(1, len(metrics) // 4)
    early, late = _by_level(metrics[:quarter], phase), _by_level(metrics[-quarter:], phase)
    lines = [Line("first quarter", early, "faint", dots=True), Line("last quarter", late, "a", dots=True)]
    note = "grey: the first quarter so far, coloured: the last; for diffusion the level is lam = log(alpha/sigma)"
    return chart(f"Loss by level{title}", plot(lines, "level (noise is left, data right)"), note)


def _by_level(metrics: Iterable[Mapping[str, Json]], phase: str) -> list[tuple[float, float]]:
    sums: dict[int, tuple[float, float]] = {}
    for line in metrics:
        levels = cast("Mapping[str, Mapping[str, tuple[float, float]]]", line["levels"])
        for key, (count, total) in levels.get(phase, {}).items():
            before = sums.get(int(key), (0.0, 0.0))
            sums[int(key)] = (before[0] + count, before[1] + total)
    return [(key + 0.5, sums[key][1] / sums[key][0]) for key in sorted(sums)]


def chart(title: str, svg: str, note: str = "") -> str:
    """A section with a plot; an empty string where there is no plot."""
    caption = f"<p class=note>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{svg}{caption}</section>" if svg else ""


def _events(events: Sequence[Mapping[str, Json]]) -> str:
    rows = ((e.get("at"), e.get("event"), {k: v for k, v in e.items() if k not in ("at", "event")}) for e in events)
    return _table("Events", ("at", "event", ""), rows)


def _table(title: str, head: Sequence[str], rows: Iterable[Iterable[Json]]) -> str:
    cells = [[_text(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[-_MOST_ROWS:])
    shown = f" ({len(cells)})" if head[0] in ("file", "at") else ""
    more = f"<p class=note>the last {_MOST_ROWS} of {len(cells)}</p>" if len(cells) > _MOST_ROWS else ""
    return (
        f"<section><details{' open' if head[0] == 'file' else ''}><summary><h2>{escape(title)}{shown}</h2></summary>"
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}</details></section>"
    )


def _text(value: Json) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


_SCRIPT = """
const slider=document.getElementById('time');
if(slider)slider.addEventListener('input',()=>{
 document.querySelectorAll('#grids img').forEach((image,at)=>{
  image.hidden=at!=slider.value;
  if(!image.hidden)document.getElementById('at').textContent=image.dataset.images+' images';
 });
});
"""
