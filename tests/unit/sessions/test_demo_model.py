"""The bundled model behind a session: frames are in the cache when the question comes, and the answer is the same."""

from __future__ import annotations

from pathlib import Path

from flashsd_ray.actors.local_service import LocalService
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import joined
from flashsd_ray.media import load_visual
from flashsd_ray.sessions.events import Ask, FrameAck, PushFrame
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest, SamplingParams, Turn
from tests.unit.sessions.harness import Client

QUESTION = "What happens in this video?"
SHARED_ROWS = 16  # a cached prefix ends with a whole block of rows


async def test_only_the_question_is_prefilled_when_it_comes_and_the_answer_is_the_same(clip: Path) -> None:
    sampling = SamplingParams(max_new_tokens=24)
    video = load_visual(clip, Config().media, num_frames=6)
    service = await LocalService.start(Config())
    try:
        alone = CaptionRequest(
            request_id="alone", turns=(Turn(role="user", parts=(video, QUESTION)),), sampling=sampling
        )
        expected = joined([chunk async for chunk in service.stream(alone)])
    finally:
        await service.close()
    service = await LocalService.start(Config())
    try:
        client = Client(service, SessionRegistry(Config()))
        await client.open(prompt=QUESTION, sampling=sampling)
        for frame, time_s in zip(video.frames, video.timestamps_s, strict=True):
            client.send(PushFrame(image=frame, timestamp_s=float(time_s)))
            ack = await client.next(FrameAck)
        client.send(Ask(keep_history=True))
        text, finished = await client.answer()
        assert text == finished.text == expected.text
        assert finished.num_prompt_tokens == expected.num_prompt_tokens
        assert finished.num_cached_tokens > ack.tokens_cached - SHARED_ROWS
        client.send(Ask(prompt="And then?"))
        _, followed = await client.answer()
        assert followed.num_cached_tokens > finished.num_prompt_tokens - SHARED_ROWS
        await client.end()
    finally:
        await service.close()
