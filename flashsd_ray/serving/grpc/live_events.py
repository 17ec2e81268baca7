"""What a live session says, as messages for the client."""

from __future__ import annotations

from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Closed,
    CloseReason,
    FrameAck,
    Opened,
    Output,
    Refused,
)
from flashsd_ray.wire.messages.answers import delta_message, finish_reason_message, statistics_message
from flashsd_ray.wire.v1 import captioning_pb2 as pb

_REASONS = {
    CloseReason.END: pb.Closed.REASON_END,
    CloseReason.IDLE: pb.Closed.REASON_IDLE,
    CloseReason.DRAINING: pb.Closed.REASON_DRAINING,
}


def event_message(event: Output) -> pb.StreamVideoEvent:
    """The same event as a message."""
    if isinstance(event, Opened):
        return pb.StreamVideoEvent(opened=_opened(event))
    if isinstance(event, FrameAck):
        return pb.StreamVideoEvent(frame_ack=_frame_ack(event))
    if isinstance(event, AnswerStarted):
        return pb.StreamVideoEvent(answer_started=_answer_started(event))
    if isinstance(event, AnswerDelta):
        delta = pb.AnswerDelta(ask_id=event.ask_id, delta=delta_message(event.chunk))
        return pb.StreamVideoEvent(answer_delta=delta)
    if isinstance(event, AnswerFinished):
        return pb.StreamVideoEvent(answer_finished=_answer_finished(event))
    if isinstance(event, Refused):
        refused = pb.Refused(reason=event.reason, code=event.code, ask_id=event.ask_id, frame=event.frame)
        return pb.StreamVideoEvent(refused=refused)
    return pb.StreamVideoEvent(closed=_closed(event))


def _opened(event: Opened) -> pb.Opened:
    return pb.Opened(
        session_id=event.session_id,
        resume_token=event.resume_token,
        model=event.model,
        keep_first=event.keep_first,
        max_frames=event.max_frames,
        max_waiting_frames=event.max_waiting_frames,
        next_frame=event.next_frame,
    )


def _frame_ack(event: FrameAck) -> pb.FrameAck:
    return pb.FrameAck(
        frame=event.frame,
        frames_held=event.frames_held,
        frames_dropped=event.frames_dropped,
        tokens_cached=event.tokens_cached,
    )


def _answer_started(event: AnswerStarted) -> pb.AnswerStarted:
    return pb.AnswerStarted(
        ask_id=event.ask_id,
        request_id=event.request_id,
        start_s=event.start_s,
        end_s=event.end_s,
        num_frames=event.num_frames,
    )


def _answer_finished(event: AnswerFinished) -> pb.AnswerFinished:
    return pb.AnswerFinished(
        ask_id=event.ask_id,
        text=event.text,
        finish_reason=finish_reason_message(event.finish_reason),
        statistics=statistics_message(event.stats, event.num_prompt_tokens, event.num_cached_tokens),
        seconds_to_first_text=event.seconds_to_first_text,
        is_unchanged=event.is_unchanged,
    )


def _closed(event: Closed) -> pb.Closed:
    return pb.Closed(reason=_REASONS[event.reason], frames_seen=event.frames_seen, answers=event.answers)
