"""What one round of continuous batching forwards: every decoding request, and prompts in chunks beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one admitted request stands before a round."""

    request_id: str
    num_committed: int  # tokens, prompt included
    num_cached: int  # positions in the target's cache

    @property
    def missing(self) -> int:
        """Positions to forward before a draft can be judged: 1, the anchor, once the prompt is cached."""
        return self.num_committed - self.num_cached


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The work of one forward."""

    verify: tuple[str, ...]  # requests whose block is judged
    fill: tuple[tuple[str, int], ...]  # requests of which only the positions below a limit are cached


def plan_round(
    standings: Sequence[Standing],  # in order of admission
    prefill_rows: int,  # most prompt positions per round
) -> RoundPlan:
    """Every decoding request is judged; prompts share ``prefill_rows`` in order of admission.

    A long prompt thus delays the others by one chunk per round and never stops them, and the first one admitted
    always advances.
    """
    verify, fill = [], []
    budget = prefill_rows
    for standing in standings:
        if standing.missing <= 1:
            verify.append(standing.request_id)
        elif standing.missing <= budget:
            verify.append(standing.request_id)
            budget -= standing.missing
        elif budget > 0:
            fill.append((standing.request_id, standing.num_cached + budget))
            budget = 0
    return RoundPlan(tuple(verify), tuple(fill))
