"""Whether a request that has a time limit can still be answered; refusing early is kinder than timing out late."""

from __future__ import annotations

from dataclasses import dataclass, replace

MEMORY = 0.9  # weight of what was known before the latest answer


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """Running means over the requests that ended lately; 0 until one did."""

    answer_s: float = 0.0  # from having a place to the last token
    first_token_s: float = 0.0  # from having a place to the first token


@dataclass(frozen=True, slots=True)
class Crowd:
    """How busy a lane is when a request arrives."""

    num_waiting: int
    num_running: int
    max_running: int


def observe_answer(times: ServiceTimes, answer_s: float, first_token_s: float) -> ServiceTimes:
    """The means with one more answer in them."""
    if times.answer_s == 0.0:
        return ServiceTimes(answer_s, first_token_s)
    return replace(
        times,
        answer_s=MEMORY * times.answer_s + (1 - MEMORY) * answer_s,
        first_token_s=MEMORY * times.first_token_s + (1 - MEMORY) * first_token_s,
    )


def expected_wait_s(times: ServiceTimes, crowd: Crowd) -> float:
    """Seconds until a request that arrives now has a place: each place comes free once per answer."""
    ahead = crowd.num_waiting + crowd.num_running - crowd.max_running + 1
    return max(0, ahead) * times.answer_s / crowd.max_running


def earliest_answer_s(times: ServiceTimes, crowd: Crowd) -> float:
    """Seconds until a request that arrives now can have its first token, if all goes as it went lately."""
    return expected_wait_s(times, crowd) + times.first_token_s
