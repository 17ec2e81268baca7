"""Any conversation that keeps or breaks the protocol: whatever is asked is answered once, whatever is sent is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.errors import UnavailableError
from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Ask,
    Cancel,
    Closed,
    CloseReason,
    FrameAck,
    Input,
    Mode,
    Open,
    Output,
    PushFrame,
    Refused,
    SetPrompt,
)
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import FinishReason
from tests.fake_service import EchoService
from tests.unit.sessions.harness import Client, ManualClock, limits, picture, settle, texts

messages = st.one_of(
    st.builds(PushFrame, image=st.just(picture()), timestamp_s=st.none() | st.sampled_from([0.0, 1.0, 2.5, 40.0])),
    st.builds(PushFrame, image=st.just(picture(size=9))),
    st.builds(Ask, prompt=st.sampled_from(["", "why?", "fail"]), keep_history=st.booleans()),
    st.builds(Cancel, ask_id=st.integers(0, 12).map(str)),
    st.builds(SetPrompt, prompt=st.sampled_from(["", "where?"])),
    st.just(Open()),
)
steps = st.lists(st.tuples(messages, st.integers(0, 4)), max_size=25)


async def converse(mode: Mode, sent: list[tuple[Input, int]]) -> tuple[list[Input], list[Output]]:
    """All messages, questions with names, and all events."""
    clock = ManualClock()
    service = EchoService(fails=lambda request: UnavailableError("no") if "fail" in texts(request) else None)
    config = limits(max_waiting_frames=3, max_waiting_asks=2, max_frames=6, keep_first=2, drop_frames=2)
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open(mode=mode, period_s=1.0, prompt="what?" if mode is not Mode.ON_DEMAND else "")
    told: list[Input] = []
    for number, (message, pause) in enumerate(sent):
        told.append(replace(message, ask_id=str(number)) if isinstance(message, Ask) else message)
        client.send(told[-1])
        await settle(pause)
    events = await client.end()
    await settle()
    assert not service.open
    assert not [task for task in asyncio.all_tasks() if "sessions" in repr(task.get_coro())]
    return told, events


@given(st.sampled_from(list(Mode)), steps)
@settings(max_examples=80)
def test_whatever_is_asked_is_answered_once_and_whatever_is_sent_is_counted(
    mode: Mode, sent: list[tuple[Input, int]]
) -> None:
    told, events = asyncio.run(converse(mode, sent))
    ends = Counter(event.ask_id for event in events if isinstance(event, AnswerFinished | Refused) and event.ask_id)
    asked = {message.ask_id for message in told if isinstance(message, Ask)}
    assert set(ends) >= asked
    assert set(ends.values()) <= {1}
    for ask_id in ends:
        own = [event for event in events if getattr(event, "ask_id", None) == ask_id]
        assert isinstance(own[-1], AnswerFinished | Refused)
        assert all(isinstance(event, AnswerDelta) for event in own[1:-1])
        assert len(own) == 1 or isinstance(own[0], AnswerStarted)
        finished = own[-1]
        if isinstance(finished, AnswerFinished) and finished.finish_reason is FinishReason.STOP:
            spoken = "".join(event.chunk.text for event in own if isinstance(event, AnswerDelta))
            assert spoken == ("" if finished.is_unchanged else finished.text)
    acks = [event for event in events if isinstance(event, FrameAck)]
    refused = [event.frame for event in events if isinstance(event, Refused) and event.frame is not None]
    num_frames = sum(isinstance(message, PushFrame) for message in told)
    assert [ack.frame for ack in acks] == sorted({ack.frame for ack in acks})
    held = set(range(num_frames)) - set(refused)
    assert max(held, default=-1) == (acks[-1].frame if acks else -1)
    assert not acks or acks[-1].frames_held + acks[-1].frames_dropped == len(held)
    whole = [
        event
        for event in events
        if isinstance(event, AnswerFinished) and event.finish_reason is not FinishReason.CANCELLED
    ]
    assert events[-1] == Closed(reason=CloseReason.END, frames_seen=num_frames, answers=len(whole))
