"""The simulated service: closed forms where there are any, and the part that runs out is the one that is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flashsd_ray.bench.scaling.costs import Costs, Supply, Workload, demands
from flashsd_ray.bench.scaling.service import Service, predict

PLAIN = Workload(num_frames=1, prompt_rows=100, new_tokens=11, draft_length=0)
LANE_ONLY = Costs(round_s=0.01)


def test_one_user_of_one_lane_waits_for_every_round() -> None:
    found = predict(LANE_ONLY, PLAIN, Supply(num_lanes=1), num_users=1, num_requests=8)
    assert found.answer_s == pytest.approx(11 * 0.01)
    assert found.tokens_per_s == pytest.approx(100.0)
    assert found.mean_batch == 1.0
    assert found.utilisation["lanes"] == pytest.approx(1.0)


def test_users_share_rounds() -> None:
    found = predict(LANE_ONLY, PLAIN, Supply(num_lanes=1), num_users=8, num_requests=80)
    # Whoever asks again has missed the round that begins when the last one ends: eleven rounds of twelve.
    assert found.steady_tokens_per_s == pytest.approx(800.0 * 11 / 12, rel=0.02)
    assert 7.0 < found.mean_batch <= 8.0


def test_drafts_that_always_stand_save_rounds() -> None:
    drafted = replace(PLAIN, draft_length=4, survival=(1.0,) * 4)
    found = predict(LANE_ONLY, drafted, Supply(num_lanes=1), num_users=1, num_requests=8)
    assert found.answer_s == pytest.approx(3 * 0.01)  # the prefill's token, then twice five


def test_long_prompts_are_filled_in_chunks() -> None:
    long = replace(PLAIN, prompt_rows=250, new_tokens=1)
    supply = Supply(num_lanes=1, prefill_rows=100)
    found = predict(Costs(round_s=0.01, prompt_row_s=0.001), long, supply, num_users=1, num_requests=4)
    # 249 rows besides the one that is judged; the last chunk is judged in the same round.
    assert found.answer_s == pytest.approx(3 * 0.01 + 0.249)


def test_littles_law_holds() -> None:
    costs = Costs(round_s=0.004, row_s=0.0005, edge_request_s=0.01, encode_s=0.02, hand_over_s=0.01)
    found = predict(costs, PLAIN, Supply(num_lanes=2), num_users=12, num_requests=1200)
    in_flight = found.num_requests / found.seconds * found.answer_s
    assert in_flight == pytest.approx(12, rel=0.02)


def test_the_utilisation_law_holds() -> None:
    costs = Costs(round_s=0.004, edge_request_s=0.003, encode_s=0.005)
    found = predict(costs, PLAIN, Supply(num_lanes=1), num_users=4, num_requests=400)
    requests_per_s = found.steady_tokens_per_s / PLAIN.new_tokens
    assert found.utilisation["encoders"] == pytest.approx(requests_per_s * 0.005, rel=0.02)
    assert found.utilisation["edge loop"] == pytest.approx(requests_per_s * 0.003, rel=0.02)


@pytest.mark.parametrize(
    ("part", "costs"),
    [
        ("lanes", Costs(round_s=0.01)),
        ("encoders", Costs(round_s=0.01, encode_s=0.2)),
        ("edge loop", Costs(round_s=0.01, edge_request_s=0.2)),
        ("edge decoding", Costs(round_s=0.01, decode_s=0.4)),
        ("redis", Costs(round_s=0.01, redis_s=0.1)),
    ],
)
def test_the_part_that_runs_out_is_named_and_bounds_the_throughput(part: str, costs: Costs) -> None:
    supply = Supply(num_lanes=4, has_redis=True, max_running=8)
    found = predict(costs, PLAIN, supply, num_users=32, num_requests=256)
    assert found.limit == part
    assert found.utilisation[part] == pytest.approx(1.0, abs=0.03)
    workers = {"lanes": 4, "edge decoding": 2}.get(part, 1)
    bound = workers / demands(costs, PLAIN, supply, found.mean_batch)[part] * PLAIN.new_tokens
    assert found.steady_tokens_per_s <= bound * 1.06  # the batch is that of the whole run, the speed that of its middle
    assert found.steady_tokens_per_s >= bound * 0.8


def test_lanes_add_up_until_something_else_is_the_limit() -> None:
    costs = Costs(round_s=0.01, edge_request_s=0.01, edge_feed_s=0.0001)
    speeds = {}
    for num_lanes in (1, 2, 4, 32):
        supply = Supply(num_lanes=num_lanes, max_running=4)
        found = predict(costs, PLAIN, supply, num_users=8 * num_lanes, num_requests=60 * num_lanes)
        speeds[num_lanes] = found.steady_tokens_per_s
    assert speeds[2] == pytest.approx(2 * speeds[1], rel=0.1)
    assert speeds[4] <= 4 * speeds[1] * 1.05
    # The edge: 10 ms a request, and eleven feeds that hardly any other request shares.
    assert speeds[32] == pytest.approx(11 / (0.01 + 11 * 0.0001), rel=0.05)


def test_two_lanes_on_one_core_are_no_faster_than_one() -> None:
    one = predict(LANE_ONLY, PLAIN, Supply(num_lanes=1, num_cores=1), num_users=4, num_requests=80)
    two = predict(LANE_ONLY, PLAIN, Supply(num_lanes=2, num_cores=1), num_users=8, num_requests=160)
    assert two.tokens_per_s == pytest.approx(one.tokens_per_s, rel=0.05)


def test_features_found_in_redis_spare_the_encoder() -> None:
    costs, supply = Costs(round_s=0.001, encode_s=0.02, redis_s=0.001), Supply(num_lanes=1, has_redis=True)
    never = predict(costs, PLAIN, supply, num_users=8, num_requests=200)
    always = predict(costs, replace(PLAIN, cached_share=1.0), supply, num_users=8, num_requests=200)
    assert never.limit == "encoders"
    assert always.utilisation["encoders"] == 0.0
    assert always.tokens_per_s > 1.5 * never.tokens_per_s


def test_the_same_seed_gives_the_same_prediction() -> None:
    workload = replace(PLAIN, draft_length=2, survival=(0.7, 0.4))
    costs = Costs(round_s=0.01, row_s=0.001, edge_request_s=0.001)

    def found(seed: int) -> object:
        return predict(costs, workload, Supply(num_lanes=2), num_users=8, num_requests=64, seed=seed)

    assert found(1) == found(1)
    assert found(1) != found(2)


def test_a_load_has_users_and_requests() -> None:
    with pytest.raises(ValueError, match="users"):
        Service(LANE_ONLY, PLAIN, Supply(num_lanes=1)).run(num_users=0, num_requests=8)
    with pytest.raises(ValueError, match="negative"):
        Costs(round_s=-1.0)


def test_rounds_are_passed_on_together_and_beginnings_and_ends_at_once() -> None:
    costs = Costs(round_s=0.001, edge_feed_s=0.0001)
    long = replace(PLAIN, new_tokens=101)
    eager = predict(costs, long, Supply(num_lanes=1), num_users=1, num_requests=8)
    patient = predict(costs, long, Supply(num_lanes=1, stream_interval_s=0.02), num_users=1, num_requests=8)
    assert patient.answer_s == pytest.approx(eager.answer_s, rel=0.01)  # the end does not wait
    # 101 feeds of an answer become its first, its last, and one every twenty rounds between them.
    assert patient.utilisation["edge loop"] == pytest.approx(eager.utilisation["edge loop"] * 6 / 101, rel=0.2)
