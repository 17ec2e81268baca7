"""Continuous batching around one encoder, one target and one drafter.

Requests join and leave between rounds. A round is: take the blocks that were drafted, plan, verify, commit, order the
next blocks. With two cohorts the requests take turns: while the target verifies the blocks of one, a drafter in another
process makes those of the other. The lane knows no model and no process boundary: it sees its three parts through the
protocols of speculation/interfaces.py.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import perf_counter

from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.cohorts import Cohort, Drafted, Drafting, Running, Turns, begin_with, num_cohorts
from flashsd_ray.engine.gate import Gate
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import DeadlineError, FlashSDError, InvalidRequestError, OverloadedError
from flashsd_ray.scheduling.admission import Crowd, ServiceTimes, earliest_answer_s, expected_wait_s, observe_answer
from flashsd_ray.scheduling.rounds import plan_round
from flashsd_ray.speculation.draft_length import trim_to_confidence
from flashsd_ray.speculation.interfaces import Drafter, Encoder, PromptReader, Target
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.speculation.stopping import Detokenize, Emission, StopRules
from flashsd_ray.types import CaptionRequest, DraftBlock, EncodedPrompt, Fill, FinishReason, TokenLogprob, Verdict

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request that has no place yet."""

    request: CaptionRequest
    deadline_s: float  # by the lane's clock
    prompt: EncodedPrompt | None = None  # encoded once, when it is first in the queue, unless it came encoded
    encode_s: float = 0.0
    is_next: bool = False  # it has its place by the word of whoever drives the lane


