"""How answers are written down: as text, as one JSON object a line, as SubRip or WebVTT cues."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from flashsd_ray.cli.destination import Destination
from flashsd_ray.cli.draft_runs import DraftRuns
from flashsd_ray.cli.tasks import Task
from flashsd_ray.cli.terminal import console, visible
from flashsd_ray.engine.answers import Caption, Chunk
from flashsd_ray.media.subtitles import WEBVTT_HEADER, cue

if TYPE_CHECKING:
    from flashsd_ray.engine.local import Engine

SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}
ACCEPTED_STYLE, OWN_STYLE = "green", "yellow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an answer was made with."""

    model: str
    drafter: str
    compressor: str
    dtype: str
    device: str


class Writer(Protocol):
    """One output format."""

    def chunk(self, task: Task, chunk: Chunk) -> None:
        """The next piece of the answer to the task is known."""
        ...

    def answer(self, task: Task, caption: Caption, extra: Mapping[str, Any]) -> None:
        """The answer to the task is complete; ``extra`` is what else is known about it."""
        ...

    def failure(self, task: Task) -> None:
        """The task ended without an answer, perhaps in the middle of one."""
        ...


class TextWriter:
    """The text as it is committed; with its label when there are several."""

    def __init__(self, destination: Destination, *, has_labels: bool) -> None:
        self._destination = destination
        self._has_labels = has_labels
        self._begun: Task | None = None

    def chunk(self, task: Task, chunk: Chunk) -> None:
        """The text is written and flushed."""
        if chunk.text:
            self._begin(task).write(visible(chunk.text) if self._is_terminal else chunk.text)
            self._destination.stream(task.paths[0]).flush()

    def answer(self, task: Task, caption: Caption, extra: Mapping[str, Any]) -> None:
        """The line is complete."""
        self._begin(task).write("\n")
        self._begun = None

    def failure(self, task: Task) -> None:
        """A line that was begun is ended."""
        if self._begun is not None:
            self._begin(task).write("\n")
            self._begun = None

    @property
    def _is_terminal(self) -> bool:
        return self._destination.is_standard_output and self._destination.stream("").isatty()

    def _begin(self, task: Task) -> TextIO:
        stream = self._destination.stream(task.paths[0])
        if self._begun is not task and self._has_labels:
            stream.write(f"{heading(task)}: ")
        self._begun = task
        return stream


class DraftWriter:
    """The text on a terminal, accepted drafts in one colour and the target's own tokens in another."""

    def __init__(self, engine: Callable[[], Engine], *, has_labels: bool) -> None:
        self._engine = engine
        self._has_labels = has_labels
        self._console = console()
        self._runs: DraftRuns | None = None
        self._has_legend = False

    def chunk(self, task: Task, chunk: Chunk) -> None:
        """The text is shown run by run."""
        from rich.text import Text

        if self._runs is None:
            self._runs = DraftRuns(self._engine().target.detokenize)
            if self._has_labels:
                self._console.print(Text(f"{heading(task)}: "), end="")
        for text, is_accepted in self._runs.split(chunk):
            self._console.print(
                Text(visible(text), style=ACCEPTED_STYLE if is_accepted else OWN_STYLE), end="", soft_wrap=True
            )
        self._console.file.flush()

    def answer(self, task: Task, caption: Caption, extra: Mapping[str, Any]) -> None:
        """The line is complete, and the first time its colours are explained."""
        from rich.text import Text

        self._runs = None
        self._console.print()
        if not self._has_legend:
            self._has_legend = True
            self._console.print(
                Text.assemble(
                    ("green", ACCEPTED_STYLE),
                    (": drafted and accepted   ", "dim"),
                    ("yellow", OWN_STYLE),
                    (": the model's own token, one for every look at the drafts", "dim"),
                )
            )

    def failure(self, task: Task) -> None:
        """A line that was begun is ended."""
        if self._runs is not None:
            self._runs = None
            self._console.print()


class JsonWriter:
    """One JSON object a line."""

    def __init__(self, destination: Destination, origin: Callable[[], Origin]) -> None:
        self._destination = destination
        self._origin = origin

    def chunk(self, task: Task, chunk: Chunk) -> None:
        """Nothing is written before the end."""

    def answer(self, task: Task, caption: Caption, extra: Mapping[str, Any]) -> None:
        """The object is written and flushed."""
        stream = self._destination.stream(task.paths[0])
        described = {**as_object(task, caption, self._origin()), **extra}
        stream.write(json.dumps(described, ensure_ascii=not is_utf8(stream)) + "\n")
        stream.flush()

    def failure(self, task: Task) -> None:
        """Inputs without an answer have no line."""


class CueWriter:
    """SubRip or WebVTT: one cue for each answer, over the time that it is about."""

    def __init__(self, destination: Destination, *, is_webvtt: bool) -> None:
        self._destination = destination
        self._is_webvtt = is_webvtt
        self._path = ""
        self._count = 0

    def chunk(self, task: Task, chunk: Chunk) -> None:
        """Nothing is written before the end."""

    def answer(self, task: Task, caption: Caption, extra: Mapping[str, Any]) -> None:
        """The cue is written and flushed."""
        stream = self._destination.stream(task.paths[0])
        if self._path != task.paths[0]:
            self._path, self._count = task.paths[0], 0
            if self._is_webvtt:
                stream.write(WEBVTT_HEADER)
        self._count += 1
        stream.write(cue(self._count, task.span_s, caption.text, is_webvtt=self._is_webvtt))
        stream.flush()

    def failure(self, task: Task) -> None:
        """The time stays without a cue."""


def heading(task: Task) -> str:
    """What stands before the caption of one of several tasks."""
    span = "" if task.start_s is None else f" [{clock(task.span_s[0])}-{clock(task.span_s[1])}]"
    return visible(task.label) + span


def as_object(task: Task, caption: Caption, origin: Origin) -> dict[str, Any]:
    """Everything that is known about an answer, under the names that every report of this project uses."""
    return {
        "path": task.paths[0],
        "paths": list(task.paths),
        "start_s": task.span_s[0] if task.duration_s else None,
        "end_s": task.span_s[1] if task.duration_s else None,
        "text": caption.text,
        "token_ids": list(caption.token_ids),
        "finish_reason": caption.finish_reason.value,
        "num_prompt_tokens": caption.num_prompt_tokens,
        **caption.stats.as_dict(),
        "model": origin.model,
        "drafter": origin.drafter,
        "compressor": origin.compressor,
        "dtype": origin.dtype,
        "device": origin.device,
    }


def is_utf8(stream: TextIO) -> bool:
    """Whether the stream can take every character."""
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def clock(seconds: float) -> str:
    """Minutes and seconds for people."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"
