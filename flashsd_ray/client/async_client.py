"""The client for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType

import grpc

from flashsd_ray.client.answers import Caption, Model, Piece, caption_of, last_piece_of, model_of, piece_of
from flashsd_ray.client.async_session import AsyncSession
from flashsd_ray.client.calls import CallOptions, Calls
from flashsd_ray.client.channel import Connection, PathText
from flashsd_ray.client.continuing import Given
from flashsd_ray.client.requests import Mode, Turn, Visuals, opening_of, request_of
from flashsd_ray.client.retries import Retries, Timing
from flashsd_ray.errors import UnavailableError
from flashsd_ray.types import SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb


class ClosedEarlyError(UnavailableError):
    """An answer ended politely, and before its end."""


class AsyncClient:
    """Asks a server about pictures and videos; belongs to one event loop, and connects with its first call."""

    def __init__(
        self,
        address: str = "localhost:9000",  # host:port
        *,
        api_key: str = "",
        tls: bool = False,
        ca: PathText | None = None,  # PEM file that the server's certificate is checked against; None: the system's
        certificate: PathText | None = None,  # PEM file that says who this client is; together with key
        key: PathText | None = None,
        timeout_s: float | None = None,  # of one call with all its attempts; None: as long as the server allows
        keepalive_s: float = 60.0,  # time between signs of life while a call is open
        jpeg_quality: int | None = None,  # of frames given as pixels, 1..100; None: they are sent as they are
        retries: Retries | None = None,  # None: five attempts
        timing: Timing | None = None,  # None: the real time
    ) -> None:
        """Raises ConfigError when the address, a certificate or another setting cannot be used."""
        connection = Connection(
            address=address, api_key=api_key, tls=tls, ca=ca, certificate=certificate, key=key, keepalive_s=keepalive_s
        )
        connection.credentials()  # so that a missing file is reported here
        options = CallOptions(
            timeout_s=timeout_s,
            jpeg_quality=jpeg_quality,
            retries=retries or Retries(),
            timing=timing or Timing(),
        )
        self._calls = Calls(connection, options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The connection is closed, and open calls are cancelled."""
        await self._calls.close()

    async def model(self, name: str = "", *, timeout_s: float | None = None) -> Model:
        """The model behind the server, and the limits that a client has to keep.

        Raises:
            FlashSDError: the server cannot be reached, or has no such model.
        """
        return model_of(await self._calls.model(name, self._calls.attempts(timeout_s)))

    async def caption(
        self,
        visuals: Visuals,
        prompt: str,
        *,
        history: Sequence[Turn] = (),
        sampling: SamplingParams | None = None,  # None: the server's choice
        draft_length: int | None = None,  # tokens drafted per round; 0: plain decoding; None: the server decides
        model: str = "",
        timeout_s: float | None = None,  # None: the client's
        request_id: str = "",  # for the server's logs
    ) -> Caption:
        """The answer to the prompt about the pictures; made again where the server was lost or had no room.

        Args:
            visuals: one or several of: a path, an address, the bytes of a file, an array of uint8 [H, W, 3] or
                [F, H, W, 3], an ``Image``, a ``Video``.
            history: what was said before.

        Raises:
            FlashSDError: the request cannot be sent, was refused, or could not be answered in time.
        """
        attempts = self._calls.attempts(timeout_s)
        build = partial(
            request_of, visuals, prompt, history=history, sampling=sampling, draft_length=draft_length, model=model
        )
        request = await self._calls.built(build, attempts)
        metadata = self._calls.metadata(request_id)
        while True:
            try:
                return caption_of(await self._calls.stub.Caption(request, timeout=attempts.left_s(), metadata=metadata))
            except grpc.aio.AioRpcError as failure:
                await attempts.failed(self._calls.error(failure))

    async def stream(
        self,
        visuals: Visuals,
        prompt: str,
        *,
        history: Sequence[Turn] = (),
        sampling: SamplingParams | None = None,
        draft_length: int | None = None,
        model: str = "",
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> AsyncGenerator[Piece, None]:
        """The pieces of the answer as they are decoded; the last one says how it ended. Takes what ``caption`` takes.

        Closing the generator cancels the request. Where the connection is lost it is made again, and what was given
        is left out: nothing repeats and nothing is missing.

        Raises:
            FlashSDError: as ``caption``.
        """
        attempts = self._calls.attempts(timeout_s)
        build = partial(
            request_of, visuals, prompt, history=history, sampling=sampling, draft_length=draft_length, model=model
        )
        request = await self._calls.built(build, attempts)
        metadata = self._calls.metadata(request_id)
        given = Given()
        while True:
            call = self._calls.stub.CaptionStream(request, timeout=attempts.left_s(), metadata=metadata)
            try:
                async with aclosing(_pieces(call)) as pieces:
                    async for piece in pieces:
                        fresh = given.fresh(piece)
                        if fresh is not None:
                            attempts.succeeded()
                            yield fresh
                return
            except (grpc.aio.AioRpcError, ClosedEarlyError) as failure:
                error = self._calls.error(failure) if isinstance(failure, grpc.aio.AioRpcError) else failure
                given.restart()
                await attempts.failed(error)
            finally:
                call.cancel()

    def watch(
        self,
        *,
        prompt: str = "",  # asked by the modes that caption by themselves, and where a question has none
        mode: Mode = "on_demand",
        period_s: float = 0.0,  # of video time, for the modes that caption by themselves
        sampling: SamplingParams | None = None,
        keep_first: int = 0,  # frames from the start that are never dropped; 0: the server's choice
        max_frames: int = 0,  # frames that an answer looks at; 0: the server's choice
        draft_length: int | None = None,
        model: str = "",
        session_id: str = "",  # of a session to continue, together with its resume_token
        resume_token: str = "",
    ) -> AsyncSession:
        """A session around a video that is still being filmed, to be used as an async context manager.

        Raises:
            InvalidRequestError: a parameter is out of range.
        """
        opening = opening_of(
            prompt=prompt,
            mode=mode,
            period_s=period_s,
            sampling=sampling,
            keep_first=keep_first,
            max_frames=max_frames,
            draft_length=draft_length,
            model=model,
            session_id=session_id,
            resume_token=resume_token,
        )
        return AsyncSession(self._calls, opening)


async def _pieces(call: grpc.aio.UnaryStreamCall[pb.CaptionRequest, pb.CaptionEvent]) -> AsyncGenerator[Piece, None]:
    request_id, is_complete = "", False
    async for event in call:
        kind = event.WhichOneof("event")
        if kind == "started":
            request_id = event.started.request_id
        elif kind == "delta":
            yield piece_of(request_id, event.delta)
        elif kind == "finished":
            is_complete = True
            yield last_piece_of(request_id, event.finished)
    if not is_complete:
        raise ClosedEarlyError("the server closed the answer before its end", retry_after_s=0.0)