class Lane:
    """The unit that decodes; drives its parts one round at a time and is driven by calls of ``step``."""

    def __init__(
        self,
        encoder: Encoder | None,  # None: every request comes with its prompt encoded
        target: Target,
        drafter: Drafter,
        config: Config,
        *,
        eos_token_ids: Iterable[int] = (),
        detokenize: Detokenize | None = None,
        prompts_apart: bool = False,  # whether prompts have a forward of their own beside that of drafts
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._encoder = encoder
        self._target = target
        self._drafter = drafter
        self._config = config
        self._eos_token_ids = tuple(eos_token_ids)
        self._detokenize = detokenize
        self._prompts_apart = prompts_apart
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[str, Running] = {}
        self._turns = Turns(num_cohorts(config.placement.cohorts, drafter), self._running)
        self._begin = begin_with(drafter)
        self._reader = drafter if isinstance(drafter, PromptReader) else None  # asked once: such a question is slow
        self._worked_s = 0.0  # inside rounds; time between them belongs to the caller
        self._gate = Gate(drafter.max_draft_length, config.speculation.draft_length or None)
        self._times = ServiceTimes()
        self.meters = LaneMeters()
        self.holds_queue = False  # whether only requests get a place that were submitted as the next
        self.on_open: Callable[[str], None] = lambda request_id: None  # told of each request that gets a place

    @property
    def is_idle(self) -> bool:
        """Whether every submitted request has ended."""
        return not self._waiting and not self._running

    @property
    def is_held(self) -> bool:
        """Whether nothing would run in a round, because the queue is held."""
        return self.holds_queue and not self._running and not (self._waiting and self._waiting[0].is_next)

    @property
    def num_waiting(self) -> int:
        """Requests without a place."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests being prefilled or decoded."""
        return len(self._running)

    @property
    def max_requests(self) -> int:
        """Most requests that run and wait."""
        return self._config.scheduling.max_running + self._config.scheduling.max_waiting

    @property
    def crowd(self) -> Crowd:
        """How busy the lane is."""
        return Crowd(len(self._waiting), len(self._running), self._config.scheduling.max_running)

    @property
    def expected_wait_s(self) -> float:
        """Seconds until a request that arrives now has a place, as far as the answers of late tell."""
        return expected_wait_s(self._times, self.crowd)

    def has_place(self, request_id: str) -> bool:
        """Whether the request is being prefilled or decoded."""
        return request_id in self._running

    def submit(
        self,
        request: CaptionRequest,
        prompt: EncodedPrompt | None = None,
        *,
        encode_s: float = 0.0,
        is_next: bool = False,  # before everybody who came otherwise, and although the queue is held
    ) -> None:
        """The request waits for a place; its answer comes out of later steps.

        Raises:
            InvalidRequestError: the id is in use, or a limit of the configuration is exceeded.
            OverloadedError: too many requests are waiting.
            DeadlineError: its time limit will be over before it can have a first token.
        """
        self._check_limits(request)
        if prompt is None and self._encoder is None:
            raise InvalidRequestError(f"request {request.request_id} comes without its prompt, and nobody encodes here")
        crowd, limits = self.crowd, self._config.scheduling
        if crowd.num_waiting >= limits.max_waiting:
            raise OverloadedError(
                f"{crowd.num_waiting} requests are waiting (scheduling.max_waiting)",
                retry_after_s=max(1.0, self.expected_wait_s),
            )
        timeout_s = request.timeout_s if request.timeout_s is not None else math.inf
        earliest_s = earliest_answer_s(self._times, crowd)
        if crowd.num_running and earliest_s > timeout_s:
            raise DeadlineError(f"the first token would come after {earliest_s:.1f} s, {timeout_s:.1f} s are allowed")
        position = sum(waiting.is_next for waiting in self._waiting) if is_next else len(self._waiting)
        self._waiting.insert(position, _Waiting(request, self._clock() + timeout_s, prompt, encode_s, is_next))

    def _check_limits(self, request: CaptionRequest) -> None:
        scheduling, media = self._config.scheduling, self._config.media
        in_use = {waiting.request.request_id for waiting in self._waiting} | self._running.keys()
        if request.request_id in in_use:
            raise InvalidRequestError(f"request {request.request_id} is submitted already")
        if request.sampling.max_new_tokens > scheduling.max_new_tokens:
            raise InvalidRequestError(
                f"max_new_tokens is {request.sampling.max_new_tokens}, "
                f"scheduling.max_new_tokens allows {scheduling.max_new_tokens}"
            )
        num_visuals = len(request.conversation.visuals)
        if num_visuals > media.max_inputs:
            raise InvalidRequestError(f"{num_visuals} pictures, media.max_inputs allows {media.max_inputs}")
        if request.draft_length is not None and request.draft_length < 0:
            raise InvalidRequestError(f"draft_length must not be negative, got {request.draft_length}")

    def cancel(self, request_id: str) -> Chunk | None:
        """The request has ended and its rows are free; None when it had ended before."""
        for waiting in self._waiting:
            if waiting.request.request_id == request_id:
                self._waiting.remove(waiting)
                self.meters.count_answer(FinishReason.CANCELLED.value)
                return Chunk(request_id=request_id, finish_reason=FinishReason.CANCELLED, stats=SpeculationStats())
        running = self._running.get(request_id)
        if running is None:
            return None
        self._close(request_id, FinishReason.CANCELLED)
        return Chunk(request_id=request_id, finish_reason=FinishReason.CANCELLED, stats=running.stats)

    def step(self) -> list[Chunk]:
        """One round was run: what it added to the answers, and the requests that ended."""
        ended = self._expire() + self._admit()
        if not self._running:
            return ended
        cohort = self._turns.take()
        began_s = self._clock()
        drafted = self._collect(cohort)
        collected_s = self._clock()
        members = self._turns.level(cohort)
        plan = plan_round([running.standing for running in members], self._config.scheduling.prefill_rows)
        chosen = [self._running[request_id] for request_id in plan.verify]
        decoding = [running for running in chosen if running.standing.missing <= 1]
        judged = decoding + [running for running in chosen if running.standing.missing > 1]
        blocks = [running.block for running in judged]
        fills = [Fill(request_id=request_id, stop=stop) for request_id, stop in plan.fill]
        verdicts, alone_s = self._verify(blocks, len(decoding), fills)
        verified_s = self._clock()
        times = {"verify": verified_s - collected_s, "draft": drafted.order_s + collected_s - began_s}
        if alone_s is not None:
            alone = len(decoding)
            known = blocks[:alone], verdicts[:alone]
            self._gate.observe(drafted, decoding, *known, draft_s=times["draft"], verify_s=alone_s)
        self._worked_s += verified_s - began_s
        for fill in fills:
            filling = self._running[fill.request_id]
            filling.num_cached = fill.stop
            filling.stats += SpeculationStats.of_stage("prefill", self._count_time(filling))
        emissions = [running.rules.commit(verdict.token_ids) for running, verdict in zip(judged, verdicts, strict=True)]
        rounds = list(zip(judged, blocks, verdicts, emissions, strict=True))
        self._order(cohort, judged, verdicts)
        ended_s = self._clock()
        self.meters.count_round(len(judged), times | {"decode": ended_s - began_s})
        chunks = [self._account(*one, times) for one in rounds]
        self._worked_s += ended_s - verified_s
        return ended + chunks

    def _verify(
        self,
        blocks: list[DraftBlock],
        num_decoding: int,  # of the blocks; the others bring their prompts along
        fills: list[Fill],
    ) -> tuple[list[Verdict], float | None]:
        """The verdicts; and what those of decoding requests took by themselves, where that is known."""
        began_s = self._clock()
        has_prompts = bool(fills) or num_decoding < len(blocks)
        if has_prompts and not (self._prompts_apart and num_decoding):
            return self._target.verify(blocks, fills), None
        verdicts = self._target.verify(blocks[:num_decoding])
        alone_s = self._clock() - began_s
        if has_prompts:
            verdicts = [*verdicts, *self._target.verify(blocks[num_decoding:], fills)]
        return verdicts, alone_s

    def _collect(self, cohort: Cohort) -> Drafted:
        """Members of the cohort have their blocks."""
        drafting, cohort.drafting = cohort.drafting, None
        if drafting is None or not any(self._is_running(owner) for owner in drafting.owners):
            return Drafted()
        blocks = drafting.pending.blocks()
        for running, block in zip(drafting.owners, blocks, strict=True):
            running.block = trim_to_confidence(block, drafting.inputs, running.lengths)
        num_drafted = sum(len(block.token_ids) for block in blocks)
        return Drafted(drafting.num_asked, num_drafted, drafting.order_s, drafting.num_read, drafting.reading_s)

    def _is_running(self, running: Running) -> bool:
        # Not by its id alone: a request may have ended while its block was drafted, and its id be in use again.
        return self._running.get(running.request.request_id) is running

    def _count_time(self, running: Running) -> float:
        """Working time of the lane since the request was last judged or filled."""
        passed_s, running.counted_s = self._worked_s - running.counted_s, self._worked_s
        return passed_s

    def _expire(self) -> list[Chunk]:
        """Requests whose time is over have ended."""
        now_s = self._clock()
        late = [waiting for waiting in self._waiting if waiting.deadline_s <= now_s]
        for waiting in late:
            self._waiting.remove(waiting)
            self.meters.count_answer("expired")
        over = [running for running in self._running.values() if running.deadline_s <= now_s]
        for running in over:
            self._close(running.request.request_id, "expired")
        chunks = [
            _refusal(waiting.request, DeadlineError("the time was over before a place was free")) for waiting in late
        ]
        for running in over:
            reached = f"after {running.stats.num_new_tokens} tokens"
            chunks.append(_refusal(running.request, DeadlineError(f"the time was over {reached}")))
        return chunks

    def _admit(self) -> list[Chunk]:
        refused = []
        while self._waiting and len(self._running) < self._config.scheduling.max_running:
            waiting = self._waiting[0]
            if self.holds_queue and not waiting.is_next:
                break
            try:
                self._open(waiting)
            except OverloadedError:
                if self._running:
                    break  # those that run will free rows; nobody overtakes, so nobody starves
                raise
            except FlashSDError as error:
                self.meters.count_answer(FinishReason.ERROR.value)
                refused.append(_refusal(waiting.request, error))
            except Exception as error:
                # This request's own fault as far as anybody knows: its neighbours have rows already and go on.
                log.exception("request %s cannot be opened", waiting.request.request_id)
                self.meters.count_answer(FinishReason.ERROR.value)
                failure = FlashSDError(f"the request cannot be opened: {type(error).__name__}")
                refused.append(_refusal(waiting.request, failure))
            self._waiting.popleft()
        return refused

    def _open(self, waiting: _Waiting) -> None:
        request = waiting.request
        rules = StopRules(request.sampling, self._eos_token_ids, self._detokenize)
        if waiting.prompt is None and self._encoder is not None:
            began_s = self._clock()
            waiting.prompt = self._encoder.encode(request.conversation)
            waiting.encode_s = self._clock() - began_s
        prompt = waiting.prompt
        assert prompt is not None  # submit saw to it
        max_rows = len(prompt) + request.sampling.max_new_tokens
        opened_s = self._clock()
        num_cached = self._target.open(request.request_id, prompt, request.sampling, max_rows)
        try:
            self._drafter.open(request.request_id, prompt, request.sampling, max_rows)
        except BaseException:
            self._target.close(request.request_id)
            raise
        self._running[request.request_id] = Running(
            request=request,
            cohort=self._turns.smallest,
            deadline_s=waiting.deadline_s,
            opened_s=opened_s,
            num_prompt_tokens=len(prompt),
            num_found=num_cached,
            rules=rules,
            lengths=self._gate.params_for(request.draft_length),
            block=DraftBlock(request_id=request.request_id, round=0, start=len(prompt)),
            num_cached=num_cached,
            stats=SpeculationStats.of_stage("encode", waiting.encode_s),
            counted_s=self._worked_s,
            length_state=self._gate.first_state(request.sampling),
        )
        self.on_open(request.request_id)
        self.meters.prompt_tokens += len(prompt)
        self.meters.cached_prompt_tokens += num_cached

    def _order(self, cohort: Cohort, judged: list[Running], verdicts: list[Verdict]) -> None:
        """Blocks are ordered for the requests that go on."""
        going_on = [pair for pair in zip(judged, verdicts, strict=True) if pair[0].rules.finish_reason is None]
        if not going_on:
            return
        began_s = self._clock()
        for running, verdict in going_on:
            self._gate.learn(running, verdict.num_accepted)
            running.untold.extend(verdict.token_ids)
            running.block = DraftBlock(request_id=verdict.request_id, round=verdict.round + 1, start=verdict.next_start)
            running.num_cached = verdict.next_start - 1
        inputs = self._gate.inputs([running for running, _ in going_on], cohort.num_rounds)
        lengths = [(running, self._gate.length_for(running, inputs)) for running, _ in going_on]
        asked = {running: length for running, length in lengths if length > 0}
        if not asked:
            return
        num_read = sum(running.has_untold_prompt for running in asked)
        pending = self._begin(self._tell(list(asked)), list(asked.values()))
        cohort.drafting = Drafting(
            list(asked),
            pending,
            inputs,
            order_s=self._clock() - began_s,
            num_asked=sum(asked.values()),
            num_read=num_read,
            reading_s=0.0 if self._reader is None else self._reader.prompt_s,
        )

    def _tell(self, asked: list[Running]) -> list[Verdict]:
        """What the drafter has to know before it drafts: one verdict for each request, of all that it was not told."""
        # A prompt comes with its first token alone.
        late = [running for running in asked if running.has_untold_prompt and len(running.untold) > 1]
        if late:
            self._begin(self._target.tapped([running.tell_prompt() for running in late]), [0] * len(late))
        return self._target.tapped([running.tell() for running in asked])

    def _account(
        self, running: Running, block: DraftBlock, verdict: Verdict, emission: Emission, times: dict[str, float]
    ) -> Chunk:
        """The round stands in the request's totals; a request that ended with it is closed."""
        standing = 0
        if block.round == 0:
            running.first_token_s = self._clock() - running.opened_s
            running.stats += SpeculationStats.of_prefill()
            running.stats += SpeculationStats.of_stage("prefill", self._count_time(running))
        else:
            round_stats = RoundStats(
                num_draft_tokens=len(block.token_ids),
                num_accepted_tokens=verdict.num_accepted,
                num_new_tokens=len(emission.token_ids),
            )
            standing = round_stats.num_standing_tokens
            running.stats += SpeculationStats.of_round(round_stats)
            for stage, seconds in (times | {"decode": self._count_time(running)}).items():
                running.stats += SpeculationStats.of_stage(stage, seconds)
        self.meters.count_block(len(block.token_ids), standing, len(emission.token_ids))
        if emission.finish_reason is not None:
            self._close(block.request_id, emission.finish_reason)
            self._times = observe_answer(self._times, self._clock() - running.opened_s, running.first_token_s)
        return Chunk(
            request_id=block.request_id,
            text=emission.text,
            token_ids=emission.token_ids,
            num_accepted=standing,
            num_drafted=len(block.token_ids),
            finish_reason=emission.finish_reason,
            num_prompt_tokens=running.num_prompt_tokens,
            num_cached_tokens=running.num_found,
            logprobs=self._spelled(verdict.logprobs[: len(emission.token_ids)]),
            stats=running.stats if emission.finish_reason is not None else None,
        )

    def _spelled(self, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        if self._detokenize is None:
            return logprobs
        return tuple(
            replace(token, text=self._detokenize([token.token_id]), top=self._spelled(token.top)) for token in logprobs
        )

    def _close(self, request_id: str, reason: FinishReason | str) -> None:
        del self._running[request_id]
        self._target.close(request_id)
        self._drafter.close(request_id)
        self.meters.count_answer(reason.value if isinstance(reason, FinishReason) else reason)


def _refusal(request: CaptionRequest, error: FlashSDError) -> Chunk:
    return Chunk(request_id=request.request_id, finish_reason=FinishReason.ERROR, error=error)
