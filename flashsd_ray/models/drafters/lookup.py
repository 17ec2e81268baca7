"""Drafts by looking back: what followed the last words when they came before, in the prompt or in the answer.

Source: prompt lookup decoding (A. Saxena, 2023), also known as n-gram speculation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from flashsd_ray.errors import InvalidRequestError, StaleBlockError, UnknownRequestError
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.registry import register
from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict

LONGEST_MATCH = 4  # longer matches are no better a guess
SHORTEST_MATCH = 2  # one word alone says too little


@dataclass(slots=True, eq=False)
class _History:
    """The text of one request and where each of its n-grams ended last."""

    committed: int  # tokens, visual placeholders included
    token_ids: list[int] = field(default_factory=list)  # placeholders left out
    ends: dict[tuple[int, ...], int] = field(default_factory=dict)  # n-gram -> index behind it
    last: Verdict | None = None

    def extend(self, token_ids: Sequence[int]) -> None:
        """The tokens are part of the text; n-grams that end before its last token can be found."""
        for token_id in token_ids:
            end = len(self.token_ids)
            for size in range(SHORTEST_MATCH, min(LONGEST_MATCH, end) + 1):
                self.ends[tuple(self.token_ids[end - size : end])] = end
            self.token_ids.append(token_id)

    def continuation(self, length: int) -> tuple[int, ...]:
        """What followed the longest known n-gram that the text ends with."""
        for size in range(min(LONGEST_MATCH, len(self.token_ids)), SHORTEST_MATCH - 1, -1):
            end = self.ends.get(tuple(self.token_ids[-size:]))
            if end is not None:
                return tuple(self.token_ids[end : end + length])
        return ()


@register("lookup")
class LookupDrafter(FreeDrafter):
    """Continues as the text continued before; needs no training and no taps."""

    max_draft_length = 8

    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The prompt's text can be looked up.

        Raises:
            InvalidRequestError: the id is in use.
        """
        if request_id in self._histories:
            raise InvalidRequestError(f"request {request_id} is open already")
        visual = {position for segment in prompt.segments for position in range(segment.start, segment.stop)}
        history = _History(committed=len(prompt))
        history.extend([token_id for position, token_id in enumerate(prompt.token_ids) if position not in visual])
        self._histories[request_id] = history

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        """One block for each verdict; empty where nothing like it came before.

        Raises:
            UnknownRequestError: a request is not open.
            StaleBlockError: a verdict does not continue the one before it.
        """
        return [self._propose(verdict, length) for verdict, length in zip(verdicts, lengths, strict=True)]

    def _propose(self, verdict: Verdict, length: int) -> DraftBlock:
        history = self._histories.get(verdict.request_id)
        if history is None:
            raise UnknownRequestError(f"request {verdict.request_id} is not open at this drafter")
        last = history.last
        if last is None or (verdict.round, verdict.start) != (last.round, last.start):
            if verdict.start != history.committed:
                raise StaleBlockError(
                    f"{verdict.request_id}: verdict starts at {verdict.start}, {history.committed} tokens are committed"
                )
            history.extend(verdict.token_ids)
            history.committed = verdict.next_start
            history.last = verdict
        length = min(length, self.max_draft_length)
        return DraftBlock(
            request_id=verdict.request_id,
            round=verdict.round + 1,
            start=verdict.next_start,
            token_ids=history.continuation(length) if length > 0 else (),
        )

    def close(self, request_id: str) -> None:
        """The history is forgotten; closing twice is allowed."""
        self._histories.pop(request_id, None)
