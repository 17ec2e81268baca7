"""The client for programs without asyncio: the asynchronous one, on a thread of its own."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Sequence
from types import TracebackType

from flashsd_ray.client.answers import Caption, Model, Piece
from flashsd_ray.client.async_client import AsyncClient
from flashsd_ray.client.background import shared
from flashsd_ray.client.channel import PathText
from flashsd_ray.client.requests import Mode, Turn, Visuals
from flashsd_ray.client.retries import Retries, Timing
from flashsd_ray.client.sync_session import Session
from flashsd_ray.types import SamplingParams


class Client:
    """Asks a server about pictures and videos; connects with its first call, and may be used by several threads."""

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
        self._client = AsyncClient(
            address,
            api_key=api_key,
            tls=tls,
            ca=ca,
            certificate=certificate,
            key=key,
            timeout_s=timeout_s,
            keepalive_s=keepalive_s,
            jpeg_quality=jpeg_quality,
            retries=retries,
            timing=timing,
        )
        self._background = shared()
        weakref.finalize(self, self._background.spawn, self._client.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The connection is closed, and open calls are cancelled."""
        self._background.call(self._client.close())

    def model(self, name: str = "", *, timeout_s: float | None = None) -> Model:
        """The model behind the server, and the limits that a client has to keep.

        Raises:
            FlashSDError: the server cannot be reached, or has no such model.
        """
        return self._background.call(self._client.model(name, timeout_s=timeout_s))

    def caption(
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
        return self._background.call(
            self._client.caption(
                visuals,
                prompt,
                history=history,
                sampling=sampling,
                draft_length=draft_length,
                model=model,
                timeout_s=timeout_s,
                request_id=request_id,
            )
        )

    def stream(
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
    ) -> Generator[Piece, None, None]:
        """The pieces of the answer as they are decoded; the last one says how it ended. Takes what ``caption`` takes.

        Closing the generator cancels the request. Where the connection is lost it is made again, and what was given
        is left out: nothing repeats and nothing is missing.

        Raises:
            FlashSDError: as ``caption``.
        """
        # A generator itself, so that the client lives as long as it does.
        yield from self._background.iterate(
            self._client.stream(
                visuals,
                prompt,
                history=history,
                sampling=sampling,
                draft_length=draft_length,
                model=model,
                timeout_s=timeout_s,
                request_id=request_id,
            )
        )

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
    ) -> Session:
        """A session around a video that is still being filmed, to be used as a context manager.

        Raises:
            InvalidRequestError: a parameter is out of range.
        """
        session = self._client.watch(
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
        return Session(session, self._background, self)
