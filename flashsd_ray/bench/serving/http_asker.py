"""OpenAI's interface, spoken by hand: a client library would add its own time and its own retries."""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from flashsd_ray.bench.serving.asks import ANSWERED, BROKEN, Ask, Now, Outcome
from flashsd_ray.bench.serving.sse import EventParser
from flashsd_ray.errors import DeadlineError, UnavailableError

CONNECT_S = 30.0
MIME_TYPES = {"video": "video/mp4", "image": "image/png"}


class HttpAsker:
    """Asks POST /v1/chat/completions for streams."""

    def __init__(
        self,
        url: str,  # ends in /v1
        authority: str = "",  # PEM file that the server's certificate is checked against; empty: the system's
    ) -> None:
        self._url = url
        self._tls = ssl.create_default_context(cafile=authority) if authority else True
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """The server answers.

        Raises:
            UnavailableError: it does not.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._tls), timeout=timeout)
        try:
            async with self._session.get(f"{self._url}/models") as response:
                response.raise_for_status()
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"{self._url}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """No connection is open."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, ask: Ask, now: Now) -> Outcome:
        """What became of the request."""
        assert self._session is not None
        answer = _Answer(ask.name, now)
        headers = {} if ask.timeout_s is None else {"x-request-timeout": f"{ask.timeout_s:g}"}
        try:
            async with self._session.post(f"{self._url}/chat/completions", json=body_of(ask), headers=headers) as reply:
                if reply.status != 200:
                    return answer.refused(str(reply.status), (await reply.text())[:500])
                parser = EventParser()
                async for content in reply.content.iter_any():
                    for data in parser.feed(content):
                        answer.take(data)
        except (aiohttp.ClientError, OSError) as error:
            return answer.refused(BROKEN, f"{type(error).__name__}: {error}")
        return answer.outcome()


def body_of(ask: Ask) -> dict[str, Any]:
    """The request as OpenAI's clients write it."""
    sampling = ask.sampling
    address = f"data:{MIME_TYPES[ask.kind]};base64,{base64.b64encode(ask.picture).decode()}"
    part = {"type": f"{ask.kind}_url", f"{ask.kind}_url": {"url": address}}
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": [part, {"type": "text", "text": ask.prompt}]}],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "ignore_eos": sampling.ignore_eos,
        "return_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if ask.draft_length is not None:
        body["draft_length"] = ask.draft_length
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return body


@dataclass(slots=True)
class _Answer:
    """What has come of one answer."""

    name: str
    now: Now
    start_s: float = field(init=False)
    pieces_s: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    token_texts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    finish_reason: str = ""
    problem: tuple[str, str] | None = None  # code and the server's words, for an answer that broke off
    is_done: bool = False

    def __post_init__(self) -> None:
        self.start_s = self.now()

    def take(self, data: str) -> None:
        """One event has arrived."""
        if data == "[DONE]":
            self.is_done = True
            return
        event = json.loads(data)
        if "error" in event:
            is_late = event["error"]["code"] == "deadline_exceeded"
            self.problem = (str(DeadlineError.http_status) if is_late else BROKEN, event["error"]["message"])
        if event.get("usage"):
            self.num_tokens = event["usage"]["completion_tokens"]
        for choice in event.get("choices", ()):
            self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        text = choice["delta"].get("content")
        if text:
            self.texts.append(text)
            self.pieces_s.append(self.now())
        self.token_ids += choice.get("token_ids", ())
        if choice.get("logprobs"):
            self.token_texts += [token["token"] for token in choice["logprobs"]["content"]]
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def refused(self, code: str, detail: str) -> Outcome:
        """The outcome of a request that has no answer."""
        return Outcome(
            name=self.name,
            start_s=self.start_s,
            end_s=self.now(),
            code=code,
            detail=detail,
            pieces_s=tuple(self.pieces_s),
            text="".join(self.texts),  # that the client has although there is no answer
            token_ids=tuple(self.token_ids),
        )

    def outcome(self) -> Outcome:
        """The outcome of a stream that has ended."""
        if self.problem is not None:
            return self.refused(*self.problem)
        if not (self.is_done and self.finish_reason):
            return self.refused(BROKEN, "the stream ended before the answer")
        return Outcome(
            name=self.name,
            start_s=self.start_s,
            end_s=self.now(),
            code=ANSWERED,
            pieces_s=tuple(self.pieces_s),
            text="".join(self.texts),
            token_ids=tuple(self.token_ids),
            token_texts=tuple(self.token_texts),
            num_tokens=self.num_tokens,
            finish_reason=self.finish_reason,
        )
