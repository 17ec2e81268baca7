"""Answers that come in pieces, one after the other or mixed, are written so that people and programs can read them."""

from __future__ import annotations

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.cli.streaming_formats import LiveCueWriter, LiveJsonWriter, LiveTextWriter, Writer
from flashsd_ray.client import AnswerDelta, AnswerFinished, AnswerStarted, Statistics
from flashsd_ray.types import FinishReason


def started(ask_id: str, start_s: float = 0.0) -> AnswerStarted:
    return AnswerStarted(ask_id=ask_id, request_id=f"r-{ask_id}", start_s=start_s, end_s=start_s + 1, num_frames=2)


def delta(ask_id: str, text: str) -> AnswerDelta:
    return AnswerDelta(ask_id=ask_id, text=text)


def finished(ask_id: str, text: str, *, is_unchanged: bool = False) -> AnswerFinished:
    return AnswerFinished(
        ask_id=ask_id,
        text=text,
        finish_reason=FinishReason.STOP,
        statistics=Statistics(num_new_tokens=3, seconds={"encode": 0.1}),
        seconds_to_first_text=0.5,
        is_unchanged=is_unchanged,
    )


class Paper(io.StringIO):
    """Remembers what has been written and flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


def text_writer(paper: Paper, *, has_times: bool = True, is_terminal: bool = False) -> LiveTextWriter:
    return LiveTextWriter(lambda: paper, has_times=has_times, is_terminal=is_terminal)


class TestText:
    """A line for an answer, as it is decoded."""

    def test_pieces_are_seen_at_once(self) -> None:
        paper = Paper()
        writer = text_writer(paper)
        writer.take(started("a", 61.0))
        assert (paper.flushed, writer.is_in_line) == ("", False)
        writer.take(delta("a", "a "))
        assert (paper.flushed, writer.is_in_line) == ("[1:01.0-1:02.0] a ", True)
        writer.take(delta("a", "dog"))
        writer.take(finished("a", "a dog"))
        assert (paper.flushed, writer.is_in_line) == ("[1:01.0-1:02.0] a dog\n", False)

    def test_answers_at_the_same_time_do_not_mix(self) -> None:
        paper = Paper()
        writer = text_writer(paper)
        for event in (
            *(started("a"), started("b", 1.0), started("c", 2.0)),
            *(delta("a", "one "), delta("b", "two"), finished("b", "two"), delta("c", "three")),
            *(delta("a", "dog"), finished("a", "one dog"), finished("c", "three")),
        ):
            writer.take(event)
        assert paper.flushed.splitlines() == ["[0:00.0-0:01.0] one dog", "[0:01.0-0:02.0] two", "[0:02.0-0:03.0] three"]

    def test_what_has_not_changed_is_not_written(self) -> None:
        paper = Paper()
        writer = text_writer(paper)
        for event in (started("a"), finished("a", "a dog", is_unchanged=True)):
            writer.take(event)
        assert paper.getvalue() == ""

    def test_an_answer_without_text_is_an_empty_line(self) -> None:
        paper = Paper()
        writer = text_writer(paper, has_times=False)
        writer.take(started("a"))
        writer.take(finished("a", ""))
        assert paper.flushed == "\n"

    def test_an_interrupted_line_is_ended(self) -> None:
        paper = Paper()
        writer = text_writer(paper, has_times=False)
        writer.take(delta("a", "half"))
        writer.take(finished("b", "whole"))
        writer.interrupt()
        assert paper.flushed == "half\nwhole\n"
        writer.take(delta("a", "again"))
        writer.close()
        writer.close()
        assert paper.flushed == "half\nwhole\nagain\n"

    def test_a_terminal_is_not_steered(self) -> None:
        paper = Paper()
        text_writer(paper, has_times=False, is_terminal=True).take(delta("a", "\x1b[2Jx"))
        assert "\x1b" not in paper.flushed
        text_writer(paper, has_times=False).take(delta("a", "\x1b[2Jx"))
        assert "\x1b" in paper.flushed, "a file gets what was said"

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", "end"])), max_size=40))
    def test_every_answer_is_one_line_whatever_the_order(self, steps: list[tuple[str, str]]) -> None:
        paper, texts, lines = Paper(), dict.fromkeys("abc", ""), []
        writer = text_writer(paper, has_times=False)
        for ask_id, step in [*steps, *((ask_id, "end") for ask_id in "abc")]:
            if step == "end":
                lines.append(texts[ask_id])
                writer.take(finished(ask_id, texts[ask_id]))
                texts[ask_id] = ""
            else:
                texts[ask_id] += step
                writer.take(delta(ask_id, step))
        assert sorted(paper.flushed.splitlines()) == sorted(lines)


def test_json_is_one_object_a_line() -> None:
    paper = Paper()
    writer = LiveJsonWriter(lambda: paper, {"model": "demo"})
    for event in (started("a", 2.0), delta("a", "a\nd"), delta("a", "og"), finished("a", "a\ndog")):
        assert not writer.is_in_line
        writer.take(event)
    (line,) = paper.flushed.splitlines()
    described = json.loads(line)
    assert (described["text"], described["start_s"], described["end_s"]) == ("a\ndog", 2.0, 3.0)
    assert (described["num_frames"], described["request_id"], described["model"]) == (2, "r-a", "demo")
    assert (described["num_new_tokens"], described["seconds"]) == (3, {"encode": 0.1})


class TestCues:
    """WebVTT while it grows."""

    def test_a_cue_is_written_at_once(self) -> None:
        paper = Paper()
        writer = LiveCueWriter(lambda: paper, may_grow=False)
        for event in (started("a"), delta("a", "dog"), finished("a", "dog")):
            writer.take(event)
        assert paper.flushed == "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.000\ndog\n\n"

    def test_one_that_may_grow_waits_for_the_next(self) -> None:
        paper = Paper()
        writer = LiveCueWriter(lambda: paper, may_grow=True)
        for event in (started("a"), finished("a", "dog"), started("b", 1.0), finished("b", "dog", is_unchanged=True)):
            writer.take(event)
        assert paper.getvalue() == ""
        writer.take(started("c", 2.0))
        writer.take(finished("c", "cat"))
        assert paper.flushed == "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.000\ndog\n\n"
        writer.close()
        writer.close()
        assert paper.flushed.endswith("2\n00:00:02.000 --> 00:00:03.000\ncat\n\n")

    def test_nothing_is_written_of_what_was_interrupted(self) -> None:
        paper = Paper()
        writer: Writer = LiveCueWriter(lambda: paper, may_grow=True)
        writer.take(started("a"))
        writer.take(delta("a", "do"))
        writer.interrupt()
        writer.close()
        assert paper.getvalue() == ""
