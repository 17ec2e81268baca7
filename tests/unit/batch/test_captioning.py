"""Captioning asks once for equal content, keeps order, and turns every failure into a row that says what is wrong."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from flashsd_ray.batch.captioning import Captioner, IdleClock, Origin
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.lane import for_many_requests, has_core_to_spare
from flashsd_ray.batch.parcels import ReadSegment
from flashsd_ray.batch.rows import Clip
from flashsd_ray.config import BatchConfig, Config, with_overrides
from flashsd_ray.errors import ConfigError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.types import SamplingParams, VisualInput
from tests.fake_service import EchoService

ORIGIN = Origin("echo", "f00d", "block", "d00d")


def visual(shade: int) -> VisualInput:
    frames = np.full((2, 4, 4, 3), shade, np.uint8)
    return VisualInput(kind="video", frames=frames, timestamps_s=np.array([0.0, 1.0]), duration_s=2.0)


def read(name: str, shade: int = 0, prompts: tuple[str, ...] = ()) -> ReadSegment:
    return ReadSegment(clip=Clip(row_id=name, source=f"{name}.mp4", prompts=prompts), visual=visual(shade))


async def test_equal_content_is_asked_once_and_told_as_a_copy():
    service = EchoService()
    captioner = Captioner(service, Job(prompts=("what?",)), ORIGIN)
    first = await captioner.answer([read("a", 1), read("b", 2), read("c", 1)])
    later = await captioner.answer([read("d", 2)])
    assert [one.caption for one in (*first, *later)] == ["2 frames: what?"] * 4
    assert [one.is_copy for one in (*first, *later)] == [False, False, True, True]
    assert len(service.asked) == 2
    assert first[0].content_key == first[2].content_key != first[1].content_key


async def test_sampling_parameters_and_prompts_are_part_of_what_is_equal():
    keys = {
        Job(sampling=SamplingParams(temperature=1.0, seed=seed)).content_key("digest", prompt, "model")
        for seed in (1, 2)
        for prompt in ("one", "two")
    }
    assert len(keys) == 4


async def test_prompts_of_a_row_win_and_share_its_frames():
    service = EchoService()
    captioner = Captioner(service, Job(prompts=("the run's",)), ORIGIN)
    outcomes = await captioner.answer([read("a", prompts=("one", "two")), read("b", 1)])
    assert [(one.row_id, one.prompt_index, one.prompt) for one in outcomes] == [
        ("a", 0, "one"),
        ("a", 1, "two"),
        ("b", 0, "the run's"),
    ]
    assert (outcomes[0].model, outcomes[0].drafter_fingerprint) == ("echo", "d00d")


async def test_an_unread_segment_is_an_error_row_and_asks_nothing():
    service = EchoService()
    segment = ReadSegment(clip=Clip(row_id="a", source="a.mp4"), error="MediaError", error_message="a.mp4: is empty")
    (outcome,) = await Captioner(service, Job(), ORIGIN).answer([segment])
    assert (outcome.error, outcome.error_message, outcome.finish_reason) == ("MediaError", "a.mp4: is empty", "error")
    assert not service.asked


async def test_a_refused_request_is_an_error_row_and_its_neighbours_are_answered():
    service = EchoService(fails=lambda request: InvalidRequestError("no") if request.prompt == "bad" else None)
    captioner = Captioner(service, Job(), ORIGIN)
    bad, good = await captioner.answer([read("a", prompts=("bad",)), read("b", prompts=("good",))])
    assert (bad.error, bad.error_message) == ("InvalidRequestError", "no")
    assert not good.error


async def test_an_overloaded_service_is_asked_again():
    refusals = iter([OverloadedError("full", retry_after_s=0.0)])
    service = EchoService(fails=lambda request: next(refusals, None))
    outcomes = await Captioner(service, Job(), ORIGIN).answer([read("a", 1), read("b", 2)])
    assert not any(one.error for one in outcomes)
    assert len(service.asked) == 3


async def test_what_never_fits_is_an_error_row():
    service = EchoService(fails=lambda request: OverloadedError("too large", retry_after_s=0.0))
    (outcome,) = await Captioner(service, Job(), ORIGIN).answer([read("a")])
    assert outcome.error == "InvalidRequestError"


async def test_a_lane_beyond_help_is_no_fault_of_a_row():
    service = EchoService(fails=lambda request: UnavailableError("closed"))
    with pytest.raises(UnavailableError):
        await Captioner(service, Job(), ORIGIN).answer([read("a")])


async def test_no_more_requests_are_open_than_two_batches():
    service = EchoService()
    service.gate.clear()
    captioner = Captioner(service, Job(config=Config()), ORIGIN)
    limit = 2 * Config().scheduling.max_running
    answered = asyncio.ensure_future(captioner.answer([read(str(number), number) for number in range(limit + 30)]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(service.open) == limit
    service.gate.set()
    assert len(await answered) == limit + 30


async def test_only_so_many_answers_are_remembered():
    service = EchoService()
    job = Job(config=Config(batch=BatchConfig(remembered_answers=1)))
    captioner = Captioner(service, job, ORIGIN)
    for shade in (1, 2, 1):
        await captioner.answer([read("a", shade)])
    assert len(service.asked) == 3


async def test_captions_that_shall_be_json_are_held_against_the_schema():
    schema = '{"type": "object", "required": ["subject"]}'
    captioner = Captioner(EchoService(), Job(json_schema=schema), ORIGIN)
    (outcome,) = await captioner.answer([read("a")])
    assert (outcome.error, outcome.finish_reason) == ("SchemaError", "error")
    assert outcome.caption  # what was said instead
    with pytest.raises(ConfigError, match="JSON schema"):
        Job(json_schema='{"type": "nothing"}')


def test_time_without_open_requests_is_idle_and_ends_do_not_count():
    times = iter([10.0, 12.0, 13.0, 15.0, 18.0, 20.0])
    clock = IdleClock(lambda: next(times))
    clock.begin()
    clock.begin()
    clock.end()
    clock.end()
    clock.begin()  # after three seconds of nothing
    clock.end()
    assert (clock.busy_s, clock.idle_s) == (7.0, 3.0)


def test_a_lane_encodes_in_a_thread_of_its_own_where_a_core_is_left_for_it():
    two = with_overrides(Config(), ["placement.num_lanes=2"])
    assert has_core_to_spare(Config(), "cpu", num_cores=2)
    assert not has_core_to_spare(two, "cpu", num_cores=2)
    assert has_core_to_spare(two, "cpu", num_cores=4)
    assert has_core_to_spare(two, "cuda:0", num_cores=2)


def test_what_is_left_open_is_chosen_for_many_requests_and_what_is_said_stays() -> None:
    chosen = for_many_requests(Config())
    assert (chosen.model.attention, chosen.encoding.images_per_forward) == ("model", 16)
    said = with_overrides(Config(), ["model.attention=float32", "encoding.images_per_forward=4"])
    assert for_many_requests(said) == said
