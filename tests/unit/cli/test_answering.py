"""Pieces come in the order of the tasks, as soon as that order allows, and nobody is lost."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flashsd_ray.cli.answering import answer
from flashsd_ray.cli.tasks import Read, Task
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import CheckpointError, InvalidRequestError, MediaError
from flashsd_ray.types import CaptionRequest, FinishReason


class ScriptedLane:
    """Gives every request one chunk a step; request n ends after ``lengths[n]`` of them."""

    def __init__(self, lengths: dict[str, int]) -> None:
        self.lengths = lengths
        self.running: dict[str, int] = {}
        self.most_running = 0
        self.cancelled: list[str] = []

    def submit(self, request: CaptionRequest) -> None:
        if request.request_id == "refused":
            raise InvalidRequestError("too long")
        self.running[request.request_id] = 0
        self.most_running = max(self.most_running, len(self.running))

    def step(self) -> list[Chunk]:
        chunks = []
        for name in list(self.running):
            self.running[name] += 1
            has_ended = self.running[name] == self.lengths[name]
            text = f"{name}{self.running[name]}"
            chunks.append(Chunk(request_id=name, text=text, finish_reason=FinishReason.STOP if has_ended else None))
            if has_ended:
                del self.running[name]
        return chunks

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)


def reads(*names: str) -> Iterator[Read]:
    for name in names:
        task = Task(paths=(name,))
        if name.startswith("broken"):
            yield Read(task=task, error=MediaError(f"{name}: is damaged"))
        else:
            yield Read(task=task, request=CaptionRequest(request_id=name, prompt=""))


def seen(lane: ScriptedLane, batch_size: int, *names: str) -> list[str]:
    engine = SimpleNamespace(lane=lane)
    pieces = answer(reads(*names), lambda: engine, batch_size)  # type: ignore[arg-type, return-value]
    return [str(piece.chunk.error or piece.chunk.text) for piece in pieces]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_pieces_keep_the_order_of_the_tasks(batch_size: int) -> None:
    lane = ScriptedLane({"a": 3, "b": 1, "c": 2, "d": 2})
    expected = ["a1", "a2", "a3", "b1", "broken: is damaged", "c1", "c2", "too long", "d1", "d2"]
    assert seen(lane, batch_size, "a", "b", "broken", "c", "refused", "d") == expected
    assert lane.most_running <= batch_size


def test_the_first_task_is_not_held_back_by_the_others() -> None:
    lane = ScriptedLane({"a": 2, "b": 5})
    pieces = answer(reads("a", "b"), lambda: SimpleNamespace(lane=lane), 2)  # type: ignore[arg-type, return-value]
    assert next(pieces).chunk.text == "a1"
    assert lane.running == {"a": 1, "b": 1}


def test_only_broken_inputs_need_no_engine() -> None:
    def engine() -> None:
        raise AssertionError("the engine was asked for")

    pieces = list(answer(reads("broken1", "broken2"), engine, 1))  # type: ignore[arg-type]
    assert [str(piece.chunk.error) for piece in pieces] == ["broken1: is damaged", "broken2: is damaged"]


def test_an_engine_that_cannot_be_loaded_is_nobodys_input_error() -> None:
    def engine() -> None:
        raise CheckpointError("no such model")

    with pytest.raises(CheckpointError):
        list(answer(reads("a"), engine, 1))  # type: ignore[arg-type]


def test_leaving_early_cancels_what_runs() -> None:
    lane = ScriptedLane({"a": 5, "b": 5})
    pieces = answer(reads("a", "b"), lambda: SimpleNamespace(lane=lane), 2)  # type: ignore[arg-type, return-value]
    next(pieces)
    pieces.close()
    assert sorted(lane.cancelled) == ["a", "b"]
