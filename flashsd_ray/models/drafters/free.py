"""What drafters without weights have in common: they need no taps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict


class FreeDrafter:
    """A drafter that reads only token ids."""

    tap_layers: tuple[int, ...] = ()
    tap_width: int = 0
    max_draft_length: int = 0

    def fuse(self, taps: Tensor) -> Tensor:  # [m, 0] -> [m, 0]
        """Nothing is tapped."""
        return taps

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The drafter is ready for the first verdict of the request."""
        raise NotImplementedError

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        """One block for each verdict."""
        raise NotImplementedError

    def close(self, request_id: str) -> None:
        """Everything held for the request is free; closing twice is allowed."""
        raise NotImplementedError
