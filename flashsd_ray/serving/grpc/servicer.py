"""The RPCs of protos/flashsd/v1/captioning.proto on top of a CaptionService.

Runs as it is in a plain grpc.aio server and behind Ray Serve's gRPC proxy; knows neither.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import joined
from flashsd_ray.errors import NotFoundError, OverloadedError
from flashsd_ray.media.source import printable
from flashsd_ray.serving.addresses import fetch
from flashsd_ray.serving.grpc.call import Call, Clock, RpcContext
from flashsd_ray.serving.grpc.live_events import event_message
from flashsd_ray.serving.grpc.live_inputs import LiveReader
from flashsd_ray.serving.grpc.pictures import Fetch, load_pictures
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.sessions.live import watch
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest, SamplingParams
from flashsd_ray.wire.messages.answers import event_messages, response_message
from flashsd_ray.wire.messages.conversation import outline_of
from flashsd_ray.wire.messages.parsing import Unreadable
from flashsd_ray.wire.messages.sampling import sampling_params
from flashsd_ray.wire.v1 import captioning_pb2 as pb


class CaptioningServicer:
    """Answers RPCs; every error that it foresees becomes a status code, every other one INTERNAL and a line in the log."""

    def __init__(
        self,
        service: CaptionService,
        config: Config,
        gatekeeper: Gatekeeper,
        *,
        sessions: SessionRegistry | None = None,  # of live video; None: one of its own
        fetch: Fetch = fetch,
        clock: Clock = time.monotonic,
    ) -> None:
        self._service = service
        self._config = config
        self._gatekeeper = gatekeeper
        self._sessions = sessions or SessionRegistry(config)
        self._fetch = fetch
        self._clock = clock
        self._num_open = 0

    async def is_ready(self) -> bool:
        """Whether requests would be answered."""
        return (await self._service.status()).is_ready

    def drain(self) -> None:
        """Live sessions end once they have answered what is open, and no new one is opened."""
        self._sessions.drain()

    async def Caption(  # noqa: N802 (the name of the RPC)
        self, request: pb.CaptionRequest | Unreadable, context: RpcContext
    ) -> pb.CaptionResponse:
        """The whole answer at once."""
        async with self._call(context) as call, self._admitted(call):
            self._service.require_room()
            asked = await self._asked(request, call)
            async with aclosing(self._service.stream(asked)) as chunks:
                return response_message(joined([chunk async for chunk in chunks]))
        return pb.CaptionResponse()  # never seen: the status is an error

    async def CaptionStream(  # noqa: N802 (the name of the RPC)
        self, request: pb.CaptionRequest | Unreadable, context: RpcContext
    ) -> AsyncIterator[pb.CaptionEvent]:
        """The answer as it is decoded."""
        async with self._call(context, is_stream=True) as call, self._admitted(call):
            self._service.require_room()
            asked = await self._asked(request, call)
            async with aclosing(self._service.stream(asked)) as chunks:
                yield pb.CaptionEvent(started=pb.Started(request_id=asked.request_id, model=self._model_name))
                async for chunk in chunks:
                    for event in event_messages(chunk):
                        yield event

    async def GetModel(  # noqa: N802 (the name of the RPC)
        self, request: pb.GetModelRequest | Unreadable, context: RpcContext
    ) -> pb.Model:
        """The model behind the service."""
        async with self._call(context) as call:
            await call.identify()
            self._gatekeeper.identify(call.credentials)
            if isinstance(request, Unreadable):
                raise request.error
            self._check_model(request.model)
            return self._model()
        return pb.Model()  # never seen: the status is an error

    async def StreamVideo(  # noqa: N802 (the name of the RPC)
        self, requests: AsyncIterator[pb.StreamVideoRequest | Unreadable], context: RpcContext
    ) -> AsyncIterator[pb.StreamVideoEvent]:
        """What is to be said about a video while it is filmed."""
        async with self._call(context, is_stream=True) as call, self._admitted(call) as caller:
            reader = LiveReader(self._config, max_new_tokens=self._max_new_tokens, fetch=self._fetch)
            events = watch(reader.inputs(requests), self._service, self._sessions, self._config, caller=caller)
            async with aclosing(events):
                async for event in events:
                    yield event_message(event)

    def _call(self, context: RpcContext, *, is_stream: bool = False) -> Call:
        limit_s = self._config.serving.request_timeout_s or math.inf
        return Call(context, is_stream=is_stream, limit_s=limit_s, clock=self._clock)

    @asynccontextmanager
    async def _admitted(self, call: Call) -> AsyncIterator[str]:
        """The name of the caller; until the end the request has an id, a place at this edge and a slot of its caller."""
        await call.identify()
        with self._place(), self._gatekeeper.admit(call.credentials) as admission:
            yield admission.caller

    @contextmanager
    def _place(self) -> Iterator[None]:
        limit = self._config.serving.max_open_requests
        if self._num_open >= limit:
            raise OverloadedError(f"{self._num_open} requests are open; serving.max_open_requests allows {limit}")
        self._num_open += 1
        try:
            yield
        finally:
            self._num_open -= 1

    async def _asked(self, request: pb.CaptionRequest | Unreadable, call: Call) -> CaptionRequest:
        if isinstance(request, Unreadable):
            raise request.error
        self._check_model(request.model)
        serving, media = self._config.serving, self._config.media
        outline = outline_of(request.turns, serving, media)
        sampling = sampling_params(request.sampling, serving, max_new_tokens=self._max_new_tokens)
        visuals = await call.within_limit(load_pictures(outline.pictures, serving, media, fetch=self._fetch))
        return CaptionRequest(
            request_id=call.request_id,
            turns=outline.filled(visuals),
            sampling=sampling,
            draft_length=request.draft_length if request.HasField("draft_length") else None,
            timeout_s=call.remaining_s,
            trace=call.trace,
        )

    @property
    def _max_new_tokens(self) -> int:
        """Where the client leaves it to the server."""
        return min(SamplingParams().max_new_tokens, self._service.card.max_new_tokens)

    def _check_model(self, name: str) -> None:
        if name not in ("", self._model_name, self._service.card.name):
            raise NotFoundError(f"there is no model {printable(name)!r} here; the model is {self._model_name!r}")

    @property
    def _model_name(self) -> str:
        return self._config.serving.model_name or self._service.card.name

    def _model(self) -> pb.Model:
        card = self._service.card
        return pb.Model(
            name=self._model_name,
            family=card.family,
            context_length=card.context_length,
            max_new_tokens=card.max_new_tokens,
            fingerprint=card.fingerprint,
            drafter=card.drafter,
            compressor=card.compressor,
            dtype=card.dtype,
            max_message_bytes=self._config.serving.max_body_bytes,
            max_session_frames=self._config.sessions.max_frames,
        )
