"""The host under control of gates: who shares a turn, who is refused, and that nobody's fate is another's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
import torch

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.config import EncodingConfig
from flashsd_ray.errors import CheckpointError, FlashSDError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import load_target
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.types import Conversation, EncodedPrompt, VisualInput
from tests.fakes import token_prompt
from tests.tiny_checkpoints import checkpoint


def clip(num_frames: int, seed: int = 0) -> VisualInput:
    frames = np.random.default_rng(seed).integers(0, 255, (num_frames, 40, 40, 3), dtype=np.uint8)
    return VisualInput(kind="video", frames=frames, timestamps_s=np.arange(float(num_frames)))


def asking(text: str, num_frames: int = 1) -> Conversation:
    return Conversation.of(text, (clip(num_frames),) if num_frames else ())


def text_of(conversation: Conversation) -> str:
    return "".join(part for part in conversation.turns[0].parts if isinstance(part, str))


class GatedEncoder:
    """Each letter is a token; a turn in the thread waits until the test opens the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.turns: list[list[str]] = []
        self.num_frames = 0
        self.num_frames_encoded = 0

    def encode_each(self, conversations: Sequence[Conversation]) -> list[EncodedPrompt | InvalidRequestError]:
        texts = [text_of(conversation) for conversation in conversations]
        self.turns.append(texts)
        assert self.gate.wait(60)
        if "poison" in texts:
            raise RuntimeError("an operator gave up")
        if "damaged" in texts:
            raise CheckpointError("a weight is missing")
        self.num_frames += len(texts)
        self.num_frames_encoded += 1
        return [
            InvalidRequestError("this cannot be encoded") if text == "bad" else token_prompt([ord(one) for one in text])
            for text in texts
        ]


