"""The schedule is a function of its seed, and the oracle lets nothing pass that must not be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.bench.chaos.clients import Ended
from flashsd_ray.bench.chaos.faults import Felt
from flashsd_ray.bench.chaos.oracle import Said, is_sound, judged
from flashsd_ray.bench.chaos.report import recovery
from flashsd_ray.bench.chaos.run import Chaos, Fate, judge, rounds_of
from flashsd_ray.bench.chaos.schedule import KINDS, Fault, possible, schedule
from flashsd_ray.bench.chaos.work import Work
from flashsd_ray.bench.serving.asks import Ask

SEEDS = st.integers(0, 2**32)
TOKENS = st.lists(st.integers(0, 5), min_size=1, max_size=12)
FAULT = Fault(action="kill", target="lane", after=0, pick=0.5, length_s=1.0)
WORK = Work(name="w", way="live", ask=Ask(name="w", prompt="?", picture=b""))


def said(tokens: list[int], reason: str = "stop") -> Said:
    return Said(text="".join(chr(97 + token) for token in tokens), token_ids=tuple(tokens), finish_reason=reason)


@given(seed=SEEDS, num_faults=st.integers(0, 60), num_requests=st.integers(1, 300))
def test_a_schedule_is_a_function_of_its_seed_and_fair(seed: int, num_faults: int, num_requests: int) -> None:
    faults = schedule(seed=seed, num_faults=num_faults, num_requests=num_requests)
    assert faults == schedule(seed=seed, num_faults=num_faults, num_requests=num_requests)
    assert len(faults) == num_faults
    assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
    assert all(0 <= fault.after < num_requests and 0 <= fault.pick < 1 and fault.length_s > 0 for fault in faults)
    counts = Counter(fault.kind for fault in faults)
    assert not counts or max(counts.values()) - min([*counts.values(), *([0] * (len(counts) < len(KINDS)))]) <= 1


def test_another_seed_is_another_schedule() -> None:
    assert len({schedule(seed=seed, num_faults=10, num_requests=50) for seed in range(20)}) == 20


@pytest.mark.parametrize("has_drafters", [True, False])
@pytest.mark.parametrize("has_ranks", [True, False])
@pytest.mark.parametrize("has_nodes", [True, False])
def test_only_what_is_there_can_be_hurt(has_drafters: bool, has_ranks: bool, has_nodes: bool) -> None:
    kinds = possible(has_drafters=has_drafters, has_ranks=has_ranks, has_nodes=has_nodes)
    targets = {target for _, target in kinds}
    assert ("drafter" in targets, "rank" in targets, "node" in targets) == (has_drafters, has_ranks, has_nodes)
    assert ("head" in targets) == has_nodes
    assert {"lane", "encoder", "fleet", "http-edge", "grpc-edge", "redis"} <= targets


def test_the_load_goes_round_until_everything_is_there_again() -> None:
    poison = Work(name="p", way="grpc", ask=WORK.ask, fault=FAULT)
    ends = iter([False, False, False, True])
    asked = list(rounds_of([WORK, poison], lambda: next(ends)))
    assert [one.name for one in asked] == ["w", "p", "w"]
    assert list(rounds_of([WORK, poison], lambda: True)) == [WORK, poison]
    assert list(rounds_of([poison], lambda: False)) == [poison]


@given(right=TOKENS, other=TOKENS)
def test_only_the_right_answer_is_right(right: list[int], other: list[int]) -> None:
    assert judged("OK", [said(right)], [said(right)]) == "right"
    if other != right:
        verdict = judged("OK", [said(other)], [said(right)])
        assert verdict in ("wrong", "duplicated", "lost")
        assert not is_sound(verdict, is_poison=False)


@given(right=TOKENS, stop=st.integers(0, 12), code=st.sampled_from(["UNAVAILABLE", "503", "429", "BROKEN"]))
def test_a_beginning_with_an_error_that_says_come_again_is_no_harm(right: list[int], stop: int, code: str) -> None:
    assert judged(code, [said(right[:stop], "")], [said(right)]) == "retriable"
    assert judged("OK", [said(right[:stop], "")], [said(right)]) == "lost"


@given(right=TOKENS, start=st.integers(0, 11), stop=st.integers(1, 12))
def test_what_is_said_twice_is_found(right: list[int], start: int, stop: int) -> None:
    start, stop = min(start, len(right) - 1), min(stop, len(right))
    twice = right[:stop] + right[start:]
    if twice != right and start < stop:
        verdict = judged("OK", [said(twice)], [said(right)])
        assert verdict in ("duplicated", "wrong")
        unique = len(set(right)) == len(right)
        assert not unique or verdict == "duplicated"


@pytest.mark.parametrize(
    ("code", "is_poison", "verdict", "sound"),
    [
        ("422", True, "quarantined", True),
        ("INVALID_ARGUMENT", True, "quarantined", True),
        ("422", False, "lost", False),
        ("UNAVAILABLE", True, "retriable", True),
        ("DEADLINE_EXCEEDED", False, "lost", False),
        ("HUNG", False, "lost", False),
        ("500", False, "lost", False),
    ],
)
def test_errors(code: str, is_poison: bool, verdict: str, sound: bool) -> None:
    found = judged(code, [], [said([1])], is_poison=is_poison)
    assert found == verdict
    assert is_sound(found, is_poison=is_poison) == sound


def test_a_beginning_that_was_wrong_is_not_made_good_by_the_next_attempt() -> None:
    expected = [said([1, 2, 3]), said([4, 5])]
    whole = [said([1, 2, 3]), said([4, 5])]
    assert judge(WORK, Ended(said=whole, began=[said([4], ""), said([1, 2], "")]), expected) == "right"
    assert judge(WORK, Ended(said=whole, began=[said([5], "")]), expected) in ("wrong", "duplicated")


def test_a_run_is_sound_when_everything_recovered() -> None:
    fate = Fate(work=WORK, start_s=0.0, end_s=1.0, verdict="right", code="OK", detail="", num_attempts=1)
    felt = Felt(fault=FAULT, began_s=1.0, whole_s=3.0, answered_s=2.0)
    assert Chaos(fates=[fate], felt=[felt]).is_sound
    assert not Chaos(fates=[fate], felt=[Felt(fault=FAULT, began_s=1.0)]).is_sound
    assert not Chaos(fates=[fate], felt=[felt], leftovers=["lane-1"]).is_sound
    (row,) = recovery([felt, Felt(fault=FAULT, began_s=1.0)], [fate, replace(fate, start_s=1.5)])
    assert (row["open"], row["open_verdicts"], row["open_s_max"]) == (1, {"right": 1}, 1.0)
    assert (row["count"], row["recovered"], row["recovery_s_max"], row["outage_s_median"]) == (2, 1, 2.0, 1.0)
