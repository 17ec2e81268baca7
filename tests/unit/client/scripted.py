"""A real gRPC server that does what the test tells it, call by call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from flashsd_ray.wire.v1 import captioning_pb2 as pb
from flashsd_ray.wire.v1 import captioning_pb2_grpc

Context = Any
Answer = Callable[[Any, Context], Awaitable[Any]]
Events = Callable[[Any, Context], AsyncIterator[Any]]

STATISTICS = pb.Statistics(
    num_prompt_tokens=7, num_new_tokens=6, rounds=2, tau=2.5, num_draft_tokens=4, num_accepted_tokens=3
)
MODEL = pb.Model(name="scripted", family="fake", max_new_tokens=99, max_message_bytes=2**20, drafter="flash")


class Line:
    """The server's end of one StreamVideo."""

    def __init__(self, requests: AsyncIterator[pb.StreamVideoRequest], context: Context) -> None:
        self.requests = requests
        self.context = context
        self.opening = pb.Open()

    async def opened(self, *, next_frame: int = 0, max_waiting_frames: int = 16) -> None:
        """The first message was read, and answered."""
        self.opening = (await self.requests.__anext__()).open
        await self.say(
            opened=pb.Opened(
                session_id="session",
                resume_token="token",
                model="scripted",
                max_waiting_frames=max_waiting_frames,
                next_frame=next_frame,
            )
        )

    async def read(self, kind: str) -> Any:
        """The next message, which must be of this kind."""
        message = await self.requests.__anext__()
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)

    async def say(self, **event: Any) -> None:
        """The event is sent."""
        await self.context.write(pb.StreamVideoEvent(**event))

    async def answer(self, ask_id: str, *texts: str) -> None:
        """A whole answer is sent."""
        await self.say(answer_started=pb.AnswerStarted(ask_id=ask_id, request_id="r", end_s=2.0, num_frames=3))
        for text in texts:
            await self.say(answer_delta=pb.AnswerDelta(ask_id=ask_id, delta=pb.Delta(text=text)))
        finished = pb.AnswerFinished(
            ask_id=ask_id,
            text="".join(texts),
            finish_reason=pb.FINISH_REASON_STOP,
            statistics=STATISTICS,
            seconds_to_first_text=0.25,
        )
        await self.say(answer_finished=finished)

    async def close(self, reason: pb.Closed.Reason = pb.Closed.REASON_END) -> None:
        """The session is over."""
        await self.say(closed=pb.Closed(reason=reason, frames_seen=3, answers=1))

    async def drop(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, details: str = "gone") -> None:
        """The connection ends with this status."""
        await self.context.abort(code, details)


@dataclass
class Servicer(captioning_pb2_grpc.CaptioningServicer):
    """Answers each call by the next part of its script, the last part again and again."""

    captions: deque[Answer] = field(default_factory=deque)
    streams: deque[Events] = field(default_factory=deque)
    lines: deque[Callable[[Line], Awaitable[None]]] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    num_model_calls: int = 0
    model: pb.Model = field(default_factory=lambda: MODEL)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:  # noqa: N802
        self.num_model_calls += 1
        return self.model

    async def Caption(self, request: pb.CaptionRequest, context: Context) -> pb.CaptionResponse:  # noqa: N802
        self._note(request, context)
        return await _next(self.captions)(request, context)

    async def CaptionStream(self, request: pb.CaptionRequest, context: Context) -> AsyncIterator[pb.CaptionEvent]:  # noqa: N802
        self._note(request, context)
        try:
            async for event in _next(self.streams)(request, context):
                yield event
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def StreamVideo(self, requests: AsyncIterator[pb.StreamVideoRequest], context: Context) -> None:  # noqa: N802
        self._note(None, context)
        try:
            await _next(self.lines)(Line(requests, context))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _note(self, request: Any, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())


def _next(script: deque[Any]) -> Any:
    return script.popleft() if len(script) > 1 else script[0]


@asynccontextmanager
async def serving(servicer: Servicer, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    """The address of a server that is up inside."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    captioning_pb2_grpc.add_CaptioningServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


def says(text: str = "a dog", **fields: Any) -> Answer:
    """The call is answered with this caption."""

    async def answer(request: Any, context: Context) -> pb.CaptionResponse:
        return pb.CaptionResponse(
            request_id="r-1",
            text=text,
            token_ids=[4, 5],
            finish_reason=pb.FINISH_REASON_STOP,
            statistics=STATISTICS,
            **fields,
        )

    return answer


def refuses(code: grpc.StatusCode, details: str = "no", *, retry_after_s: float | None = None) -> Answer:
    """The call is refused."""

    async def answer(request: Any, context: Context) -> pb.CaptionResponse:
        await context.abort(code, details, retry_metadata(code, details, retry_after_s))
        raise AssertionError

    return answer


def retry_metadata(code: grpc.StatusCode, details: str, retry_after_s: float | None) -> tuple[tuple[str, bytes], ...]:
    """What goes with a status that says when to come again."""
    if retry_after_s is None:
        return ()
    delay = Duration()
    delay.FromNanoseconds(round(retry_after_s * 1e9))
    status = status_pb2.Status(code=code.value[0], message=details)
    status.details.add().Pack(error_details_pb2.DebugInfo(detail="something else first"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return (("grpc-status-details-bin", status.SerializeToString()),)


def tells(*events: pb.CaptionEvent, then: Answer | None = None, gate: asyncio.Event | None = None) -> Events:
    """The call is answered with these events, and ends as ``then`` does, or when the gate opens."""

    async def answer(request: Any, context: Context) -> AsyncIterator[pb.CaptionEvent]:
        for event in events:
            yield event
        if gate is not None:
            await gate.wait()
        if then is not None:
            await then(request, context)

    return answer


STARTED = pb.CaptionEvent(started=pb.Started(request_id="r-1", model="scripted"))
FINISHED = pb.CaptionEvent(finished=pb.Finished(finish_reason=pb.FINISH_REASON_LENGTH, statistics=STATISTICS))


def delta(text: str) -> pb.CaptionEvent:
    """One piece of an answer."""
    return pb.CaptionEvent(delta=pb.Delta(text=text, token_ids=[1, 2], num_accepted=1))
