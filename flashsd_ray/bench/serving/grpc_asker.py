"""The client of this package, without its retries: a refusal is an outcome here."""

from __future__ import annotations

from contextlib import aclosing

from flashsd_ray.bench.serving.asks import BROKEN, Ask, Now, Outcome
from flashsd_ray.client import AsyncClient, Image, Piece, Retries, Video
from flashsd_ray.errors import FlashSDError


class GrpcAsker:
    """Asks CaptionStream."""

    def __init__(
        self,
        address: str,  # host:port
        authority: str = "",  # PEM file that the server's certificate is checked against; empty: no TLS
    ) -> None:
        self._client = AsyncClient(address, tls=bool(authority), ca=authority or None, retries=Retries(attempts=1))

    async def open(self) -> None:
        """The server answers, and its limits are known."""
        await self._client.model()

    async def close(self) -> None:
        """No connection is open."""
        await self._client.close()

    async def ask(self, ask: Ask, now: Now) -> Outcome:
        """What became of the request."""
        start_s, pieces_s, pieces = now(), list[float](), list[Piece]()
        picture = Video(ask.picture) if ask.kind == "video" else Image(ask.picture)
        stream = self._client.stream(
            picture, ask.prompt, sampling=ask.sampling, draft_length=ask.draft_length, timeout_s=ask.timeout_s
        )
        try:
            async with aclosing(stream) as answer:
                async for piece in answer:
                    pieces.append(piece)
                    if piece.text:
                        pieces_s.append(now())
        except FlashSDError as error:
            # An answer that has begun may not end with a refusal, except that its time is over.
            code = error.grpc_status if not pieces or error.grpc_status == "DEADLINE_EXCEEDED" else BROKEN
            detail = f"{error.grpc_status}: {error}"
            return Outcome(
                name=ask.name, start_s=start_s, end_s=now(), code=code, detail=detail, pieces_s=tuple(pieces_s)
            )
        return Outcome(
            name=ask.name,
            start_s=start_s,
            end_s=now(),
            pieces_s=tuple(pieces_s),
            text="".join(piece.text for piece in pieces),
            token_ids=tuple(token_id for piece in pieces for token_id in piece.token_ids),
            token_texts=tuple(token.text for piece in pieces for token in piece.logprobs),
            num_tokens=sum(len(piece.token_ids) for piece in pieces),
            finish_reason=pieces[-1].finish_reason.value if pieces and pieces[-1].finish_reason else "",
        )
