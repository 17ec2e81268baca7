"""The report counts what is in the output, and its page shows whatever a file or a model says as text."""

from __future__ import annotations

import io
import json
import os
from base64 import b64decode
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flashsd_ray.batch.outputs import Writer
from flashsd_ray.batch.report import write_report
from flashsd_ray.batch.report.drawing import MOST_BARS, TOPS, histogram, merged, nice_above
from flashsd_ray.batch.report.figures import EXAMPLES, Figures
from flashsd_ray.batch.rows import Outcome
from tests.media_files import make_video

EVIL = "</p><script>alert('x')</script><img src=http://evil/&amp;\"'\x00\x1b"
RUN = {"rows_per_hour": 1234.5, "waiting_share": 0.05, "stopped": ""}


def caption(row_id: str, **fields: Any) -> Outcome:
    values: dict[str, Any] = {
        "start_s": 0.0,
        "end_s": 2.0,
        "num_tokens": 11,
        "tau": 2.5,
        "read_s": 0.5,
        "encode_s": 0.25,
    }
    return Outcome(row_id=row_id, **values | {"decode_s": 1.0, "caption": f"about {row_id}", "model": "demo"} | fields)


ROWS = [
    caption("a"),
    caption("a", segment=1, start_s=2.0, end_s=5.0, num_tokens=21, tau=5.0),
    caption("a", prompt_index=1, read_s=0.5),
    caption("b", is_copy=True),
    caption("c", num_tokens=1, tau=0.0, start_s=None, end_s=None),
    Outcome(row_id="d", error="MediaError", error_message="d: is empty", read_s=0.1),
    Outcome(row_id="e", error="MediaError", error_message="e: is empty"),
    Outcome(row_id="f", error="RowError", error_message="f: no path"),
]


class Page(HTMLParser):
    """Everything of a page that could do something, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "data", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def written(tmp_path: Path, rows: list[Outcome], **run: Any) -> tuple[dict[str, Any], Page]:
    writer = Writer(str(tmp_path / "output"), ("jsonl",))
    for number in range(0, len(rows), 4):
        writer.write(f"{number:08d}-0123abcd", rows[number : number + 4])
        os.utime(tmp_path / f"output/jsonl/{number:08d}-0123abcd.jsonl", (1e9 + number, 1e9 + number))
    place = write_report(writer, source=f"videos {EVIL}", run={**RUN, **run}, settings={"prompts": [EVIL]})
    assert place.address == str(tmp_path / "output/report.html")
    report = json.loads((tmp_path / "output/report.json").read_text())
    return report, Page((tmp_path / "output/report.html").read_text())


def test_figures(tmp_path: Path) -> None:
    report, page = written(tmp_path, ROWS)
    corpus = report["corpus"]
    assert (corpus["rows"], corpus["outcomes"], corpus["captions"], corpus["copies"]) == (6, 8, 5, 1)
    assert corpus["tokens"] == 11 + 21 + 11 + 1
    assert corpus["tau"] == pytest.approx((10 + 20 + 10) / (4 + 4 + 4))
    assert corpus["video_s"] == 2.0 + 3.0 + 2.0
    assert corpus["stage_s"] == pytest.approx({"read": 0.5 * 4 + 0.1, "encode": 1.0, "decode": 4.0})
    assert corpus["errors"]["MediaError"] == {
        "count": 2,
        "examples": [{"row_id": "d", "message": "d: is empty"}, {"row_id": "e", "message": "e: is empty"}],
    }
    assert corpus["taus"] == {"2.5": 2, "5": 1}
    assert corpus["lengths"] == {"1": 1, "11": 3, "21": 1}
    assert report["videos_per_hour"] == 1234.5
    assert report["versions"]["ray"]
    for shown in ("1,234", "5.0 %", "d: is empty", "about a"):
        assert shown in page.text
    assert page.tags["svg"] == 4


def test_an_empty_output_has_a_report(tmp_path: Path) -> None:
    report, page = written(tmp_path, [], stopped="more than 3 errors")
    assert report["corpus"]["rows"] == 0
    assert "more than 3 errors" in page.text
    assert "nothing to show" in page.text


def test_whatever_is_said_is_only_text(tmp_path: Path) -> None:
    fields = {"caption": EVIL, "prompt": EVIL, "model": EVIL, "source": EVIL}
    rows = [caption(EVIL, **fields), Outcome(row_id=EVIL, error=EVIL, error_message=EVIL)]
    _, page = written(tmp_path, rows, stopped=EVIL)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert (page.addresses, page.handlers) == ([], [])
    assert page.text.count("alert('x')") >= 8


def test_examples_show_frames_of_their_segment(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(make_video(num_frames=30, fps=10))
    source = str(tmp_path / "v.mp4")
    rows = [caption("v", source=source, start_s=1.0, end_s=2.0), caption("gone", source=str(tmp_path / "gone.mp4"))]
    _, page = written(tmp_path, rows)
    assert page.tags["img"] == 3
    assert "gone.mp4: does not exist" in page.text
    for address in page.addresses:
        kind, _, data = address.partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(b64decode(data))) as picture:
            assert picture.size == (80, 48)


def test_examples_are_few_and_the_same_every_time() -> None:
    chosen = []
    for _ in range(2):
        figures = Figures()
        for number in range(1000):
            figures.add(caption(str(number)))
        chosen.append([outcome.row_id for outcome in figures.examples])
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == EXAMPLES
    assert chosen[0] != [str(number) for number in range(EXAMPLES)]


def test_kinds_of_errors_cannot_fill_the_memory() -> None:
    figures = Figures()
    for number in range(1000):
        figures.add(Outcome(row_id="x", error=f"Kind{number % 300}", error_message="m"))
    assert sum(figures.errors.values()) == 1000
    assert sum(map(len, figures.error_examples.values())) <= 150


@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 100), min_size=1, max_size=30))
def test_merged_bars_lose_nothing(counts: dict[int, int]) -> None:
    bars, width = merged([(float(at), float(count)) for at, count in sorted(counts.items())], 1.0)
    assert sum(height for _, height in bars) == sum(counts.values())
    assert len(bars) <= MOST_BARS + 1
    assert bars[0][0] == min(counts)
    assert all(later - earlier == pytest.approx(width) for (earlier, _), (later, _) in pairwise(bars))


@given(st.floats(1e-6, 1e9))
def test_the_top_of_a_scale_is_near(value: float) -> None:
    assert value * (1 - 1e-6) <= nice_above(value, TOPS) <= 1.6 * value


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.floats(0.01, 100), st.floats(-1e3, 1e6))
def test_a_histogram_is_an_svg_within_its_frame(heights: list[int], step: float, first: float) -> None:
    bars = [(first + place * step, float(height)) for place, height in enumerate(heights)]
    root = ElementTree.fromstring(histogram(bars, step, x_label="a < b", y_label="&"))
    drawn = [item for item in root if item.attrib.get("class") == "bar"]
    assert len(drawn) == len(heights)
    for bar in drawn:
        assert float(bar.attrib["x"]) >= 0
        assert float(bar.attrib["y"]) >= 0
        assert float(bar.attrib["height"]) >= 0
