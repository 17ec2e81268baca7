"""Requests that are answered: whole, streamed, with pictures."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.types import FinishReason, VisualInput
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.fake_service import CARD, EchoService
from tests.media_files import make_picture, make_video, numbered_frame, shown_numbers
from tests.unit.serving_grpc.conftest import question, serving


async def test_a_caption_is_answered_whole(service: EchoService) -> None:
    async with serving(service) as served:
        response = await served.stub.Caption(question("a red ball rolls"))
    assert response.text == "0 frames: a red ball rolls"
    assert response.finish_reason == pb.FINISH_REASON_STOP
    assert list(response.token_ids) == [1, 2, 3, 4, 5, 6]
    assert response.request_id == service.asked[0].request_id
    statistics = response.statistics
    assert (statistics.num_prompt_tokens, statistics.num_cached_tokens, statistics.num_new_tokens) == (7, 3, 6)
    assert (statistics.rounds, statistics.tau, list(statistics.accepted_per_position)) == (5, 1.0, [5])


async def test_a_stream_starts_goes_on_and_finishes(service: EchoService) -> None:
    async with serving(service) as served:
        events = [event async for event in served.stub.CaptionStream(question("a red ball"))]
    assert [event.WhichOneof("event") for event in events] == ["started", *["delta"] * 5, "finished"]
    assert events[0].started == pb.Started(request_id=service.asked[0].request_id, model="echo")
    assert "".join(event.delta.text for event in events) == "0 frames: a red ball"
    assert [event.delta.num_accepted for event in events[1:-1]] == [0, 1, 0, 1, 0]
    assert events[-1].finished.finish_reason == pb.FINISH_REASON_STOP
    assert events[-1].finished.statistics.num_new_tokens == 5


async def test_what_is_asked_reaches_the_service(service: EchoService) -> None:
    request = question("a b c d e f", draft_length=0)
    request.sampling.CopyFrom(pb.Sampling(temperature=0.7, top_p=0.9, top_k=5, max_new_tokens=4, seed=2**64 - 1))
    request.sampling.logprobs = 2
    request.turns.insert(0, pb.Turn(role=pb.Turn.ROLE_SYSTEM, parts=[pb.Part(text="be brief")]))
    async with serving(service) as served:
        response = await served.stub.Caption(request, timeout=50)
    (asked,) = service.asked
    assert [(turn.role, turn.parts) for turn in asked.turns] == [("system", ("be brief",)), ("user", ("a b c d e f",))]
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.7, 0.9, 5, 2**64 - 1)
    assert (sampling.max_new_tokens, sampling.logprobs, asked.draft_length) == (4, 2, 0)
    assert asked.timeout_s is not None
    assert asked.timeout_s < 52  # on the wire a deadline is rounded
    assert response.finish_reason == pb.FINISH_REASON_LENGTH
    assert len(response.logprobs) == 4
    assert [len(logprob.top) for logprob in response.logprobs] == [2] * 4


async def test_what_is_left_open_is_the_servers_choice(service: EchoService) -> None:
    async with serving(service, "serving.request_timeout_s=30") as served:
        await served.stub.Caption(question())
    (asked,) = service.asked
    assert asked.sampling.is_greedy
    assert (asked.sampling.top_p, asked.sampling.max_new_tokens, asked.sampling.logprobs) == (1.0, 128, None)
    assert asked.draft_length is None
    assert asked.timeout_s is not None
    assert asked.timeout_s <= 30


PNG = make_picture("PNG", numbered_frame(5))
RAW = pb.RawFrame(width=80, height=48, rgb=numbered_frame(5).tobytes())


@pytest.mark.parametrize(
    "image",
    [
        pb.Image(encoded=PNG),
        pb.Image(raw=RAW),
        pb.Image(url="data:image/png;base64," + base64.b64encode(PNG).decode()),
    ],
    ids=["encoded", "raw", "url"],
)
async def test_an_image_may_come_in_three_ways(service: EchoService, image: pb.Image) -> None:
    visual = await _seen(service, pb.Part(image=image))
    assert visual.kind == "image"
    assert shown_numbers(visual.frames) == [5]


async def test_a_video_file_is_sampled_as_asked(service: EchoService) -> None:
    data = make_video(num_frames=30, fps=10)
    visual = await _seen(service, pb.Part(video=pb.Video(encoded=data, num_frames=3)))
    assert shown_numbers(visual.frames) == [0, 14, 29]
    visual = await _seen(service, pb.Part(video=pb.Video(encoded=data, fps=5, start_s=1, end_s=2)))
    assert shown_numbers(visual.frames) == [10, 12, 14, 16, 18]


async def test_frames_become_a_video(service: EchoService) -> None:
    frames = pb.FrameList(frames=[pb.Image(encoded=PNG), pb.Image(raw=RAW)], timestamps_s=[1.0, 1.5])
    visual = await _seen(service, pb.Part(video=pb.Video(frames=frames)))
    assert visual.kind == "video"
    assert shown_numbers(visual.frames) == [5, 5]
    assert visual.timestamps_s.tolist() == [1.0, 1.5]
    assert visual.duration_s == 1.0


async def test_pictures_keep_their_place_between_texts(service: EchoService) -> None:
    images = [pb.Part(image=pb.Image(encoded=make_picture("PNG", numbered_frame(n)))) for n in (1, 2)]
    turns = [
        pb.Turn(parts=[images[0], pb.Part(text="one")]),
        pb.Turn(role=pb.Turn.ROLE_ASSISTANT, parts=[pb.Part(text="yes")]),
        pb.Turn(parts=[pb.Part(text="two"), images[1]]),
    ]
    async with serving(service) as served:
        await served.stub.Caption(pb.CaptionRequest(turns=turns))
    (asked,) = service.asked
    said = [
        [part if isinstance(part, str) else shown_numbers(part.frames) for part in turn.parts] for turn in asked.turns
    ]
    assert said == [[[1], "one"], ["yes"], ["two", [2]]]


async def test_the_model_and_its_limits_are_told(service: EchoService) -> None:
    async with serving(service, "sessions.max_frames=40") as served:
        model = await served.stub.GetModel(pb.GetModelRequest(model="echo"))
    assert (model.name, model.family, model.context_length) == (CARD.name, CARD.family, CARD.context_length)
    assert (model.max_new_tokens, model.drafter, model.dtype) == (CARD.max_new_tokens, CARD.drafter, CARD.dtype)
    assert (model.max_message_bytes, model.max_session_frames) == (64 * 2**20, 40)


async def test_a_refusal_after_the_start_ends_the_stream_with_its_status() -> None:
    service = EchoService(fails=lambda request: InvalidRequestError("the prompt does not fit"))
    async with serving(service) as served:
        call = served.stub.CaptionStream(question())
        assert (await call.read()).WhichOneof("event") == "started"
        assert await _code_and_details(call) == ("INVALID_ARGUMENT", "the prompt does not fit")


async def _code_and_details(call: object) -> tuple[str, str]:
    return (await call.code()).name, await call.details()  # type: ignore[attr-defined]


async def _seen(service: EchoService, part: pb.Part) -> VisualInput:
    """The picture as the service was given it."""
    async with serving(service) as served:
        response = await served.stub.Caption(pb.CaptionRequest(turns=[pb.Turn(parts=[part, pb.Part(text="?")])]))
    visual = service.asked[-1].turns[0].parts[0]
    assert isinstance(visual, VisualInput)
    assert response.text.startswith(f"{len(visual.frames)} frames:")
    assert isinstance(visual.frames, np.ndarray)
    return visual


def test_every_way_to_finish_has_a_name_on_the_wire() -> None:
    names = {f"FINISH_REASON_{reason.name}" for reason in FinishReason if reason is not FinishReason.ERROR}
    assert names | {"FINISH_REASON_UNSPECIFIED"} == set(pb.FinishReason.keys())
