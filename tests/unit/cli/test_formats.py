"""Cues, times and labels as players and people expect them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.cli.formats import clock, heading
from flashsd_ray.cli.tasks import Task
from flashsd_ray.media.subtitles import cue, stamp


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "00:00:00,000"), (59.9996, "00:01:00,000"), (3661.5, "01:01:01,500"), (360000.0, "100:00:00,000")],
)
def test_times_of_subtitles(seconds: float, expected: str) -> None:
    assert stamp(seconds, ",") == expected


@given(st.floats(0, 4e5))
def test_times_of_subtitles_are_never_malformed(seconds: float) -> None:
    assert re.fullmatch(r"\d{2,}:[0-5]\d:[0-5]\d\.\d{3}", stamp(seconds, "."))


@given(st.text())
def test_no_text_breaks_out_of_its_cue(text: str) -> None:
    for is_webvtt in (False, True):
        written = cue(1, (0.0, 1.0), text, is_webvtt=is_webvtt)
        number, times, line, *rest = written.split("\n")
        assert (number, rest) == ("1", ["", ""])
        assert times.count("-->") == 1
        assert "-->" not in line


def test_webvtt_escapes_what_would_be_markup() -> None:
    assert "a &lt;b&gt; &amp; c\n" in cue(1, (0.0, 1.0), "a <b> & c", is_webvtt=True)


def test_labels() -> None:
    assert heading(Task(paths=("a.mp4",))) == "a.mp4"
    assert heading(Task(paths=("a.mp4",), start_s=60.0, end_s=90.0, duration_s=75.0)) == "a.mp4 [1:00.0-1:15.0]"
    assert clock(59.96) == "1:00.0"