class Timer:
    """Stands for time: it passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asked: list[float] = []
        self._passed = asyncio.Event()

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self._passed.wait()

    def passes(self, seconds: float) -> None:
        self.now_s += seconds
        self._passed.set()
        self._passed = asyncio.Event()


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> None:
        while not condition():  # noqa: ASYNC110 - what the thread does is no event of this loop
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), 60)


@asynccontextmanager
async def hosting(**limits: float) -> AsyncIterator[tuple[EncoderHost, GatedEncoder, Timer]]:
    encoder, timer = GatedEncoder(), Timer()
    config = EncodingConfig(**{"batch_wait_s": 0.5, "batch_frames": 4, **limits})  # type: ignore[arg-type]
    host = EncoderHost(encoder, config, clock=timer.clock, sleep=timer.sleep)
    try:
        yield host, encoder, timer
    finally:
        encoder.gate.set()
        await host.close()


def ask(host: EncoderHost, text: str, num_frames: int = 1) -> asyncio.Task[EncodedPrompt]:
    return asyncio.create_task(host.encode(asking(text, num_frames)))


async def test_requests_that_arrive_within_the_wait_share_a_turn_and_get_their_own_prompts() -> None:
    async with hosting() as (host, encoder, timer):
        tasks = [ask(host, "a")]
        await until(lambda: timer.asked == [0.5])
        tasks += [ask(host, "b"), ask(host, "c", 0)]
        await until(lambda: host.status().num_waiting == 3)
        assert encoder.turns == []
        timer.passes(0.5)
        prompts = await asyncio.gather(*tasks)
        assert [prompt.token_ids for prompt in prompts] == [(ord("a"),), (ord("b"),), (ord("c"),)]
        assert encoder.turns == [["a", "b", "c"]]


async def test_a_full_turn_does_not_wait() -> None:
    async with hosting() as (host, encoder, timer):
        await asyncio.gather(ask(host, "a", 2), ask(host, "b", 2))
        assert encoder.turns == [["a", "b"]]
        assert timer.now_s == 0.0


async def test_a_turn_that_fills_up_while_it_waits_begins() -> None:
    async with hosting() as (host, encoder, timer):
        first = ask(host, "a", 2)
        await until(lambda: timer.asked == [0.5])
        await asyncio.gather(first, ask(host, "b", 2))
        assert encoder.turns == [["a", "b"]]
        assert timer.now_s == 0.0


async def test_time_spent_behind_another_turn_counts_as_waiting() -> None:
    async with hosting() as (host, encoder, timer):
        encoder.gate.clear()
        first = ask(host, "a", 4)
        await until(lambda: encoder.turns == [["a"]])
        second = ask(host, "b")
        await until(lambda: host.status().num_waiting == 1)
        timer.passes(0.2)
        encoder.gate.set()
        await first
        await until(lambda: len(timer.asked) == 1)
        assert timer.asked == [pytest.approx(0.3)]
        timer.passes(0.3)
        await second
        assert host.status().busy_s == pytest.approx(0.2)


async def test_a_turn_takes_no_more_frames_than_allowed_except_of_one_large_request() -> None:
    async with hosting(batch_wait_s=0) as (host, encoder, _):
        encoder.gate.clear()
        tasks = [ask(host, "first")]
        await until(lambda: host.status().num_running == 1)
        tasks += [ask(host, "a", 3), ask(host, "b", 2), ask(host, "large", 9), ask(host, "c", 1)]
        await until(lambda: host.status().num_waiting == 4)
        assert host.status().num_waiting_frames == 15
        encoder.gate.set()
        await asyncio.gather(*tasks)
        assert encoder.turns == [["first"], ["a"], ["b"], ["large"], ["c"]]


async def test_too_many_waiting_frames_are_refused_and_the_limit_is_named() -> None:
    async with hosting(batch_wait_s=0, max_waiting_frames=5) as (host, encoder, _):
        encoder.gate.clear()
        tasks = [ask(host, "running")]
        await until(lambda: host.status().num_running == 1)
        tasks += [ask(host, "a", 3), ask(host, "text", 0)]
        await until(lambda: host.status().num_waiting == 2)
        with pytest.raises(OverloadedError, match=r"encoding\.max_waiting_frames allows 5, and 4 wait"):
            await host.encode(asking("b", 2))
        with pytest.raises(InvalidRequestError, match=r"encoding\.max_waiting_frames allows 5, the request has 6"):
            await host.encode(asking("never", 6))
        encoder.gate.set()
        await asyncio.gather(*tasks)
        await host.encode(asking("b", 2))


async def test_a_request_that_cannot_be_encoded_leaves_its_neighbours_alone() -> None:
    async with hosting() as (host, encoder, _):
        outcomes = await asyncio.gather(*(ask(host, text, 2) for text in ("a", "bad")), return_exceptions=True)
        assert isinstance(outcomes[0], EncodedPrompt)
        assert isinstance(outcomes[1], InvalidRequestError)
        assert encoder.turns == [["a", "bad"]]


@pytest.mark.parametrize(
    ("text", "kind", "message"), [("poison", FlashSDError, "RuntimeError"), ("damaged", CheckpointError, "weight")]
)
async def test_one_that_breaks_the_whole_turn_does_so_too(text: str, kind: type[FlashSDError], message: str) -> None:
    async with hosting(batch_frames=3) as (host, encoder, _):
        tasks = [ask(host, one) for one in ("a", text, "b")]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [EncodedPrompt, kind, EncodedPrompt]
        assert message in str(outcomes[1])
        assert encoder.turns == [["a", text, "b"], ["a"], [text], ["b"]]
        assert (await asyncio.gather(*(ask(host, one) for one in "abc")))[2].token_ids == (ord("c"),)


async def test_a_caller_that_goes_away_while_it_waits_is_never_encoded() -> None:
    async with hosting(batch_wait_s=0) as (host, encoder, _):
        encoder.gate.clear()
        running = ask(host, "running")
        await until(lambda: host.status().num_running == 1)
        leaving, staying = ask(host, "leaving"), ask(host, "staying")
        await until(lambda: host.status().num_waiting == 2)
        leaving.cancel()
        await until(lambda: host.status().num_waiting == 1)
        encoder.gate.set()
        await asyncio.gather(running, staying)
        assert encoder.turns == [["running"], ["staying"]]
        assert leaving.cancelled()


async def test_one_that_goes_away_while_it_is_encoded_harms_nobody() -> None:
    async with hosting(batch_frames=2) as (host, encoder, _):
        encoder.gate.clear()
        leaving, staying = ask(host, "leaving"), ask(host, "staying")
        await until(lambda: host.status().num_running == 2)
        leaving.cancel()
        encoder.gate.set()
        assert len(await staying) == len("staying")
        assert leaving.cancelled()


async def test_the_last_one_that_goes_away_leaves_nothing_to_do() -> None:
    async with hosting() as (host, encoder, timer):
        leaving = ask(host, "leaving")
        await until(lambda: timer.asked == [0.5])
        leaving.cancel()
        await until(lambda: host.status().num_waiting == 0)
        timer.passes(0.5)
        await asyncio.gather(*(ask(host, one, 2) for one in "ab"))
        assert encoder.turns == [["a", "b"]]


async def test_closing_ends_the_running_turn_and_tells_those_who_wait() -> None:
    async with hosting(batch_wait_s=0) as (host, encoder, _):
        encoder.gate.clear()
        running = ask(host, "running")
        await until(lambda: host.status().num_running == 1)
        waiting = ask(host, "waiting")
        await until(lambda: host.status().num_waiting == 1)
        closing = asyncio.create_task(host.close())
        with pytest.raises(UnavailableError):
            await waiting
        encoder.gate.set()
        assert len(await running) == len("running")
        await closing
        with pytest.raises(UnavailableError):
            await host.encode(asking("late"))


async def test_with_a_real_encoder_prompts_are_what_they_are_alone_and_the_status_adds_up() -> None:
    target = load_target(str(checkpoint("llava15")), dtype="float32", device="cpu")
    alone = LocalEncoder(target)
    host = EncoderHost(LocalEncoder(target, MemoryVisualCache(2**24)), EncodingConfig(batch_frames=8))
    conversations = [Conversation.of(f"number {seed % 3}", (clip(2, seed % 3),)) for seed in range(8)]
    prompts = await asyncio.gather(*(host.encode(conversation) for conversation in conversations))
    for prompt, conversation in zip(prompts, conversations, strict=True):
        expected = alone.encode(conversation)
        assert prompt.token_ids == expected.token_ids
        assert torch.equal(prompt.embeddings, expected.embeddings)
    status = host.status()
    assert (status.num_frames, status.num_cached_frames) == (16, 10)
    assert (status.num_waiting, status.num_running) == (0, 0)
    assert status.busy_s > 0
    await host.close()
