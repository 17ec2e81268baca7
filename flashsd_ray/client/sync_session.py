"""A live session for programs without asyncio."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType

from flashsd_ray.client.async_session import AsyncSession
from flashsd_ray.client.background import Background
from flashsd_ray.client.events import AnswerEvent, AnswerFinished, Progress, SessionEvent
from flashsd_ray.client.pictures import Source
from flashsd_ray.types import SamplingParams


class Session:
    """One live video on a server, as a context manager; leaving it ends the session politely.

    One thread may send frames while another reads events.
    """

    def __init__(
        self,
        session: AsyncSession,
        background: Background,
        client: object,  # lives as long as the session does
    ) -> None:
        self._session = session
        self._background = background
        self._client = client

    @property
    def session_id(self) -> str:
        """Names the session, for whoever continues it."""
        return self._session.session_id

    @property
    def resume_token(self) -> str:
        """Proves that whoever continues the session may."""
        return self._session.resume_token

    @property
    def next_frame(self) -> int:
        """Index of the next frame that is sent; above 0 at the start of a session that is continued."""
        return self._session.next_frame

    @property
    def progress(self) -> Progress:
        """How far the frames have come."""
        return self._session.progress

    def __enter__(self) -> Session:
        """The session is open.

        Raises:
            FlashSDError: the server cannot be reached, or refuses.
        """
        self._background.call(self._session.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def send(
        self,
        frame: Source,  # pixels [H, W, 3] uint8, a path, or the bytes of a picture file
        timestamp_s: float | None = None,  # video time, not decreasing; None: the server counts
    ) -> None:
        """The frame is on its way; waits while the server is behind by as many frames as it allows.

        Raises:
            FlashSDError: the frame cannot be sent, or the session is over.
        """
        self._background.call(self._session.send(frame, timestamp_s))

    def ask(
        self,
        prompt: str = "",  # empty: the session's
        *,
        sampling: SamplingParams | None = None,  # None: the session's
        keep_history: bool = False,  # later questions see this question and its answer
    ) -> Generator[AnswerEvent, None, None]:
        """The events of the answer to a question about the frames sent so far, asked when the first is waited for.

        Closing the generator cancels the question. It is asked again on a new connection only while no text was given.

        Raises:
            FlashSDError: the question was refused, its answer was cut off, or the session is over.
        """
        yield from self._background.iterate(self._session.ask(prompt, sampling=sampling, keep_history=keep_history))

    def answer(
        self, prompt: str = "", *, sampling: SamplingParams | None = None, keep_history: bool = False
    ) -> AnswerFinished:
        """The whole answer to a question about the frames sent so far; takes and raises what ``ask`` does."""
        return self._background.call(self._session.answer(prompt, sampling=sampling, keep_history=keep_history))

    def set_prompt(self, prompt: str) -> None:
        """From here on the session asks this.

        Raises:
            FlashSDError: the session is over.
        """
        self._background.call(self._session.set_prompt(prompt))

    def end(self) -> None:
        """The server knows that nothing more will be sent; what is open it still answers.

        Raises:
            FlashSDError: the session is over.
        """
        self._background.call(self._session.end())

    def events(self) -> Generator[SessionEvent, None, None]:
        """What the server says by itself: captions of the modes that make them, refused frames, the close.

        Raises:
            FlashSDError: the session is lost.
        """
        yield from self._background.iterate(self._session.events())

    def close(self) -> None:
        """The session is over: open questions are cancelled, and the server was told."""
        self._background.call(self._session.close())
