"""Takes the pieces of all answers as they come: has them written, reports what failed, knows the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.answering import Piece
from flashsd_ray.cli.compare import compare, explanation, table
from flashsd_ray.cli.formats import Writer
from flashsd_ray.cli.tasks import Task
from flashsd_ray.cli.terminal import Activity, console, report_error
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.errors import FlashSDError
from flashsd_ray.types import CaptionRequest

if TYPE_CHECKING:
    from flashsd_ray.engine.local import Engine

ALL_DONE, SOME_FAILED, NOTHING_DONE = 0, 1, 2
BROKEN_PROMISE = 1  # outputs differ where they must not


@dataclass(slots=True, eq=False, kw_only=True)
class Session:
    """One run of the verb."""

    writer: Writer
    engine: Callable[[], Engine]
    activity: Activity
    num_repeats: int = 0  # of the comparison with plain decoding; 0: none
    is_json: bool = False  # the comparison is part of the object, not a table
    has_labels: bool = False  # there are several captions
    has_footer: bool = False  # people want to know how fast it was
    num_done: int = 0
    num_failed: int = 0
    is_promise_broken: bool = False
    _chunks: list[Chunk] = field(default_factory=list)

    def run(self, pieces: Iterable[Piece]) -> int:
        """Everything is written; returns the exit code.

        Raises:
            FlashSDError: the engine cannot be loaded.
        """
        for piece in pieces:
            self.take(piece)
        self.activity.rests()
        return self.exit_code

    @property
    def exit_code(self) -> int:
        """0, 1 when some inputs failed or a promise was broken, 2 when there is no caption at all."""
        if self.num_failed and not self.num_done:
            return NOTHING_DONE
        if self.is_promise_broken:
            return BROKEN_PROMISE
        return SOME_FAILED if self.num_failed else ALL_DONE

    def take(self, piece: Piece) -> None:
        """The piece is written, or its error reported."""
        task, chunk = piece.task, piece.chunk
        if chunk.error is not None:
            self._fail(task, chunk.error)
            return
        self._chunks.append(chunk)
        if chunk.text:
            self.activity.rests()
        self.writer.chunk(task, chunk)
        if chunk.finish_reason is not None:
            caption, self._chunks = joined(self._chunks), []
            self._finish(task, piece.request, caption)

    def _finish(self, task: Task, request: CaptionRequest | None, caption: Caption) -> None:
        extra: dict[str, Any] = {}
        result = None
        if not self.is_json:
            self.activity.rests()
            self.writer.answer(task, caption, extra)
        if self.num_repeats and request is not None:
            result = compare(self.engine(), request, self.num_repeats, partial(self.activity.says, is_moving=False))
            extra["comparison"] = result.as_dict()
            self.is_promise_broken |= (
                self.engine().dtype == "float32" and result.must_be_identical and not result.is_identical
            )
        self.activity.rests()
        if self.is_json:
            self.writer.answer(task, caption, extra)
        elif result is not None:
            self._show(task, result)
        elif self.has_footer:
            console(sys.stderr).print(footer(caption), style="dim")
        self.num_done += 1
        if self.has_labels:
            self.activity.says(f"{self.num_done} captioned")

    def _show(self, task: Task, result: Any) -> None:
        engine = self.engine()
        name = Path(task.paths[0]).name
        title = f"{name}, model {engine.target.name} in {engine.dtype}, {result.repeats} repeats each"
        shown = console()
        shown.print()
        shown.print(table(result, title=title, drafter=engine.drafter_name))
        if not result.is_identical:
            shown.print(explanation(result, engine.dtype))

    def _fail(self, task: Task, error: FlashSDError) -> None:
        self.activity.rests()
        if self._chunks:
            self.writer.failure(task)
            self._chunks = []
        message = str(error)
        report_error(f"{task.label}: {message}" if self.has_labels and task.paths[0] not in message else message)
        self.num_failed += 1


def footer(caption: Caption) -> str:
    """One line about how an answer was made."""
    stats = caption.stats
    decoded, seconds = stats.num_new_tokens - stats.num_prefills, stats.seconds["decode"]
    rate = f", {decoded / seconds:.0f} tokens/s, tau {stats.tau:.2f}" if decoded and seconds else ""
    return f"{stats.num_new_tokens} tokens{rate}, ended by {caption.finish_reason.value}"
