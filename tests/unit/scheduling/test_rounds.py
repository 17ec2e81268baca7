"""Laws of the round plan: decoding never waits, the prefill budget holds, the oldest prompt always advances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.scheduling.rounds import Standing, plan_round

STANDINGS = st.lists(
    st.tuples(st.integers(1, 300), st.integers(1, 300)).map(lambda pair: (max(pair), max(pair) - min(pair))),
    max_size=12,
).map(lambda rows: [Standing(str(i), committed, cached) for i, (committed, cached) in enumerate(rows)])


@given(STANDINGS, st.integers(1, 400))
def test_laws(standings: list[Standing], prefill_rows: int) -> None:
    plan = plan_round(standings, prefill_rows)
    by_id = {standing.request_id: standing for standing in standings}
    decoding = {standing.request_id for standing in standings if standing.missing <= 1}
    assert decoding <= set(plan.verify)
    assert not set(plan.verify) & {request_id for request_id, _ in plan.fill}
    spent = sum(by_id[i].missing for i in plan.verify if i not in decoding)
    spent += sum(stop - by_id[i].num_cached for i, stop in plan.fill)
    assert spent <= prefill_rows
    for request_id, stop in plan.fill:
        assert by_id[request_id].num_cached < stop < by_id[request_id].num_committed
    prompts = [standing for standing in standings if standing.missing > 1]
    if prompts:
        served = {*plan.verify, *(request_id for request_id, _ in plan.fill)}
        assert prompts[0].request_id in served
