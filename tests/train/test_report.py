"""The page of a run: whole, self-contained, safe against what file names hold."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nirvana.train.plan import TrainPlan
from nirvana.train.plot import Line, plot, short, smoothed, thinned
from nirvana.train.report import Report, Status, duration
from nirvana.train.run import RunFolder
from train.tiny import MANIFEST, go


class Balanced(HTMLParser):
    """Collects text and attributes; fails on a tag that is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.text, self.sources = list[str](), "", list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "input", "line", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(run: Path) -> tuple[str, Balanced]:
    page = (run / "index.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return page, parser


def test_page(tmp_path: Path) -> None:
    events = go(tmp_path / "run")
    for event in events:
        if getattr(event, "step", 0) == 7:
            break
    events.close()  # pyright: ignore[reportAttributeAccessIssue]
    page, parser = page_of(tmp_path / "run")
    assert 'http-equiv="refresh"' in page and "48 of 60" in parser.text
    list(go(tmp_path / "run"))
    page, parser = page_of(tmp_path / "run")
    assert 'http-equiv="refresh"' not in page and "60 of 60" in parser.text
    grids = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in parser.sources]
    assert grids == [path.read_bytes() for path in sorted((tmp_path / "run" / "samples").iterdir())]
    for text in ("broken <1>.png", "truncated", "checkpoint_every", "Loss by level", "Images per second", "train x"):
        assert text in parser.text
    assert not re.search(r"https?://", page) and "prefers-color-scheme" in page
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) == 5
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_plot_places_points() -> None:
    svg = plot([Line("x", [(0.0, 1.0), (100.0, 1000.0)], "a")], "images")
    (first, last) = re.search(r'points="([^ ]+) ([^ ]+)"', svg).groups()  # type: ignore[union-attr]
    assert [float(value) for value in first.split(",")] < [float(value) for value in last.split(",")]
    assert float(first.split(",")[1]) > float(last.split(",")[1]), "up is larger"
    assert ">100<" in svg and ">10<" in svg, "three decades: a logarithmic axis"
    assert plot([Line("x", [], "a")], "images") == ""
    for points in ([(5.0, 0.0)], [(5.0, 2.0), (6.0, 2.0)], [(0.0, -3.0), (1.0, 8000.0)]):
        ElementTree.fromstring(plot([Line("<&>", points, "a")], "<x>"))


def test_curves_keep_means() -> None:
    points = [(float(x), 3.0) for x in range(1001)]
    assert all(y == pytest.approx(3.0) for _, y in smoothed(points)), "no bias at the start"
    assert len(thinned(points, 100)) <= 100 and all(y == 3.0 for _, y in thinned(points, 100))
    assert smoothed([(0.0, 7.0)]) == [(0.0, 7.0)] and thinned([]) == []


def test_words() -> None:
    assert [duration(seconds) for seconds in (5.0, 75.0, 3600.0, 7384.0)] == [
        "5 s",
        "1 min 15 s",
        "1 h 00 min",
        "2 h 03 min",
    ]
    assert [short(value) for value in (0.5, 1200.0, 3e6, -2e9)] == ["0.5", "1.2k", "3M", "-2G"]
    assert MANIFEST["rejected"]


def test_a_run_without_anything(tmp_path: Path) -> None:
    run = RunFolder.open_or_create(tmp_path / "run", {}, TrainPlan(images=10), {"rejected": None}, {}, "")
    Report(run).write(Status(0, 0.0, 0.0))
    assert "–" in page_of(run.path)[1].text
