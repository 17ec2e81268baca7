"""Clients of both edges, as users have them: each tries again what may pass, and keeps what it was told meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from flashsd_ray.bench.chaos.oracle import RETRIABLE, Said
from flashsd_ray.bench.chaos.work import FRAMES_PER_SECOND, QUESTIONS, Work, halves, live_frames, live_sampling
from flashsd_ray.bench.serving.asks import BROKEN, Outcome
from flashsd_ray.bench.serving.http_asker import HttpAsker
from flashsd_ray.client import AnswerDelta, AnswerFinished, AsyncClient, Image, Piece, Retries, Video
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError

ATTEMPTS = 40
LONGEST_WAIT_S = 3.0
LIVE_ATTEMPTS = 5
SESSION_LOST = frozenset(("NOT_FOUND", "UNAVAILABLE"))
PROXY_ERROR = "Internal Server Error"  # Serve's proxy, of a replica that died; this package's errors are JSON
RETRIES = Retries(attempts=ATTEMPTS, first_s=0.1, longest_s=LONGEST_WAIT_S)


@dataclass(slots=True)
class Ended:
    """What one request came to."""

    code: str = "OK"
    detail: str = ""
    said: list[Said] = field(default_factory=list)  # of the last attempt
    began: list[Said] = field(default_factory=list)  # beginnings of answers that broke off before it
    num_attempts: int = 1


class Clients:
    """One client for each way; all of them live as long as the load."""

    def __init__(self, http_url: str, grpc_address: str, config: Config) -> None:
        self._http = HttpAsker(http_url)
        self._grpc = AsyncClient(grpc_address, retries=RETRIES)
        self._config = config

    async def open(self) -> None:
        """Both edges answer.

        Raises:
            FlashSDError: one of them does not.
        """
        await self._http.open()
        await self._grpc.model()

    async def close(self) -> None:
        """No connection is open."""
        await self._http.close()
        await self._grpc.close()

    async def ask(self, work: Work, now: Callable[[], float]) -> Ended:
        """The request has ended, for good or after many attempts."""
        if work.way == "http":
            return await self._ask_http(work, now)
        return await (self._ask_live(work) if work.way == "live" else self._ask_grpc(work))

    async def _ask_http(self, work: Work, now: Callable[[], float]) -> Ended:
        ended = Ended()
        for attempt in range(ATTEMPTS):
            outcome = _as_clients_see(await self._http.ask(work.ask, now))
            ended.code, ended.detail, ended.num_attempts = outcome.code, outcome.detail, attempt + 1
            told = Said(text=outcome.text, token_ids=outcome.token_ids, finish_reason=outcome.finish_reason)
            if outcome.is_answered or ended.code not in RETRIABLE:
                ended.said = [told] if outcome.is_answered else []
                break
            ended.began.append(told)
            await asyncio.sleep(random.uniform(0.1, min(LONGEST_WAIT_S, 0.2 * 2**attempt)))
        return ended

    async def _ask_grpc(self, work: Work) -> Ended:
        ask, pieces = work.ask, list[Piece]()
        picture = Video(ask.picture) if ask.kind == "video" else Image(ask.picture)
        ended = Ended()
        try:
            async with aclosing(self._grpc.stream(picture, ask.prompt, sampling=ask.sampling)) as answer:
                async for piece in answer:
                    pieces.append(piece)
        except FlashSDError as error:
            ended.code, ended.detail = error.grpc_status, str(error)
        token_ids = tuple(token_id for piece in pieces for token_id in piece.token_ids)
        reason = pieces[-1].finish_reason if pieces else None
        told = Said(
            text="".join(piece.text for piece in pieces),
            token_ids=token_ids,
            finish_reason=reason.value if reason else "",
        )
        (ended.said if ended.code == "OK" else ended.began).append(told)
        return ended

    async def _ask_live(self, work: Work) -> Ended:
        """A session that is lost for good, as when Redis forgot it, is opened anew, as a user would do it."""
        began: list[Said] = []
        for attempt in range(LIVE_ATTEMPTS):
            ended = await self._watch(work)
            ended.num_attempts = attempt + 1
            if ended.code not in SESSION_LOST:
                break
            began += ended.said
            ended.said = []
            await asyncio.sleep(random.uniform(0.1, LONGEST_WAIT_S))
        ended.began = began
        return ended

    async def _watch(self, work: Work) -> Ended:
        ended, ask = Ended(), work.ask
        frames = live_frames(ask, self._config)
        told: list[AnswerDelta | AnswerFinished] = []
        try:
            async with self._grpc.watch(sampling=live_sampling(ask)) as session:
                sent = 0
                for stop, question in zip(halves(len(frames)), QUESTIONS, strict=True):
                    for index in range(sent, stop):
                        await session.send(frames[index], index / FRAMES_PER_SECOND)
                    sent, told = stop, []
                    async with aclosing(session.ask(question)) as events:
                        async for event in events:
                            if isinstance(event, (AnswerDelta, AnswerFinished)):
                                told.append(event)
                    ended.said.append(_said(told))
        except FlashSDError as error:
            ended.code, ended.detail = error.grpc_status, f"{type(error).__name__}: {error}"
            if len(ended.said) < len(QUESTIONS):
                ended.said.append(_said(told))
        return ended


def _as_clients_see(outcome: Outcome) -> Outcome:
    is_proxy = outcome.code == "500" and outcome.detail == PROXY_ERROR
    return replace(outcome, code=BROKEN) if is_proxy else outcome


def _said(events: Sequence[AnswerDelta | AnswerFinished]) -> Said:
    """An answer as its pieces tell it; where its end tells another text, that is what is judged."""
    deltas = [event for event in events if isinstance(event, AnswerDelta)]
    last = events[-1] if events else None
    text = "".join(delta.text for delta in deltas)
    reason = last.finish_reason.value if isinstance(last, AnswerFinished) else ""
    if isinstance(last, AnswerFinished) and last.text != text:
        text = f"{text} / {last.text}"
    return Said(text=text, token_ids=tuple(one for delta in deltas for one in delta.token_ids), finish_reason=reason)
