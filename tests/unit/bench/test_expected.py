"""What counts as the same answer, and what as a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flashsd_ray.bench.serving.asks import BROKEN, Outcome
from flashsd_ray.bench.serving.expected import difference
from flashsd_ray.bench.serving.overload import REFUSALS, faults
from flashsd_ray.engine.answers import Caption
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import FinishReason, TokenLogprob

RIGHT = Caption(
    request_id="one",
    text="a b",
    token_ids=(4, 5),
    finish_reason=FinishReason.STOP,
    num_prompt_tokens=3,
    stats=SpeculationStats(),
    logprobs=(TokenLogprob(token_id=4, logprob=-1.0, text="a"), TokenLogprob(token_id=5, logprob=-1.0, text=" b")),
)
GOT = Outcome(
    name="one",
    start_s=0.0,
    end_s=1.0,
    text="a b",
    token_ids=(4, 5),
    token_texts=("a", " b"),
    num_tokens=2,
    finish_reason="stop",
)


def test_the_same_answer_has_no_difference() -> None:
    assert difference(GOT, RIGHT) == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "a c"}, "text: 'a c', not 'a b'"),
        ({"token_ids": (4, 6)}, "token ids"),
        ({"token_ids": ()}, "token ids"),
        ({"token_texts": ("a",)}, "tokens"),
        ({"num_tokens": 3}, "number of tokens"),
        ({"finish_reason": "length"}, "finish reason"),
        ({"code": "429", "detail": "come again"}, "no answer: 429 come again"),
    ],
)
def test_every_difference_is_named(change: dict[str, Any], named: str) -> None:
    assert named in difference(replace(GOT, **change), RIGHT)


@pytest.mark.parametrize("code", ["429", "504", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_a_refusal_is_no_fault_under_overload_and_one_at_any_other_time(code: str) -> None:
    refused = replace(GOT, code=code)
    assert faults([refused], {"one": RIGHT}, REFUSALS) == []
    assert len(faults([refused], {"one": RIGHT}, frozenset())) == 1


@pytest.mark.parametrize("code", [BROKEN, "500", "503", "UNAVAILABLE", "INTERNAL", "400"])
def test_every_other_end_is_a_fault(code: str) -> None:
    assert faults([replace(GOT, code=code)], {"one": RIGHT}, REFUSALS) == [f"one: no answer: {code}"]


def test_a_wrong_answer_is_a_fault() -> None:
    assert faults([GOT, replace(GOT, token_ids=(4, 9))], {"one": RIGHT}, REFUSALS) == [
        "one: token ids: (4, 9), not (4, 5)"
    ]
