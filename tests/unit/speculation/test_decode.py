"""The loop on one screen: rounds, room, budgets, ends and cleaning up."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.errors import InvalidRequestError, OverloadedError
from flashsd_ray.speculation.decode import decode, run_to_end
from flashsd_ray.types import DraftBlock, FinishReason, SamplingParams, Verdict
from tests.fakes import CoupledDrafter, NullDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt

LOGITS = seeded_logits(7, 1)
PROMPT = token_prompt((0, 1, 2))


def perfect(length: int) -> CoupledDrafter:
    """Knows the target."""
    return CoupledDrafter(LOGITS, length)


def test_each_round_commits_a_whole_block_when_the_drafter_knows_the_target() -> None:
    target = TableTarget(LOGITS)
    rounds = list(decode("r", PROMPT, SamplingParams(max_new_tokens=11), target, perfect(4)))
    assert [len(tokens) for tokens in rounds] == [1, 5, 5]
    assert target.num_forwards == 3


def test_plain_decoding_commits_one_token_a_round() -> None:
    rounds = list(decode("r", PROMPT, SamplingParams(max_new_tokens=4), TableTarget(LOGITS), NullDrafter()))
    assert [len(tokens) for tokens in rounds] == [1, 1, 1, 1]


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 6), st.one_of(st.none(), st.integers(0, 8)))
def test_no_round_needs_more_rows_than_were_reserved(budget: int, longest: int, draft_length: int | None) -> None:
    """The target refuses blocks beyond its reservation, and nothing is drafted in vain at the end."""
    target = TableTarget(LOGITS, max_rows=len(PROMPT) + budget)
    sampling = SamplingParams(max_new_tokens=budget)
    outcome = run_to_end(decode("r", PROMPT, sampling, target, perfect(longest), draft_length=draft_length))
    assert len(outcome.token_ids) == budget
    assert outcome.stats.num_draft_tokens + outcome.stats.rounds + 1 == budget


def test_stop_strings_end_inside_a_block() -> None:
    sampling = SamplingParams(max_new_tokens=30)
    letters = "abcdefg"

    def detokenize(token_ids: object) -> str:
        return "".join(letters[token_id] for token_id in token_ids)  # type: ignore[attr-defined]

    whole = run_to_end(decode("r", PROMPT, sampling, TableTarget(LOGITS), NullDrafter(), detokenize=detokenize))
    assert whole.text == detokenize(whole.token_ids)
    stop = whole.text[7:10]
    end = whole.text.index(stop)
    sampling = SamplingParams(max_new_tokens=30, stop=(stop,))
    for drafter in (NullDrafter(), perfect(4)):
        outcome = run_to_end(decode("r", PROMPT, sampling, TableTarget(LOGITS), drafter, detokenize=detokenize))
        assert outcome.text == whole.text[:end]
        assert outcome.token_ids == whole.token_ids[: end + 3]
        assert outcome.finish_reason is FinishReason.STOP


def test_stats_tell_what_happened() -> None:
    ticks = count()
    rounds = decode(
        "r",
        PROMPT,
        SamplingParams(max_new_tokens=11),
        TableTarget(LOGITS),
        perfect(4),
        clock=lambda: float(next(ticks)),
    )
    stats = run_to_end(rounds).stats
    assert stats.as_dict() == {
        "num_new_tokens": 11,
        "tau": 5.0,
        "rounds": 2,
        "accepted_per_position": [2, 2, 2, 2],
        "seconds": {"encode": 0.0, "prefill": 1.0, "draft": 2.0, "verify": 2.0, "decode": 4.0},
    }


class FailingDrafter(ScriptDrafter):
    """Cannot be opened, or cannot draft."""

    def __init__(self, fails_at: str) -> None:
        super().__init__(lambda history, length: (), 2)
        self.fails_at = fails_at

    def open(self, *args: object) -> None:
        """Fails if asked to."""
        if self.fails_at == "open":
            raise RuntimeError("no")
        super().open(*args)  # type: ignore[arg-type]

    def propose(self, verdicts: object, lengths: object) -> list[DraftBlock]:
        """Fails."""
        raise RuntimeError("no")


@pytest.mark.parametrize("fails_at", ["open", "propose"])
def test_both_sides_are_closed_when_one_fails(fails_at: str) -> None:
    target, drafter = TableTarget(LOGITS), FailingDrafter(fails_at)
    with pytest.raises(RuntimeError, match="no"):
        run_to_end(decode("r", PROMPT, SamplingParams(), target, drafter))
    assert not target.sessions
    assert not drafter.histories


def test_both_sides_are_closed_when_the_caller_leaves() -> None:
    target, drafter = TableTarget(LOGITS), perfect(2)
    rounds = decode("r", PROMPT, SamplingParams(), target, drafter)
    next(rounds)
    assert "r" in target.sessions
    rounds.close()
    assert not target.sessions
    assert not drafter.histories


def test_a_request_that_is_refused_closes_nobody_else() -> None:
    target = TableTarget(LOGITS, max_rows=40)
    target.open("r", PROMPT, SamplingParams(), 30)
    with pytest.raises(OverloadedError):
        run_to_end(decode("r2", PROMPT, SamplingParams(), target, NullDrafter()))
    assert list(target.sessions) == ["r"]


def test_stop_strings_without_text_are_refused_before_anything_is_opened() -> None:
    target = TableTarget(LOGITS)
    with pytest.raises(InvalidRequestError):
        run_to_end(decode("r", PROMPT, SamplingParams(stop=("x",)), target, NullDrafter()))
    assert target.num_forwards == 0


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_request_does_not_notice_who_else_is_decoded(data: st.DataObject) -> None:
    """Batched in any company and order, with messages repeated, every request gets the tokens it gets alone."""
    numbers = range(data.draw(st.integers(1, 4)))
    requests = {
        str(n): SamplingParams(
            temperature=data.draw(st.sampled_from([0.0, 0.8, 1.5])),
            top_p=data.draw(st.sampled_from([1.0, 0.7])),
            seed=n,
            max_new_tokens=9,
        )
        for n in numbers
    }
    drafter_logits = seeded_logits(7, 2)
    target, drafter = TableTarget(LOGITS), CoupledDrafter(drafter_logits, 3)
    blocks = {}
    outputs: dict[str, tuple[int, ...]] = dict.fromkeys(requests, ())
    for request_id, sampling in requests.items():
        target.open(request_id, PROMPT, sampling, 100)
        drafter.open(request_id, PROMPT, sampling, 100)
        blocks[request_id] = DraftBlock(request_id=request_id, round=0, start=len(PROMPT))
    while waiting := [name for name, output in outputs.items() if len(output) < 9]:
        company = data.draw(st.lists(st.sampled_from(waiting), min_size=1, unique=True))
        sent = [blocks[name] for name in company]
        verdicts: list[Verdict] = target.verify(sent)
        if data.draw(st.booleans()):
            assert target.verify(sent[::-1]) == verdicts[::-1], "a repeated block gets its verdict again"
        lengths = [data.draw(st.integers(0, 3)) for _ in company]
        for verdict, block in zip(verdicts, drafter.propose(verdicts, lengths), strict=True):
            outputs[verdict.request_id] += verdict.token_ids
            blocks[verdict.request_id] = block
    for request_id, sampling in requests.items():
        alone = run_to_end(decode("r", PROMPT, sampling, TableTarget(LOGITS), NullDrafter()))
        assert outputs[request_id][:9] == alone.token_ids
