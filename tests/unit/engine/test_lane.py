"""The lane over weightless parts: no answer is lost, doubled or changed by who else is there, and no row leaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flashsd_ray.config import Config, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.answers import Chunk, joined
from flashsd_ray.engine.gate import Gate
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import InvalidRequestError, OverloadedError
from flashsd_ray.speculation.decode import decode, run_to_end
from flashsd_ray.types import (
    CaptionRequest,
    Conversation,
    DraftBlock,
    EncodedPrompt,
    FinishReason,
    SamplingParams,
    Verdict,
)
from tests.fakes import NullDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt

VOCABULARY = 6
EOS = 5
LOGITS = seeded_logits(VOCABULARY, seed=4)


class LetterEncoder:
    """Each letter of the conversation is a token; pictures are passed over."""

    def encode(self, conversation: Conversation) -> EncodedPrompt:
        text = "".join(part for turn in conversation.turns for part in turn.parts if isinstance(part, str))
        if "!" in text:
            raise InvalidRequestError("this prompt cannot be encoded")
        return token_prompt([ord(letter) % (VOCABULARY - 1) for letter in text])


class Clock:
    """Every look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.001
        return self.now_s


def noise(history: tuple[int, ...], length: int) -> list[int]:
    """Drafts that are right now and then."""
    return [int(LOGITS(history).argmax()) if sum(history) % 3 else 2] + [(len(history) + i) % 5 for i in range(length)]


def new_lane(target: TableTarget, *, prompts_apart: bool = False, **scheduling: int) -> Lane:
    limits = SchedulingConfig(**{"max_running": 3, "max_waiting": 5, "prefill_rows": 4, **scheduling})
    config = Config(scheduling=limits, speculation=SpeculationConfig(draft_length=3))
    drafter, clock = ScriptDrafter(noise, 4), Clock()
    return Lane(
        LetterEncoder(), target, drafter, config, eos_token_ids=(EOS,), prompts_apart=prompts_apart, clock=clock
    )


def expected(request: CaptionRequest) -> tuple[int, ...]:
    prompt = LetterEncoder().encode(request.conversation)
    alone = decode("oracle", prompt, request.sampling, TableTarget(LOGITS), NullDrafter(), eos_token_ids=(EOS,))
    return run_to_end(alone).token_ids


class LaneMachine(RuleBasedStateMachine):
    """Submits, cancels and steps in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.target = TableTarget(LOGITS, max_rows=60)
        self.lane = new_lane(self.target)
        self.requests: dict[str, CaptionRequest] = {}
        self.chunks: dict[str, list[Chunk]] = {}
        self.ended: set[str] = set()

    @rule(
        prompt=st.text("abcde!", min_size=1, max_size=14),
        budget=st.integers(1, 12),
        temperature=st.sampled_from([0.0, 0.8]),
        seed=st.integers(0, 3),
    )
    def submit(self, prompt: str, budget: int, temperature: float, seed: int) -> None:
        sampling = SamplingParams(max_new_tokens=budget, temperature=temperature, seed=seed)
        request = CaptionRequest(request_id=f"r{len(self.requests)}", prompt=prompt, sampling=sampling)
        try:
            self.lane.submit(request)
        except OverloadedError:
            assert self.lane.num_waiting == 5
            return
        self.requests[request.request_id] = request
        self.chunks[request.request_id] = []

    @precondition(lambda self: self.requests)
    @rule(pick=st.integers(0, 100))
    def cancel(self, pick: int) -> None:
        request_id = list(self.requests)[pick % len(self.requests)]
        chunk = self.lane.cancel(request_id)
        assert (chunk is None) == (request_id in self.ended)
        if chunk is not None:
            self.receive(chunk)

    @rule()
    def step(self) -> None:
        for chunk in self.lane.step():
            self.receive(chunk)

    def receive(self, chunk: Chunk) -> None:
        assert chunk.request_id not in self.ended
        self.chunks[chunk.request_id].append(chunk)
        if chunk.finish_reason is not None:
            self.ended.add(chunk.request_id)
            self.check(chunk.request_id, chunk.finish_reason)

    def check(self, request_id: str, reason: FinishReason) -> None:
        request, chunks = self.requests[request_id], self.chunks[request_id]
        if "!" in request.prompt and reason is FinishReason.ERROR:
            with pytest.raises(InvalidRequestError, match="cannot be encoded"):
                joined(chunks)
            return
        tokens = tuple(token_id for chunk in chunks for token_id in chunk.token_ids)
        if reason is FinishReason.CANCELLED:
            assert tokens == expected(request)[: len(tokens)] if "!" not in request.prompt else not tokens
            return
        assert tokens == expected(request)
        stats = joined(chunks).stats
        assert stats.num_new_tokens == len(tokens)
        assert stats.seconds["prefill"] > 0

    @invariant()
    def limits_hold(self) -> None:
        assert self.lane.num_running <= 3
        assert self.lane.num_waiting <= 5
        assert len(self.target.sessions) == self.lane.num_running

    def teardown(self) -> None:
        for _ in range(400):
            if self.lane.is_idle:
                break
            self.step()
        assert self.lane.is_idle
        assert self.ended == self.requests.keys()
        assert self.target.free_rows == 60


TestLane = LaneMachine.TestCase
TestLane.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class PromptsApart(LaneMachine):
    """The same where prompts have a forward of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = new_lane(self.target, prompts_apart=True)


