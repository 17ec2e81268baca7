"""The scaling study's measurement on a real fleet: everything is counted, and predictions come out of it."""

from __future__ import annotations

import json

from flashsd_ray.bench.scaling.clusters import scale
from flashsd_ray.bench.scaling.live import Step
from flashsd_ray.bench.scaling.raw import Raw
from flashsd_ray.bench.scaling.study import Plan, concluded, measure
from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
from flashsd_ray.bench.serving.fleets import with_little_room
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.config import Config, with_overrides


async def test_one_lane_is_measured_and_predicted() -> None:
    settings = [
        "serving.http_port=0",
        "stores.latent_bytes=1",
        "scheduling.share_prefixes=false",
        "model.dtype=float32",
    ]
    config = with_little_room(with_overrides(Config(), settings))
    plan = Plan(
        calibration=[Step(users=1, new_tokens=4, requests=4), Step(users=2, new_tokens=16, requests=4)],
        users_per_lane=2,
        new_tokens=8,
        requests_per_lane=4,
        repeats=1,
        draft_length=2,
        idle_s=0.2,
        num_cores=1,  # spares the measurement of crowded cores
    )
    asks = detailed_asks(held_out_clips(2), max_new_tokens=8)
    with load_generator() as generator:
        raw = await measure({1: config}, plan, asks, generator, feature_bytes=1000)
    found = concluded(raw)
    assert concluded(Raw.of(json.loads(json.dumps(raw.as_dict())))) == found  # what is kept says the same
    lonely, paired = found.loads
    assert 0 < lonely.rounds_s < lonely.seconds
    assert (lonely.requests, lonely.tokens, lonely.frames) == (4, 16, 32)
    assert paired.tokens == 64
    # Every request has a prompt that is forwarded whole, and after its first token blocks of an anchor and two drafts,
    # fewer where the answer ends.
    assert paired.prompt_rows > 4 * 8 * 36
    num_blocks = paired.chunks - paired.requests
    assert paired.requests + 2 * num_blocks < paired.rows <= paired.requests + 3 * num_blocks
    assert 0 <= paired.survival[1] <= paired.survival[0] <= 1
    # The kernel counts in ticks of 10 ms: a quick edge may have spent less than one on four short answers.
    assert all(paired.cpu_s[part] >= 0 for part in ("edge", "client", "lane", "encoder"))
    assert paired.cpu_s["lane"] > 0
    (check,) = found.checks
    assert check.measured_tokens_per_s > 0
    assert check.predicted_tokens_per_s > 0
    (point,) = [
        one for one in scale(found.costs, found.workload, users_per_lane=2, lanes=(2,)) if one.scenario == "one edge"
    ]
    assert point.prediction.steady_tokens_per_s > 0
