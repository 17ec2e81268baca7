"""What a lane and a drafter in another process say to each other.

The lane speaks first, with a card. Orders are carried out one after the other; of these only a draft order is answered,
so opening and closing cost no round trip, and any number of orders may be under way.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashsd_ray.errors import FlashSDError
from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict
from flashsd_ray.wire.codec import register


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterCard:
    """Who drafts for whom: both ends must say the same, or drafts would be in vain."""

    target: str  # fingerprint
    kind: str
    compressor: str
    tap_layers: tuple[int, ...]
    tap_width: int
    max_draft_length: int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """The drafter shall be ready for the first verdict of a request; not answered."""

    request_id: str
    prompt: EncodedPrompt  # without rows that the drafter does not read
    sampling: SamplingParams
    max_rows: int


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DraftOrder:
    """Blocks shall follow these verdicts; answered with the same number."""

    number: int
    verdicts: tuple[Verdict, ...]
    lengths: tuple[int, ...]  # most tokens to draft for each verdict


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """Everything held for a request shall be free; not answered."""

    request_id: str


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the drafter did not open: no block is made for it."""

    request_id: str
    error: FlashSDError


@register
@dataclass(frozen=True, slots=True, kw_only=True)
class DraftAnswer:
    """What came of a draft order."""

    number: int
    blocks: tuple[DraftBlock, ...] = ()  # in the order of the verdicts, those of refused requests left out
    refusals: tuple[Refusal, ...] = ()
    error: FlashSDError | None = None  # the whole order failed