TestPromptsApart = PromptsApart.TestCase
TestPromptsApart.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(("apart", "num_learned"), [(True, 2), (False, 1)])
def test_what_drafts_cost_is_learned_beside_prompts_only_where_these_are_apart(apart: bool, num_learned: int) -> None:
    lane = new_lane(TableTarget(LOGITS), prompts_apart=apart)
    seen: list[int] = []
    lane._gate.observe = lambda drafted, *_, **__: seen.append(drafted.num_asked)  # type: ignore[method-assign]
    endless = SamplingParams(max_new_tokens=40, ignore_eos=True)
    lane.submit(CaptionRequest(request_id="a", prompt="ab", sampling=endless))
    for _ in range(2):
        lane.step()  # its prompt, then drafts
    lane.submit(CaptionRequest(request_id="b", prompt="ab", sampling=endless))
    lane.step()  # drafts of one, the prompt of the other
    assert len(seen) == num_learned


def test_limits_are_named_in_the_refusal() -> None:
    lane = new_lane(TableTarget(LOGITS), max_new_tokens=8)
    with pytest.raises(InvalidRequestError, match=r"scheduling\.max_new_tokens allows 8"):
        lane.submit(CaptionRequest(request_id="a", prompt="a", sampling=SamplingParams(max_new_tokens=9)))
    lane.submit(CaptionRequest(request_id="a", prompt="a", sampling=SamplingParams(max_new_tokens=8)))
    with pytest.raises(InvalidRequestError, match="already"):
        lane.submit(CaptionRequest(request_id="a", prompt="a", sampling=SamplingParams(max_new_tokens=8)))


class NotedDrafter(ScriptDrafter):
    """Remembers what it was told, and when."""

    def __init__(self) -> None:
        super().__init__(noise, 4)
        self.told: list[tuple[int, int, int]] = []  # round, tokens, draft length

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        self.told += [(v.round, len(v.token_ids), length) for v, length in zip(verdicts, lengths, strict=True)]
        return super().propose(verdicts, lengths)


def run_noted(monkeypatch: pytest.MonkeyPatch, speaks: Callable[[int], bool]) -> NotedDrafter:
    """One answer of twelve tokens; drafts are asked for in the rounds that ``speaks`` names."""
    monkeypatch.setattr(Gate, "length_for", lambda self, running, inputs: 2 * speaks(inputs.lane_round))
    drafter = NotedDrafter()
    lane = Lane(LetterEncoder(), TableTarget(LOGITS), drafter, Config(), eos_token_ids=(EOS,), clock=Clock())
    sampling = SamplingParams(max_new_tokens=12, ignore_eos=True)
    request = CaptionRequest(request_id="r", prompt="abc", sampling=sampling)
    lane.submit(request)
    chunks = []
    while not lane.is_idle:
        chunks += lane.step()
    assert joined(chunks).token_ids == expected(request)
    return drafter


def test_a_drafter_that_is_not_asked_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drafter = run_noted(monkeypatch, lambda lane_round: False)
    assert drafter.told == []


def test_a_drafter_that_is_asked_late_is_told_everything_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drafter = run_noted(monkeypatch, lambda lane_round: lane_round == 6)
    assert drafter.told == [(0, 1, 0), (5, 5, 2)]


def test_the_gate_learns_what_reading_prompts_took(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(NotedDrafter, "prompt_s", 0.5, raising=False)
    monkeypatch.setattr(
        Gate, "observe", lambda self, drafted, *_, **__: seen.append((drafted.num_read, drafted.reading_s))
    )
    run_noted(monkeypatch, lambda lane_round: lane_round in (3, 5))
    assert [one for one in seen if one != (0, 0.0)] == [(1, 0.5), (0, 0.5)]


def test_a_drafter_that_is_asked_from_the_start_gets_its_prompt_with_the_first_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drafter = run_noted(monkeypatch, lambda lane_round: lane_round in (1, 2))
    assert drafter.told[0] == (0, 1, 2)
    assert [length for _, _, length in drafter.told] == [2, 2]
