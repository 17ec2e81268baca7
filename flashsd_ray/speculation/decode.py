"""The whole of speculative decoding on one screen; the oracle for everything distributed.

Prefill is verifying an empty block, and plain decoding is this loop with a drafter that never drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter

from flashsd_ray.speculation.interfaces import Drafter, Target
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.speculation.stopping import Detokenize, Emission, StopRules
from flashsd_ray.types import DraftBlock, EncodedPrompt, FinishReason, SamplingParams, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended, and what it took."""

    token_ids: tuple[int, ...]
    text: str  # empty without a detokenizer
    finish_reason: FinishReason
    stats: SpeculationStats


def decode(
    request_id: str,
    prompt: EncodedPrompt,
    sampling: SamplingParams,
    target: Target,
    drafter: Drafter,
    *,
    eos_token_ids: Iterable[int] = (),
    draft_length: int | None = None,  # most tokens drafted per round; None: as many as the drafter can
    detokenize: Detokenize | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Generator[tuple[int, ...], None, Outcome]:
    """Yields the tokens that each verify pass commits; returns the outcome when the request is done.

    Raises:
        OverloadedError: the target has no room now.
        InvalidRequestError: the request needs too much room, or stop strings come without a detokenizer.
    """
    rules = StopRules(sampling, eos_token_ids, detokenize)
    max_length = drafter.max_draft_length if draft_length is None else min(draft_length, drafter.max_draft_length)
    max_rows = len(prompt) + sampling.max_new_tokens
    emissions: list[Emission] = []
    stats = SpeculationStats()
    with ExitStack() as opened:
        target.open(request_id, prompt, sampling, max_rows)
        opened.callback(target.close, request_id)
        drafter.open(request_id, prompt, sampling, max_rows)
        opened.callback(drafter.close, request_id)
        block, drafted_s = DraftBlock(request_id=request_id, round=0, start=len(prompt)), 0.0
        while True:
            began_s = clock()
            (verdict,) = target.verify([block])
            verified_s = clock() - began_s
            emissions.append(rules.commit(verdict.token_ids))
            stats += _round_totals(block, verdict, emissions[-1], drafted_s, verified_s)
            yield emissions[-1].token_ids
            if rules.finish_reason is not None:
                break
            began_s = clock()
            # The last token that may be committed is the target's own, so drafting it would be in vain.
            (block,) = drafter.propose(target.tapped([verdict]), [min(max_length, rules.remaining - 1)])
            drafted_s = clock() - began_s
    token_ids = tuple(token_id for emission in emissions for token_id in emission.token_ids)
    text = "".join(emission.text for emission in emissions)
    return Outcome(token_ids=token_ids, text=text, finish_reason=rules.finish_reason, stats=stats)


def run_to_end(rounds: Generator[tuple[int, ...], None, Outcome]) -> Outcome:
    """The outcome of a decode whose rounds are of no interest."""
    while True:
        try:
            next(rounds)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def _round_totals(
    block: DraftBlock, verdict: Verdict, emission: Emission, drafted_s: float, verified_s: float
) -> SpeculationStats:
    if block.round == 0:
        return SpeculationStats.of_prefill() + SpeculationStats.of_stage("prefill", verified_s)
    round_stats = RoundStats(
        num_draft_tokens=len(block.token_ids),
        num_accepted_tokens=verdict.num_accepted,
        num_new_tokens=len(emission.token_ids),
    )
    times = {"draft": drafted_s, "verify": verified_s, "decode": drafted_s + verified_s}
    totals = SpeculationStats.of_round(round_stats)
    return sum((SpeculationStats.of_stage(stage, seconds) for stage, seconds in times.items()), totals)
