"""Whoever kills is found in few tries, and nobody who was only there."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.scheduling.suspicion import SMALL_COMPANY, company_after, is_cause, may_join

MAX_LOSSES = 4


def company_of(waiting: list[int], losses: dict[int, int], crowd: int) -> list[int]:
    """Who is decoded together: those in front, as long as the next one may join them."""
    chosen = [waiting[0]]
    for one in waiting[1:]:
        mine, others = company_after(losses[one]), [company_after(losses[other]) for other in chosen]
        if (mine is None) != (others[0] is None):
            continue  # suspects are not mixed with others
        suspects = [other for other in others if other is not None]
        joins = len(chosen) < crowd if mine is None else may_join(mine, suspects, 0)
        if joins:
            chosen.append(one)
    return chosen


@given(
    num_requests=st.integers(1, 40),
    poisons=st.sets(st.integers(0, 39), max_size=4),
    crowd=st.integers(1, 32),
    seed=st.integers(0, 2**32),
)
def test_every_poison_is_found_and_no_bystander_is(num_requests: int, poisons: set[int], crowd: int, seed: int) -> None:
    chance = random.Random(seed)
    losses = dict.fromkeys(range(num_requests), 0)
    waiting, quarantined, num_deaths = list(losses), set(), 0
    while waiting:
        chance.shuffle(waiting)
        together = company_of(waiting, losses, crowd)
        is_lost = bool(poisons & set(together))
        num_deaths += is_lost
        for one in together:
            losses[one] += is_lost
            if not is_lost or is_cause(losses[one], MAX_LOSSES):
                waiting.remove(one)
                if is_lost:
                    quarantined.add(one)
    guilty = {one for one in poisons if one < num_requests}
    assert quarantined == guilty
    assert num_deaths <= MAX_LOSSES * len(guilty)
    assert all(losses[one] <= 2 for one in losses if one not in guilty)


@given(num_losses=st.integers(0, 10))
def test_company_only_shrinks(num_losses: int) -> None:
    sizes = [company_after(count) or 10**6 for count in range(num_losses + 2)]
    assert sizes == sorted(sizes, reverse=True)
    assert not is_cause(num_losses, max_losses=num_losses + 1)


@given(company=st.integers(1, 8), others=st.lists(st.integers(1, 8)), beside=st.integers(0, 8))
def test_nobodys_company_is_exceeded(company: int, others: list[int], beside: int) -> None:
    present = len(others) + beside + 1
    assert may_join(company, others, beside) == all(present <= limit for limit in (company, *others))


def test_who_was_never_alone_is_not_the_cause() -> None:
    assert not is_cause(2, max_losses=2)
    assert company_after(1) == SMALL_COMPANY
