"""What a client sends in a live session, as the inputs of a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError
from flashsd_ray.serving.grpc.pictures import Fetch
from flashsd_ray.sessions.events import (
    Ask,
    Cancel,
    End,
    Input,
    Mode,
    Open,
    PushChunk,
    PushFrame,
    SetPrompt,
    Unusable,
)
from flashsd_ray.types import SamplingParams
from flashsd_ray.wire.messages.frames import raw_image
from flashsd_ray.wire.messages.parsing import Unreadable
from flashsd_ray.wire.messages.sampling import sampling_params
from flashsd_ray.wire.v1 import captioning_pb2 as pb

_MODES = {
    pb.Open.MODE_UNSPECIFIED: Mode.ON_DEMAND,
    pb.Open.MODE_ON_DEMAND: Mode.ON_DEMAND,
    pb.Open.MODE_PERIODIC: Mode.PERIODIC,
    pb.Open.MODE_CHANGES: Mode.CHANGES,
}


class LiveReader:
    """Turns messages into inputs; one that cannot be used becomes ``Unusable``, so that the session goes on."""

    def __init__(self, config: Config, *, max_new_tokens: int, fetch: Fetch) -> None:
        self._config = config
        self._max_new_tokens = max_new_tokens  # of an answer, where the client leaves it to the server
        self._fetch = fetch

    async def inputs(self, messages: AsyncIterator[pb.StreamVideoRequest | Unreadable]) -> AsyncIterator[Input]:
        """One input for each message."""
        async for message in messages:
            yield await self._input(message)

    async def _input(self, message: pb.StreamVideoRequest | Unreadable) -> Input:
        if isinstance(message, Unreadable):
            return Unusable(error=message.error)
        kind = message.WhichOneof("message")
        try:
            if kind == "frame":
                return await self._frame(message.frame)
            return self._command(kind, message)
        except FlashSDError as error:
            ask_id = message.ask.ask_id if kind == "ask" else ""
            return Unusable(error=error, kind="frame" if kind == "frame" else "other", ask_id=ask_id)

    def _command(self, kind: str | None, message: pb.StreamVideoRequest) -> Input:
        if kind == "open":
            return self._open(message.open)
        if kind == "ask":
            return self._ask(message.ask)
        if kind == "chunk":
            return PushChunk(data=message.chunk.data, is_last=message.chunk.is_last, fps=message.chunk.fps)
        if kind == "set_prompt":
            return SetPrompt(prompt=message.set_prompt.prompt)
        if kind == "cancel":
            return Cancel(ask_id=message.cancel.ask_id)
        if kind == "end":
            return End()
        raise InvalidRequestError("the message holds nothing that is known here")

    def _open(self, message: pb.Open) -> Open:
        if message.mode not in _MODES:
            raise InvalidRequestError(f"open.mode is {message.mode}, which is none of Open.Mode")
        return Open(
            model=message.model,
            session_id=message.session_id,
            resume_token=message.resume_token,
            mode=_MODES[message.mode],
            period_s=message.period_s,
            prompt=message.prompt,
            sampling=self._sampling(message, "open.sampling"),
            keep_first=message.keep_first,
            max_frames=message.max_frames,
            draft_length=message.draft_length if message.HasField("draft_length") else None,
            captions_received=message.captions_received if message.HasField("captions_received") else None,
        )

    def _ask(self, message: pb.Ask) -> Ask:
        return Ask(
            prompt=message.prompt,
            ask_id=message.ask_id,
            sampling=self._sampling(message, "ask.sampling"),
            keep_history=message.keep_history,
            is_again=message.is_again,
        )

    async def _frame(self, message: pb.Frame) -> PushFrame:
        image = message.image
        timestamp_s = message.timestamp_s if message.HasField("timestamp_s") else None
        source = image.WhichOneof("source")
        if source == "encoded":
            return PushFrame(image=image.encoded, timestamp_s=timestamp_s)
        if source == "raw":
            visual = await asyncio.to_thread(raw_image, image.raw, "frame.image.raw", self._config.media)
            return PushFrame(image=visual.frames[0], timestamp_s=timestamp_s)
        if source == "url":
            max_bytes = self._config.sessions.max_frame_bytes
            data = await self._fetch(image.url, self._config.serving, max_bytes=max_bytes)
            return PushFrame(image=data, timestamp_s=timestamp_s)
        raise InvalidRequestError("frame.image has no source")

    def _sampling(self, message: pb.Open | pb.Ask, where: str) -> SamplingParams | None:
        if not message.HasField("sampling"):
            return None
        serving = self._config.serving
        return sampling_params(message.sampling, serving, max_new_tokens=self._max_new_tokens, where=where)
