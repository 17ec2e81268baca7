"""A lane's thread outlives every fault, and a lane that cannot work any more does not look healthy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.actors.lane_host import BetweenRounds, LaneHost
from flashsd_ray.config import Config, EncodingConfig, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.types import CaptionRequest, Conversation, EncodedPrompt, SamplingParams
from tests.fakes import ScriptDrafter, TableTarget, token_prompt
from tests.unit.actors.test_router import LOGITS, drafts

CONFIG = Config(scheduling=SchedulingConfig(max_running=4), speculation=SpeculationConfig(draft_length=3))
LIMIT_S = 3.0
POISON = 13


class FaultyTarget(TableTarget):
    """Fails where the test wants it to."""

    def __init__(self) -> None:
        super().__init__(LOGITS, max_rows=4000)
        self.fails_at: set[str] = set()

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> int:
        if prompt.token_ids[0] == POISON:
            raise RuntimeError("this prompt breaks the target")
        return super().open(request_id, prompt, sampling, max_rows)

    def verify(self, *args: Any) -> Any:
        if "verify" in self.fails_at:
            raise RuntimeError("an illegal memory access was encountered")
        return super().verify(*args)

    def close(self, request_id: str) -> None:
        if "close" in self.fails_at:
            raise RuntimeError("an illegal memory access was encountered")
        super().close(request_id)


def lane_of(target: TableTarget) -> Lane:
    return Lane(None, target, ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,))


def asking(number: int, tokens: int = 50) -> CaptionRequest:
    return CaptionRequest(request_id=f"r{number}", prompt="p", sampling=SamplingParams(max_new_tokens=tokens))


async def test_the_thread_outlives_a_target_that_fails_while_a_failed_round_is_cleared_away() -> None:
    target = FaultyTarget()
    host = LaneHost(lane_of(target))
    target.fails_at = {"verify", "close"}
    async with aclosing(host.feed("edge")) as feed:
        await anext(feed)
        await host.submit("edge", asking(1), token_prompt([1, 2]))
        last = await asyncio.wait_for(anext(feed, None), LIMIT_S)  # its error, or the end of the feed: not silence
    assert last is None or isinstance(last.chunks[-1].error, UnavailableError)


async def test_a_lane_whose_rounds_all_fail_is_not_healthy() -> None:
    # After a CUDA error nothing works in the process; idle as it is, the lane would attract every new request.
    target = FaultyTarget()
    host = LaneHost(lane_of(target))
    target.fails_at = {"verify"}
    try:
        with pytest.raises(UnavailableError):  # noqa: PT012 - whichever of these finds out
            async with aclosing(host.feed("edge")) as feed:
                await anext(feed)
                for number in range(20):
                    await host.submit("edge", asking(number), token_prompt([1, 2]))
                    await anext(feed)
                await host.status()
    finally:
        await host.close()


def test_a_request_that_cannot_be_opened_costs_its_neighbours_nothing() -> None:
    lane = lane_of(FaultyTarget())
    lane.submit(asking(1), token_prompt([1, 2]))
    lane.step()
    lane.submit(asking(2), token_prompt([POISON]))
    chunks = lane.step()
    refused = {chunk.request_id: chunk.error for chunk in chunks if chunk.error is not None}
    assert list(refused) == ["r2"]
    assert isinstance(refused["r2"], FlashSDError)


class ThreadNamer:
    """An encoder that notes where it runs."""

    num_frames = num_frames_encoded = 0

    def __init__(self) -> None:
        self.threads: list[str] = []

    def encode_each(self, conversations: Sequence[Conversation]) -> list[EncodedPrompt]:
        self.threads.append(threading.current_thread().name)
        return [token_prompt([1, 2]) for _ in conversations]


async def test_pictures_may_be_encoded_in_the_thread_of_the_lane() -> None:
    host, encoder = LaneHost(lane_of(FaultyTarget()), lane_id="lane-7"), ThreadNamer()
    encoding = EncoderHost(encoder, EncodingConfig(batch_wait_s=0.0), executor=BetweenRounds(host))
    prompt = await asyncio.wait_for(encoding.encode(Conversation.of("p")), LIMIT_S)
    assert prompt.token_ids == (1, 2)
    assert encoder.threads == ["flashsd-lane-7"]
    await host.close()
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(encoding.encode(Conversation.of("p")), LIMIT_S)
    await encoding.close()
