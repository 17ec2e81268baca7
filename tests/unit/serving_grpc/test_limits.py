"""Who may ask and how much: keys, slots, places, sizes, memory; and bytes that are no message."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.fake_service import EchoService
from tests.media_files import make_animation, make_picture, numbered_frame
from tests.unit.serving_grpc.conftest import (
    Served,
    error_of,
    question,
    retry_after_s,
    serving,
    stream_error_of,
    until,
)


@pytest.fixture
def keys(tmp_path: Path) -> str:
    path = tmp_path / "keys"
    path.write_text("alice:open-sesame\n")
    return f"serving.keys_file={path}"


def _with_key(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_without_a_key_nothing_is_answered(service: EchoService, keys: str) -> None:
    async with serving(service, keys) as served:
        for metadata in (None, _with_key("guess")):
            for call in (
                served.stub.Caption(question(), metadata=metadata),
                served.stub.GetModel(pb.GetModelRequest(), metadata=metadata),
            ):
                assert (await error_of(call)).code().name == "UNAUTHENTICATED"
            stream = served.stub.CaptionStream(question(), metadata=metadata)
            assert (await stream_error_of(stream)).code().name == "UNAUTHENTICATED"
        assert not service.asked
        await served.stub.Caption(question(), metadata=_with_key("open-sesame"))
        assert (await served.stub.GetModel(pb.GetModelRequest(), metadata=_with_key("open-sesame"))).name == "echo"


async def test_a_slot_is_free_again_when_its_request_is_over(service: EchoService) -> None:
    async with serving(service, "serving.concurrent_requests=1") as served:
        await _one_holds_all_others_wait(served, service, "serving.concurrent_requests")


async def test_an_edge_that_is_full_says_when_to_come_again(service: EchoService) -> None:
    async with serving(service, "serving.max_open_requests=1") as served:
        await _one_holds_all_others_wait(served, service, "serving.max_open_requests")


async def _one_holds_all_others_wait(served: Served, service: EchoService, setting: str) -> None:
    service.gate.clear()
    first = asyncio.create_task(_answer(served))
    await until(lambda: bool(service.open))
    error = await error_of(served.stub.Caption(question()))
    assert error.code().name == "RESOURCE_EXHAUSTED"
    assert setting in str(error.details())
    assert retry_after_s(error) == 1.0
    service.gate.set()
    await first
    await _answer(served)
    refused = await error_of(served.stub.Caption(pb.CaptionRequest()))
    assert refused.code().name == "INVALID_ARGUMENT"
    await _answer(served)


async def _answer(served: Served) -> None:
    assert (await served.stub.Caption(question("yes"))).text == "0 frames: yes"


async def test_a_message_that_is_too_big_is_refused_and_the_next_answered(service: EchoService) -> None:
    async with serving(service, "serving.max_body_bytes=100000") as served:
        error = await error_of(served.stub.Caption(question("x" * 100_001)))
        assert error.code().name == "RESOURCE_EXHAUSTED"
        await _answer(served)


async def test_a_message_that_unpacks_too_big_is_refused(service: EchoService) -> None:
    async with serving(service, "serving.max_body_bytes=100000") as served:
        error = await error_of(served.stub.Caption(question("x" * 5_000_000), compression=grpc.Compression.Gzip))
        assert error.code().name == "RESOURCE_EXHAUSTED"
        await _answer(served)


async def test_pictures_of_a_request_share_one_bound_of_memory(service: EchoService) -> None:
    part = pb.Part(image=pb.Image(encoded=make_picture("PNG", numbered_frame(1))))  # 80 x 48 x 3 = 11520 bytes
    async with serving(service, "media.max_decoded_bytes=30000") as served:
        await served.stub.Caption(pb.CaptionRequest(turns=[pb.Turn(parts=[part, part, pb.Part(text="?")])]))
        error = await error_of(served.stub.Caption(pb.CaptionRequest(turns=[pb.Turn(parts=[part] * 3)])))
        assert error.code().name == "INVALID_ARGUMENT"
        assert "media.max_decoded_bytes (30000)" in str(error.details())


async def test_addresses_of_a_request_share_one_bound_of_bytes(service: EchoService) -> None:
    left: list[int] = []
    picture = make_picture("PNG", numbered_frame(1))

    async def fetch(url: str, config: object, *, max_bytes: int) -> bytes:
        left.append(max_bytes)
        return picture

    frames = pb.FrameList(frames=[pb.Image(url="https://example.org/")] * 2)
    turn = pb.Turn(parts=[pb.Part(image=pb.Image(url="https://example.org/")), pb.Part(video=pb.Video(frames=frames))])
    async with serving(service, "serving.max_body_bytes=100000", fetch=fetch) as served:
        await served.stub.Caption(pb.CaptionRequest(turns=[turn, *question().turns]))
    assert left == [100_000, 100_000 - len(picture), 100_000 - 2 * len(picture)]


REFUSED_VIDEOS: dict[str, tuple[pb.Video, str]] = {
    "no frames": (pb.Video(frames=pb.FrameList()), ".frames is empty"),
    "too many frames": (pb.Video(frames=pb.FrameList(frames=[pb.Image()] * 4)), "media.max_frames allows 3"),
    "fewer times": (
        pb.Video(frames=pb.FrameList(frames=[pb.Image()] * 2, timestamps_s=[0.0])),
        ".frames.timestamps_s holds 1 times for 2 frames",
    ),
    "frames to be sampled": (pb.Video(frames=pb.FrameList(frames=[pb.Image()]), num_frames=1), "are all looked at"),
    "a frame without a source": (pb.Video(frames=pb.FrameList(frames=[pb.Image()])), ".frames[0] has no source"),
    "an animated frame": (
        pb.Video(frames=pb.FrameList(frames=[pb.Image(encoded=make_animation("GIF"))])),
        ".frames[0] is a video or an animation",
    ),
    "frames of two sizes": (
        pb.Video(
            frames=pb.FrameList(
                frames=[
                    pb.Image(raw=pb.RawFrame(width=1, height=2, rgb=bytes(6))),
                    pb.Image(raw=pb.RawFrame(width=2, height=1, rgb=bytes(6))),
                ]
            )
        ),
        ".frames[1] has 2x1 pixels, the first has 1x2",
    ),
    "times that run backwards": (
        pb.Video(
            frames=pb.FrameList(
                frames=[pb.Image(raw=pb.RawFrame(width=1, height=1, rgb=bytes(3)))] * 2, timestamps_s=[1.0, 0.5]
            )
        ),
        ".frames.timestamps_s must not",
    ),
    "a count and a rate": (pb.Video(encoded=b"x", num_frames=2, fps=2), "exclude each other"),
}


@pytest.mark.parametrize("name", REFUSED_VIDEOS)
async def test_a_video_that_is_none_is_named(service: EchoService, name: str) -> None:
    video, message = REFUSED_VIDEOS[name]
    async with serving(service, "media.max_frames=3", "media.num_frames=3") as served:
        request = pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(video=video)])])
        error = await error_of(served.stub.Caption(request))
    assert error.code().name == "INVALID_ARGUMENT"
    assert message in str(error.details())
    assert not service.asked


@pytest.mark.parametrize("method", ["Caption", "GetModel"])
async def test_bytes_that_are_no_message_have_a_typed_answer(service: EchoService, method: str) -> None:
    async with serving(service) as served:
        error = await error_of(served.raw(method)(b"\xff\xff\xff"))
        assert error.code().name == "INVALID_ARGUMENT"
        assert "flashsd.v1." in str(error.details())
        await _answer(served)


async def test_no_mutation_of_a_request_gets_through_to_the_insides(service: EchoService) -> None:
    image = pb.Part(image=pb.Image(encoded=make_picture("PNG", numbered_frame(1))))
    raw = pb.Part(image=pb.Image(raw=pb.RawFrame(width=4, height=2, rgb=bytes(24))))
    sampling = pb.Sampling(temperature=0.5, top_p=0.9, top_k=3, seed=7, stop=["end"], max_new_tokens=9, logprobs=1)
    request = question(draft_length=3, sampling=sampling, model="echo")
    request.turns.insert(0, pb.Turn(parts=[image, raw, pb.Part(text="what is this")]))
    valid, chance = request.SerializeToString(), random.Random(0)
    answered = 0
    async with serving(service) as served:
        ask = served.raw("Caption")
        for _ in range(400):
            mutant = _mutated(valid, chance)
            code = (await ask(mutant).code()).name
            assert code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"), (code, mutant)
            answered += code == "OK"
        assert 0 < answered < 400
        await _answer(served)


def _mutated(data: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        # Near either end lie the fields; in between lies the picture.
        at = chance.choice([chance.randrange(len(mutant)), chance.randrange(40), -1 - chance.randrange(60)])
        kind = chance.randrange(4)
        if kind == 0:
            mutant[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            mutant[at:at] = chance.randbytes(chance.randint(1, 5))
        elif kind == 2:
            del mutant[at : at + chance.randint(1, 5) if at + 5 < len(mutant) else None]
        else:
            mutant[at] = chance.choice([0, 1, 127, 128, 255])
    return bytes(mutant)
