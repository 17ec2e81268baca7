"""What a tally makes of chunks and moments."""

from __future__ import annotations

import pytest

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.telemetry.tally import Tally
from flashsd_ray.types import FinishReason


def chunk(*token_ids: int, last: FinishReason | None = None) -> Chunk:
    return Chunk(
        request_id="r",
        token_ids=token_ids,
        finish_reason=last,
        num_prompt_tokens=9,
        num_cached_tokens=4,
        stats=SpeculationStats.of_prefill() if last else None,
    )


def test_an_answer_is_summed_up() -> None:
    tally = Tally(began_s=10.0)
    tally.take(chunk(), 10.5)  # no token yet
    tally.take(chunk(1), 11.0)
    tally.take(chunk(2, 3, 4), 11.3)
    tally.take(chunk(5, last=FinishReason.LENGTH), 11.8)
    assert tally.outcome == "length"
    assert tally.time_to_first_token_s == pytest.approx(1.0)
    assert tally.time_per_output_token_s == pytest.approx(0.8 / 4)
    assert tally.seconds == pytest.approx(1.8)
    assert (tally.num_prompt_tokens, tally.num_cached_tokens, tally.num_new_tokens) == (9, 4, 5)
    assert tally.stats == SpeculationStats.of_prefill()


def test_the_first_end_counts() -> None:
    tally = Tally(began_s=0.0)
    tally.take(chunk(1, last=FinishReason.STOP), 1.0)
    tally.end("cancelled", 5.0)  # the caller leaves after the last chunk
    assert (tally.outcome, tally.seconds) == ("stop", 1.0)


def test_without_tokens_there_are_no_token_times() -> None:
    tally = Tally(began_s=0.0)
    tally.end("OverloadedError", 2.0)
    assert (tally.time_to_first_token_s, tally.time_per_output_token_s, tally.seconds) == (None, None, 2.0)


def test_one_arrival_says_nothing_about_the_time_of_a_token() -> None:
    tally = Tally(began_s=0.0)
    tally.take(chunk(1, 2, last=FinishReason.STOP), 1.0)
    assert tally.time_per_output_token_s is None
