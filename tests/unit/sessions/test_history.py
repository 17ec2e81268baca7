"""What a conversation remembers, and which captions are repetitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.sessions.frame_buffer import FrameBuffer, Snapshot
from flashsd_ray.sessions.history import History
from flashsd_ray.sessions.repeats import Repeats
from flashsd_ray.sessions.window import WindowPolicy
from flashsd_ray.types import Turn, VisualInput
from tests.unit.sessions.harness import picture


def told(turns: tuple[Turn, ...]) -> list[tuple[str, list[int], str]]:
    """Who shows which frames and says what."""
    found = []
    for turn in turns:
        numbers = [int(frame[0, 0, 0]) for part in turn.parts if isinstance(part, VisualInput) for frame in part.frames]
        found.append((turn.role, numbers, " ".join(part for part in turn.parts if isinstance(part, str))))
    return found


def snapshots(num_frames: int) -> list[Snapshot]:
    buffer = FrameBuffer(WindowPolicy(keep_first=1, max_frames=6, drop_frames=3))
    found = []
    for number in range(num_frames):
        buffer.prepare(picture(number))
        buffer.push(picture(number), float(number))
        found.append(buffer.snapshot())
    return found


def test_new_frames_stand_behind_the_answers_that_came_before_them() -> None:
    _, two, _, four = snapshots(4)
    history = History().followed_by(two, "what?", "a hen").followed_by(two, "where?", "a farm")
    assert told(history.turns(four, "and now?")) == [
        ("user", [0, 1], "what?"),
        ("assistant", [], "a hen"),
        ("user", [], "where?"),
        ("assistant", [], "a farm"),
        ("user", [2, 3], "and now?"),
    ]
    # What is told without the question is the beginning of what is told with it.
    assert told(history.turns(four)) == [*told(history.turns(four, "and now?"))[:-1], ("user", [2, 3], "")]
    assert told(history.turns(two)) == told(history.turns(four, "?"))[:-1]


def test_a_dropped_frame_ends_the_conversation() -> None:
    found = snapshots(7)
    history = History().followed_by(found[5], "what?", "a hen")
    assert told(history.turns(found[6], "and now?")) == [("user", [0, 4, 5, 6], "and now?")]
    # A question that was asked before the drop still belongs to the conversation.
    assert len(history.turns(found[5], "and now?")) == 3
    assert history.followed_by(found[6], "q", "a").exchanges[0].question == "q"
    assert len(history.followed_by(found[6], "q", "a").exchanges) == 1


def test_before_the_first_frame_there_is_nothing_to_tell() -> None:
    assert History().turns(FrameBuffer(WindowPolicy(keep_first=0, max_frames=1, drop_frames=1)).snapshot()) == ()


@given(st.none() | st.text("ab", max_size=6), st.lists(st.text("ab", max_size=3), max_size=6))
def test_pieces_come_all_in_order_or_not_at_all(previous: str | None, pieces: list[str]) -> None:
    repeats = Repeats(previous)
    sent: list[str] = []
    for piece in pieces:
        sent += [chunk.text for chunk in repeats.passed(Chunk(request_id="r", text=piece))]
        so_far = "".join(sent)
        assert previous is None or not so_far or not previous.startswith(so_far)
    sent += [chunk.text for chunk in repeats.rest()]
    is_same = "".join(pieces) == previous
    assert repeats.is_repetition == is_same
    assert sent == ([] if is_same else pieces)
