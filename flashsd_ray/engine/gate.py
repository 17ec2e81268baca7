"""What a lane has learnt about drafting: how long its rounds take, and what requests have shown."""

from __future__ import annotations

from collections.abc import Sequence

from flashsd_ray.engine.cohorts import Drafted, Running
from flashsd_ray.speculation.draft_length import (
    LengthInputs,
    LengthParams,
    LengthState,
    choose_length,
    observe_verdict,
)
from flashsd_ray.speculation.round_costs import RoundCosts, observe_round
from flashsd_ray.types import DraftBlock, SamplingParams, Verdict


class Gate:
    """Says how far to draft; speculation/draft_length.py decides, this remembers what it decides by."""

    def __init__(
        self,
        max_length: int,  # most tokens the drafter can draft
        fixed_length: int | None = None,  # where a request does not ask for another; None: as far as pays
    ) -> None:
        self._usual = LengthParams(max_length=max_length)
        self._fixed_length = fixed_length
        # By whether all requests of a round are greedy: drawing tokens costs time for each row, and tells nothing of others.
        self._costs = {True: RoundCosts(), False: RoundCosts()}
        # What requests have shown so far, greedy and sampled ones apart: a new one begins there.
        self._shown = {True: LengthState(), False: LengthState()}

    def params_for(
        self,
        asked: int | None,  # the draft length of the request, if it has one
    ) -> LengthParams:
        """The limits of a request."""
        fixed = self._fixed_length if asked is None else asked
        return LengthParams(max_length=self._usual.max_length, fixed_length=fixed)

    def first_state(self, sampling: SamplingParams) -> LengthState:
        """What a new request is taken for."""
        return self._shown[sampling.is_greedy].successor()

    def inputs(
        self,
        running: Sequence[Running],  # whom the next round drafts for
        lane_round: int,
    ) -> LengthInputs:
        """What the next round looks like."""
        return LengthInputs(
            lane_round=lane_round,
            num_running=len(running),
            num_unread=sum(one.has_untold_prompt for one in running),
            costs=self._costs[_are_greedy(running)],
        )

    def length_for(self, running: Running, inputs: LengthInputs) -> int:
        """Tokens to draft for the request."""
        # The last token that may be committed is the target's own, so drafting it would be in vain.
        return min(choose_length(inputs, running.length_state, running.lengths), running.rules.remaining - 1)

    def learn(self, running: Running, num_accepted: int) -> None:
        """The verdict on its block is in what the request, and all of its kind, have shown."""
        num_drafted, is_greedy = len(running.block.token_ids), running.request.sampling.is_greedy
        if not num_drafted:
            return  # says nothing, and in plain decoding every microsecond counts
        running.length_state = observe_verdict(running.length_state, num_drafted, num_accepted, running.lengths)
        self._shown[is_greedy] = observe_verdict(
            self._shown[is_greedy], num_drafted, num_accepted, running.lengths, is_pooled=True
        )

    def observe(
        self,
        drafted: Drafted,
        judged: Sequence[Running],  # no prompts among them
        blocks: Sequence[DraftBlock],  # of each
        verdicts: Sequence[Verdict],
        *,
        draft_s: float,
        verify_s: float,
    ) -> None:
        """What the round took is in the costs."""
        are_greedy = _are_greedy(judged)
        self._costs[are_greedy] = observe_round(
            self._costs[are_greedy],
            num_running=len(blocks),
            num_asked=drafted.num_asked,
            num_drafted=drafted.num_drafted,
            num_rows=sum(len(block.token_ids) + 1 for block in blocks),
            num_committed=sum(len(verdict.token_ids) for verdict in verdicts),
            draft_s=draft_s - drafted.reading_s,
            verify_s=verify_s,
            num_read=drafted.num_read,
            reading_s=drafted.reading_s,
        )


def _are_greedy(running: Sequence[Running]) -> bool:
    return all(one.request.sampling.is_greedy for one in running)
