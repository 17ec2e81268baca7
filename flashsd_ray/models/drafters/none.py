"""No speculation: the decode loop with this drafter is plain autoregressive decoding."""

from __future__ import annotations

from collections.abc import Sequence

from flashsd_ray.errors import InvalidRequestError, UnknownRequestError
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.registry import register
from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict


@register("none")
class NoDrafter(FreeDrafter):
    """Always proposes nothing."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The request is known.

        Raises:
            InvalidRequestError: the id is in use.
        """
        if request_id in self._open:
            raise InvalidRequestError(f"request {request_id} is open already")
        self._open.add(request_id)

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        """An empty block for each verdict.

        Raises:
            UnknownRequestError: a request is not open.
        """
        for verdict in verdicts:
            if verdict.request_id not in self._open:
                raise UnknownRequestError(f"request {verdict.request_id} is not open at this drafter")
        return [
            DraftBlock(request_id=verdict.request_id, round=verdict.round + 1, start=verdict.next_start)
            for verdict in verdicts
        ]

    def close(self, request_id: str) -> None:
        """The id is free; closing twice is allowed."""
        self._open.discard(request_id)
