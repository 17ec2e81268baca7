"""What every target promises: one suite for the weightless one and for the one with weights and a cache.

Obligations: prefill is verifying an empty block, in any chunks; a repeated block is answered from memory; stale,
unknown and oversized blocks are refused and change nothing; rejected drafts leave no trace; rows come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from flashsd_ray.errors import OverloadedError, ProtocolError, StaleBlockError, UnknownRequestError
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.models.taps import Taps
from flashsd_ray.models.target import LocalTarget
from flashsd_ray.speculation.interfaces import Target
from flashsd_ray.types import Conversation, DraftBlock, EncodedPrompt, Fill, SamplingParams, Verdict
from tests.fakes import TableTarget, seeded_logits, token_prompt
from tests.tiny_checkpoints import checkpoint

CACHE_ROWS = 512
GREEDY = SamplingParams(max_new_tokens=16)


@lru_cache(maxsize=1)
def tiny() -> PretrainedTarget:
    return load_target(str(checkpoint("llava15")), dtype="float32", device="cpu")


@lru_cache(maxsize=1)
def tiny_prompt() -> EncodedPrompt:
    return LocalEncoder(tiny()).encode(
        Conversation.of("Say something long enough for several chunks of a prompt, please.")
    )


def table_target() -> tuple[Target, EncodedPrompt]:
    return TableTarget(seeded_logits(7, seed=2), max_rows=CACHE_ROWS), token_prompt(
        [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5]
    )


def local_target() -> tuple[Target, EncodedPrompt]:
    target = tiny()
    verifier = LocalTarget(target.decoder, cache_rows=CACHE_ROWS, context_length=target.context_length)
    return verifier, tiny_prompt()


TARGETS = pytest.mark.parametrize("make", [table_target, local_target])
Make = Callable[[], tuple[Target, EncodedPrompt]]


def plain(make: Make, count: int) -> list[int]:
    """Greedy tokens, one by one."""
    target, prompt = make()
    target.open("plain", prompt, GREEDY, len(prompt) + count)
    tokens: list[int] = []
    for number in range(count):
        block = DraftBlock(request_id="plain", round=number, start=len(prompt) + len(tokens))
        (verdict,) = target.verify([block])
        tokens += verdict.token_ids
    return tokens


@TARGETS
@pytest.mark.parametrize("chunk", [1, 3, 5, 1000])
def test_prefill_is_verifying_an_empty_block_in_any_chunks(make: Make, chunk: int) -> None:
    target, prompt = make()
    target.open("r", prompt, GREEDY, len(prompt) + 16)
    for stop in range(chunk, len(prompt) - 1, chunk):
        assert target.verify([], [Fill(request_id="r", stop=stop)]) == []
    (verdict,) = target.verify([DraftBlock(request_id="r", round=0, start=len(prompt))])
    assert (verdict.num_accepted, list(verdict.token_ids)) == (0, plain(make, 1))


@TARGETS
def test_rejected_drafts_leave_no_trace(make: Make) -> None:
    expected = plain(make, 8)
    target, prompt = make()
    target.open("r", prompt, GREEDY, len(prompt) + 16)
    (verdict,) = target.verify([DraftBlock(request_id="r", round=0, start=len(prompt))])
    wrong = (expected[3] + 1) % 5
    drafts = (expected[1], expected[2], wrong, wrong, wrong)
    (verdict,) = target.verify([DraftBlock(request_id="r", round=1, start=verdict.next_start, token_ids=drafts)])
    assert (verdict.num_accepted, list(verdict.token_ids)) == (2, expected[1:4])
    good = tuple(expected[4:6])
    (verdict,) = target.verify([DraftBlock(request_id="r", round=2, start=verdict.next_start, token_ids=good)])
    assert (verdict.num_accepted, list(verdict.token_ids)) == (2, expected[4:7])


@TARGETS
def test_a_repeated_block_is_answered_again_and_changes_nothing(make: Make) -> None:
    expected = plain(make, 3)
    target, prompt = make()
    target.open("r", prompt, GREEDY, len(prompt) + 16)
    first = DraftBlock(request_id="r", round=0, start=len(prompt))
    (once,) = target.verify([first])
    (twice,) = target.verify([first])
    assert twice == once or twice is once
    second = DraftBlock(request_id="r", round=1, start=once.next_start, token_ids=(expected[1],))
    (verdict,) = target.verify([second])
    assert list(verdict.token_ids) == expected[1:3]
    with pytest.raises(StaleBlockError):
        target.verify([first])


@TARGETS
def test_what_does_not_fit_is_refused(make: Make) -> None:
    target, prompt = make()
    with pytest.raises(UnknownRequestError):
        target.verify([DraftBlock(request_id="nobody", round=0, start=3)])
    target.open("r", prompt, GREEDY, len(prompt) + 4)
    with pytest.raises(ProtocolError):
        target.verify([DraftBlock(request_id="r", round=0, start=len(prompt), token_ids=(1,) * 40)])
    (verdict,) = target.verify([DraftBlock(request_id="r", round=0, start=len(prompt))])
    assert list(verdict.token_ids) == plain(make, 1)


@TARGETS
def test_rows_come_back_when_a_request_is_closed_even_twice(make: Make) -> None:
    target, prompt = make()
    target.open("first", prompt, GREEDY, CACHE_ROWS)
    with pytest.raises(OverloadedError):
        target.open("second", prompt, GREEDY, CACHE_ROWS)
    target.close("first")
    target.close("first")
    target.open("second", prompt, GREEDY, CACHE_ROWS)


@TARGETS
def test_an_answer_does_not_depend_on_who_else_is_verified(make: Make) -> None:
    expected = plain(make, 4)
    target, prompt = make()
    for name in ("a", "b", "c"):
        target.open(name, prompt, GREEDY, len(prompt) + 16)
    first = {}
    for names in (["a"], ["b", "c"]):
        blocks = [DraftBlock(request_id=name, round=0, start=len(prompt)) for name in names]
        first |= {verdict.request_id: verdict for verdict in target.verify(blocks)}
    drafts = {"a": (), "b": (expected[1], 0, 0), "c": (expected[1], expected[2])}
    blocks = [
        DraftBlock(request_id=name, round=1, start=first[name].next_start, token_ids=tuple(drafts[name]))
        for name in drafts
    ]
    verdicts = {verdict.request_id: list(verdict.token_ids) for verdict in target.verify(blocks)}
    assert [verdicts["a"], verdicts["c"]] == [expected[1:2], expected[1:4]]
    assert verdicts["b"] == expected[1 : 1 + len(verdicts["b"])]


def test_the_cache_after_a_rollback_is_the_cache_of_the_committed_prefix() -> None:
    target, prompt = local_target()
    assert isinstance(target, LocalTarget)
    for name, drafts in (("straight", ()), ("rejected", (3, 1, 4, 1, 5))):
        target.open(name, prompt, GREEDY, len(prompt) + 16)
        (verdict,) = target.verify([DraftBlock(request_id=name, round=0, start=len(prompt))])
        block = DraftBlock(request_id=name, round=1, start=verdict.next_start, token_ids=drafts)
        (verdict,) = target.verify([block])
        assert verdict.num_accepted == 0
    rows = {}
    for name in ("straight", "rejected"):
        sequence = target._requests[name].sequence
        assert sequence.length == len(prompt) + 1
        rows[name] = target.cache.keys[:, :, sequence.rows[: sequence.length]]
    torch.testing.assert_close(rows["straight"], rows["rejected"])


def tapped_target() -> tuple[LocalTarget, EncodedPrompt]:
    target = tiny()
    taps = Taps((1, 2), 2 * target.decoder.hidden_size, lambda rows: rows)
    verifier = LocalTarget(target.decoder, cache_rows=CACHE_ROWS, context_length=target.context_length, taps=taps)
    return verifier, tiny_prompt()


def rounds_of(
    target: LocalTarget, prompt: EncodedPrompt, request_id: str, blocks: list[tuple[int, ...]]
) -> Iterator[Verdict]:
    """The verdicts of an open request whose rounds draft these tokens."""
    start = len(prompt)
    for number, drafts in enumerate([(), *blocks]):
        (verdict,) = target.verify([DraftBlock(request_id=request_id, round=number, start=start, token_ids=drafts)])
        yield verdict
        start = verdict.next_start


def test_taps_can_be_read_rounds_later() -> None:
    expected = plain(local_target, 12)
    drafts = [(), (), (expected[3], 0), (), ((expected[6] + 1) % 5,), (), ()]
    target, prompt = tapped_target()
    target.open("at once", prompt, GREEDY, len(prompt) + 16)
    at_once = [target.tapped([verdict])[0] for verdict in rounds_of(target, prompt, "at once", drafts)]
    assert [len(verdict.taps) for verdict in at_once if verdict.taps is not None] == [len(prompt), 1, 1, 2, 1, 1, 1, 1]
    target.close("at once")
    target.open("later", prompt, GREEDY, len(prompt) + 16)
    first, *others = rounds_of(target, prompt, "later", drafts)
    token_ids = tuple(token_id for verdict in others for token_id in verdict.token_ids)
    assert token_ids == tuple(expected[1 : 1 + len(token_ids)])
    (told,) = target.tapped([replace(others[0], token_ids=token_ids)])
    for verdicts, late in ((at_once[:1], target.tapped([first])[0]), (at_once[1:], told)):
        rows = torch.cat([verdict.taps for verdict in verdicts if verdict.taps is not None])
        assert late.taps is not None
        torch.testing.assert_close(late.taps, rows, rtol=1e-4, atol=1e-4)


def test_taps_of_a_closed_request_do_not_appear_in_the_rows_of_another() -> None:
    target, prompt = tapped_target()
    other = LocalEncoder(tiny()).encode(Conversation.of("Something else."))
    target.open("alone", other, GREEDY, CACHE_ROWS)
    (expected,) = target.tapped(list(rounds_of(target, other, "alone", []))[:1])
    target.close("alone")
    target.open("first", prompt, GREEDY, CACHE_ROWS)
    list(rounds_of(target, prompt, "first", [(), (), ()]))
    target.close("first")
    target.open("second", other, GREEDY, CACHE_ROWS)
    (found,) = target.tapped(list(rounds_of(target, other, "second", [])))
    assert found.taps is not None
    assert expected.taps is not None
    torch.testing.assert_close(found.taps, expected.taps, rtol=1e-4, atol=1e-4)


def test_taps_of_a_request_that_is_not_open_are_refused() -> None:
    for make in (table_target, tapped_target):
        target, prompt = make()
        target.open("r", prompt, GREEDY, len(prompt) + 16)
        verdicts = target.verify([DraftBlock(request_id="r", round=0, start=len(prompt))])
        target.close("r")
        with pytest.raises(UnknownRequestError):
            target.tapped(verdicts)
