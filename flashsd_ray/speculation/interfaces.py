"""What the loop of speculative decoding asks of its three parts, wherever they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from flashsd_ray.types import Conversation, DraftBlock, EncodedPrompt, Fill, SamplingParams, Verdict


class Encoder(Protocol):
    """Turns a conversation and its pictures into rows for the target's language model."""

    def encode(self, conversation: Conversation) -> EncodedPrompt:
        """The conversation with visual features in place.

        Raises:
            InvalidRequestError: the model cannot take this combination of text and pictures.
        """
        ...


class Target(Protocol):
    """Holds the KV cache of every open request and judges draft blocks."""

    def open(
        self,
        request_id: str,
        prompt: EncodedPrompt,
        sampling: SamplingParams,
        max_rows: int,  # positions to reserve: prompt and everything that may be emitted
    ) -> int:
        """Rows are reserved for the request; returns how many of its prompt positions are cached already.

        Raises:
            OverloadedError: not enough cache rows are free now.
            InvalidRequestError: the request needs more rows than the cache has.
        """
        ...

    def verify(self, blocks: Sequence[DraftBlock], fills: Sequence[Fill] = ()) -> list[Verdict]:
        """Every fill is cached and every block is judged, in one forward; verdicts in the order of the blocks.

        A block first brings the cache up to its anchor, whatever is missing: prefill is verifying an empty block.
        Repeating the last block of a request returns its verdict again and changes nothing.

        Raises:
            UnknownRequestError: a request is not open.
            StaleBlockError: a block does not start where its request stands.
        """
        ...

    def tapped(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """The verdicts as a drafter wants them: with the taps of the rows that they brought into the cache.

        A verdict may be an old one, and stand for several that followed each other.

        Raises:
            UnknownRequestError: a request is not open.
        """
        ...

    def close(self, request_id: str) -> None:
        """The request's rows are free (its prefix may stay cached); closing twice is allowed."""
        ...


class Drafter(Protocol):
    """Proposes draft blocks from what the target committed."""

    tap_layers: tuple[int, ...]  # of the target, numbered as transformers' hidden_states; empty: it needs no taps
    tap_width: int  # E, of a fused row

    def fuse(self, taps: Tensor) -> Tensor:  # [m, M * D] -> [m, E]
        """The rows that verdicts shall carry; called where the taps are made."""
        ...

    @property
    def max_draft_length(self) -> int:
        """Most tokens it can draft in one round; 0 for a drafter that never drafts."""
        ...

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The drafter is ready for the first verdict of the request."""
        ...

    def propose(
        self,
        verdicts: Sequence[Verdict],
        lengths: Sequence[int],  # most tokens to draft for each verdict
    ) -> list[DraftBlock]:
        """One block for each verdict, continuing its committed tokens; a block may be shorter than asked."""
        ...

    def close(self, request_id: str) -> None:
        """Everything held for the request is free; closing twice is allowed."""
        ...


@runtime_checkable
class PromptReader(Protocol):
    """A drafter that reads a request's prompt when it is to draft for it for the first time."""

    prompt_s: float  # what reading prompts took in the last ``propose``: a cost of requests, not of drafts


class Pending(Protocol):
    """Blocks that are being made."""

    def blocks(self) -> list[DraftBlock]:
        """One block for each verdict, as ``propose`` returns them; waits until they are there."""
        ...


@runtime_checkable
class PipelinedDrafter(Drafter, Protocol):
    """A drafter that works while its caller does something else."""

    def begin(
        self,
        verdicts: Sequence[Verdict],
        lengths: Sequence[int],  # most tokens to draft for each verdict
    ) -> Pending:
        """The drafter has its order; ``propose`` is this and waiting for the blocks."""
        ...
