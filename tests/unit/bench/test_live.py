"""Live frames against frames sent whole, through a real edge."""

from __future__ import annotations

import os

import numpy as np

from flashsd_ray.bench.serving.live import compare, marked, play_hour
from flashsd_ray.bench.serving.memory import Watch
from tests.fake_service import EchoService
from tests.unit.bench.conftest import served


def test_a_mark_changes_the_content_of_every_frame_and_next_to_nothing_of_its_look() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    live, whole = marked(frames, True), marked(frames, False)
    assert all(not np.array_equal(one, other) for one, other in zip(live, whole, strict=True))
    assert np.abs(live.astype(int) - whole).sum() == len(frames)
    assert np.abs(live.astype(int) - frames).max() <= 1


async def test_both_ways_see_all_frames_and_every_pair_is_timed() -> None:
    service, pairs = EchoService(), list[None]()
    async with served(service) as server:
        latency = await compare(
            server.grpc_address,
            num_clips=3,
            num_frames=5,
            prompt="what?",
            max_new_tokens=8,
            on_pair=lambda: pairs.append(None),
        )
    assert len(latency.live_s) == len(latency.whole_s) == 3
    assert min(*latency.live_s, *latency.whole_s) > 0
    assert len(pairs) == 4  # one warms up
    seen = [sum(len(visual.frames) for visual in request.conversation.visuals) for request in service.asked]
    assert seen == [5] * 8
    digests = {visual.digest for request in service.asked for visual in request.conversation.visuals}
    assert len(digests) == 8  # nothing that one way made helps the other


async def test_an_hour_is_captioned_and_memory_is_read_in_every_period() -> None:
    async with served(EchoService(), "sessions.max_frames_per_second=100000") as server:
        hour = await play_hour(
            server.grpc_address, Watch(os.getpid()), num_frames=24, period_s=6.0, prompt="what?", max_new_tokens=8
        )
    assert (hour.num_frames, hour.num_refused) == (24, 0)
    assert hour.num_captions == 4
    assert [reading.at for reading in hour.readings] == [0.0, 6.0, 12.0, 18.0, 24.0]
    assert all(reading.total_bytes > 2**20 for reading in hour.readings)
