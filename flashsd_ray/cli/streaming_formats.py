"""How the answers of a live session are written down as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from flashsd_ray.cli.formats import clock, is_utf8
from flashsd_ray.cli.terminal import visible
from flashsd_ray.client import AnswerDelta, AnswerEvent, AnswerFinished, AnswerStarted
from flashsd_ray.media.subtitles import WEBVTT_HEADER, cue

Out = Callable[[], TextIO]  # where answers go; a file is created when it is first asked for


class Writer(Protocol):
    """One output format."""

    @property
    def is_in_line(self) -> bool:
        """Whether a line has begun that is not complete."""
        ...

    def take(self, event: AnswerEvent) -> None:
        """What the event adds is written and flushed."""
        ...

    def interrupt(self) -> None:
        """Answers that have begun will not be completed."""
        ...

    def close(self) -> None:
        """Everything that was held back is written."""
        ...


class _Spans:
    """The video time of every answer that has begun."""

    def __init__(self) -> None:
        self._started: dict[str, AnswerStarted] = {}

    def take(self, event: AnswerEvent) -> None:
        if isinstance(event, AnswerStarted):
            self._started[event.ask_id] = event

    def finished(self, ask_id: str) -> AnswerStarted:
        unknown = AnswerStarted(ask_id=ask_id, request_id="", start_s=0.0, end_s=0.0, num_frames=0)
        return self._started.pop(ask_id, unknown)

    def of(self, ask_id: str) -> str:
        """The time for people, before the text."""
        started = self._started.get(ask_id)
        return "" if started is None else f"[{clock(started.start_s)}-{clock(started.end_s)}] "

    def clear(self) -> None:
        self._started.clear()


class LiveTextWriter:
    """The text as it is decoded, one line for an answer; of several at once, the others follow when it is complete."""

    def __init__(self, out: Out, *, has_times: bool, is_terminal: bool) -> None:
        self._out = out
        self._has_times = has_times
        self._is_terminal = is_terminal
        self._spans = _Spans()
        self._live: str | None = None  # the answer whose line is being written
        self._hidden: set[str] = set()  # answers that have text which is not written yet
        self._waiting: list[str] = []  # lines that are complete meanwhile

    @property
    def is_in_line(self) -> bool:
        """Whether a line has begun that is not complete."""
        return self._live is not None

    def take(self, event: AnswerEvent) -> None:
        """What the event adds is written and flushed."""
        self._spans.take(event)
        if isinstance(event, AnswerDelta) and event.text:
            self._add(event)
        elif isinstance(event, AnswerFinished):
            self._finish(event)

    def interrupt(self) -> None:
        """A line that has begun is ended."""
        self._spans.clear()
        self._hidden.clear()
        if self._live is not None:
            self._live = None
            self._write("\n")
        self._flush_waiting()

    def close(self) -> None:
        """A line that has begun is ended."""
        self.interrupt()

    def _add(self, event: AnswerDelta) -> None:
        if event.ask_id in self._hidden or self._live not in (None, event.ask_id):
            self._hidden.add(event.ask_id)
            return
        if self._live is None:
            self._write(self._heading(event.ask_id))
        self._live = event.ask_id
        self._write(event.text)

    def _finish(self, event: AnswerFinished) -> None:
        self._hidden.discard(event.ask_id)
        if self._live == event.ask_id:
            self._live = None
            self._write("\n")
        elif not event.is_unchanged:
            self._waiting.append(f"{self._heading(event.ask_id)}{event.text}\n")
        self._spans.finished(event.ask_id)
        if self._live is None:
            self._flush_waiting()

    def _flush_waiting(self) -> None:
        for line in self._waiting:
            self._write(line)
        self._waiting.clear()

    def _heading(self, ask_id: str) -> str:
        return self._spans.of(ask_id) if self._has_times else ""

    def _write(self, text: str) -> None:
        stream = self._out()
        stream.write(visible(text) if self._is_terminal else text)
        stream.flush()


class _WholeAnswers:
    """Shared by the formats that write an answer when it is complete."""

    def __init__(self) -> None:
        self._spans = _Spans()

    @property
    def is_in_line(self) -> bool:
        """Never: lines are written whole."""
        return False

    def take(self, event: AnswerEvent) -> None:
        """An answer that is complete is written and flushed."""
        self._spans.take(event)
        if isinstance(event, AnswerFinished):
            self._answer(self._spans.finished(event.ask_id), event)

    def interrupt(self) -> None:
        """Answers that have begun will not be completed."""
        self._spans.clear()

    def close(self) -> None:
        """Everything that was held back is written."""

    def _answer(self, started: AnswerStarted, answer: AnswerFinished) -> None:
        raise NotImplementedError


class LiveJsonWriter(_WholeAnswers):
    """One JSON object a line."""

    def __init__(
        self,
        out: Out,
        origin: Mapping[str, Any],  # what is the same for all answers
    ) -> None:
        super().__init__()
        self._out = out
        self._origin = origin

    def _answer(self, started: AnswerStarted, answer: AnswerFinished) -> None:
        described = {
            "start_s": started.start_s,
            "end_s": started.end_s,
            "num_frames": started.num_frames,
            "text": answer.text,
            "finish_reason": answer.finish_reason.value,
            "is_unchanged": answer.is_unchanged,
            "seconds_to_first_text": answer.seconds_to_first_text,
            **answer.statistics.as_dict(),
            "request_id": started.request_id,
            **self._origin,
        }
        stream = self._out()
        stream.write(json.dumps(described, ensure_ascii=not is_utf8(stream)) + "\n")
        stream.flush()


class LiveCueWriter(_WholeAnswers):
    """WebVTT: one cue for each answer; one that says the same as the answer before makes that one's cue longer."""

    def __init__(
        self,
        out: Out,
        *,
        may_grow: bool,  # whether a cue is held back until the next answer is known
    ) -> None:
        super().__init__()
        self._out = out
        self._may_grow = may_grow
        self._num_cues = 0
        self._held: tuple[float, float, str] | None = None

    def close(self) -> None:
        """Everything that was held back is written."""
        self._write_held()

    def _answer(self, started: AnswerStarted, answer: AnswerFinished) -> None:
        if self._held is not None and answer.is_unchanged:
            start_s, end_s, text = self._held
            self._held = (start_s, max(end_s, started.end_s), text)
            return
        self._write_held()
        self._held = (started.start_s, started.end_s, answer.text)
        if not self._may_grow:
            self._write_held()

    def _write_held(self) -> None:
        if self._held is None:
            return
        start_s, end_s, text = self._held
        self._held = None
        stream = self._out()
        if not self._num_cues:
            stream.write(WEBVTT_HEADER)
        self._num_cues += 1
        stream.write(cue(self._num_cues, (start_s, end_s), text, is_webvtt=True))
        stream.flush()
