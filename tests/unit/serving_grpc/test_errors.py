"""Requests that are refused or fail: the status, what may be retried, and what nobody is told."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from flashsd_ray import errors
from flashsd_ray.config import ServingConfig, TelemetryConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import FlashSDError, OverloadedError, UnavailableError
from flashsd_ray.serving.grpc.servicer import CaptioningServicer
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.types import CaptionRequest
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.fake_service import EchoService
from tests.unit.serving_grpc.conftest import (
    configured,
    error_of,
    question,
    retry_after_s,
    serving,
    stream_error_of,
    until,
)


def _foreseen() -> list[type[FlashSDError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FlashSDError)]
    return [kind for kind in kinds if kind.grpc_status != "INTERNAL"]


@pytest.mark.parametrize("kind", _foreseen(), ids=lambda kind: kind.__name__)
async def test_an_error_of_the_service_becomes_its_status(kind: type[FlashSDError]) -> None:
    async with serving(EchoService(fails=lambda request: kind("what went wrong: ä"))) as served:
        unary = await error_of(served.stub.Caption(question()))
        stream = await stream_error_of(served.stub.CaptionStream(question()))
    for error in (unary, stream):
        assert error.code().name == kind.grpc_status
        assert error.details() == "what went wrong: ä"


@pytest.mark.parametrize("kind", [OverloadedError, UnavailableError])
async def test_what_may_be_retried_says_when(kind: type[OverloadedError] | type[UnavailableError]) -> None:
    async with serving(EchoService(fails=lambda request: kind("not now", retry_after_s=2.5))) as served:
        assert retry_after_s(await error_of(served.stub.Caption(question()))) == 2.5
        assert retry_after_s(await stream_error_of(served.stub.CaptionStream(question()))) == 2.5


@pytest.fixture
def log_lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """What the process logged, as an operator reads it."""
    logger = logging.getLogger("flashsd_ray")
    handlers, level, propagates = logger.handlers[:], logger.level, logger.propagate
    log_as(TelemetryConfig(log_format="json"), "grpc")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    logger.handlers[:], logger.propagate = handlers, propagates
    logger.setLevel(level)


@pytest.mark.parametrize("failure", [RuntimeError("/secret/path"), errors.StaleBlockError("/secret/path")])
async def test_internals_go_to_the_log_and_not_to_the_client(
    failure: Exception, log_lines: Callable[[], list[dict[str, str]]]
) -> None:
    def fails(request: object) -> None:
        raise failure

    async with serving(EchoService(fails=fails)) as served:
        call = served.stub.Caption(question(), metadata=(("x-request-id", "mine"),))
        error = await error_of(call)
    assert error.code().name == "INTERNAL"
    assert "secret" not in str(error.details()) + str(error.trailing_metadata())
    (line,) = log_lines()
    assert line["level"] == "error"
    assert "/secret/path" in line["exception"]
    assert line["request_id"].startswith("mine-")
    assert line["request_id"] in str(error.details())


async def test_a_long_message_does_not_break_the_trailers() -> None:
    async with serving(EchoService(fails=lambda request: errors.InvalidRequestError("字" * 100_000))) as served:
        error = await error_of(served.stub.Caption(question()))
    assert error.code().name == "INVALID_ARGUMENT"
    assert str(error.details()).startswith("字字")


@pytest.mark.parametrize("given", ["a b", "x" * 129])
async def test_a_request_id_that_is_none_is_refused(service: EchoService, given: str) -> None:
    async with serving(service) as served:
        error = await error_of(served.stub.Caption(question(), metadata=(("x-request-id", given),)))
    assert error.code().name == "INVALID_ARGUMENT"
    assert "x-request-id" in str(error.details())
    assert not service.asked


async def test_a_request_id_comes_back_and_never_collides(service: EchoService) -> None:
    async with serving(service) as served:
        for _ in range(2):
            call = served.stub.Caption(question(), metadata=(("x-request-id", "same"),))
            response = await call
            assert ("x-request-id", "same") in tuple(await call.initial_metadata())
            assert response.request_id.startswith("same-")
        call = served.stub.Caption(question())
        response = await call
        assert ("x-request-id", response.request_id) in tuple(await call.initial_metadata())
    assert len({asked.request_id for asked in service.asked}) == 3


async def test_another_model_is_not_here(service: EchoService) -> None:
    async with serving(service, "serving.model_name=movies") as served:
        for name in ("movies", "echo", ""):
            await served.stub.Caption(question(model=name))
        for call in (
            served.stub.Caption(question(model="other" * 100_000)),
            served.stub.GetModel(pb.GetModelRequest(model="other" * 100_000)),
        ):
            error = await error_of(call)
            assert error.code().name == "NOT_FOUND"
            assert "'movies'" in str(error.details())
        assert (await served.stub.GetModel(pb.GetModelRequest())).name == "movies"


REFUSED: dict[str, tuple[pb.CaptionRequest, str]] = {
    "no turns": (pb.CaptionRequest(), "turns is empty"),
    "a turn without parts": (pb.CaptionRequest(turns=[pb.Turn()]), "turns[0].parts is empty"),
    "an empty part": (pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part()])]), "turns[0].parts[0] holds neither"),
    "an unknown role": (pb.CaptionRequest(turns=[pb.Turn(role=9, parts=[])]), "turns[0].role is 9"),  # type: ignore[arg-type]
    "too much text": (question("x" * 101), "serving.max_prompt_characters allows 100"),
    "many empty texts": (
        pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(text="")] * 101)]),
        "serving.max_prompt_characters allows 100",
    ),
    "a long stop string": (
        question(sampling=pb.Sampling(stop=["x" * 101])),
        "serving.max_prompt_characters",
    ),
    "many stop strings": (
        question(sampling=pb.Sampling(stop=["x"] * 17)),
        "serving.max_stop_strings allows 16",
    ),
    "an empty stop string": (question(sampling=pb.Sampling(stop=[""])), "sampling: a stop string"),
    "a temperature that is no number": (
        question(sampling=pb.Sampling(temperature=float("nan"))),
        "sampling: temperature",
    ),
    "too many alternatives": (question(sampling=pb.Sampling(logprobs=21)), "sampling: logprobs"),
    "an image without a source": (
        pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(image=pb.Image())])]),
        "turns[0].parts[0].image has no source",
    ),
    "a raw frame that is too short": (
        pb.CaptionRequest(
            turns=[pb.Turn(parts=[pb.Part(image=pb.Image(raw=pb.RawFrame(width=2, height=2, rgb=b"12")))])]
        ),
        "turns[0].parts[0].image.raw: 2x2 pixels are 12 bytes",
    ),
    "a picture that is none": (
        pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(video=pb.Video(encoded=b"no video at all"))])]),
        "turns[0].parts[0].video",
    ),
    "too many pictures": (
        pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(image=pb.Image())] * 3)]),
        "media.max_inputs allows 2",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_served_is_named(service: EchoService, name: str) -> None:
    request, message = REFUSED[name]
    async with serving(service, "serving.max_prompt_characters=100", "media.max_inputs=2") as served:
        unary = await error_of(served.stub.Caption(request))
        stream = await stream_error_of(served.stub.CaptionStream(request))
    for error in (unary, stream):
        assert error.code().name == "INVALID_ARGUMENT"
        assert message in str(error.details())
    assert not service.asked


async def test_an_address_that_nobody_allowed_is_not_fetched(service: EchoService, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    image = pb.Image(url=f"file://{tmp_path}/secret.png")
    async with serving(service) as served:
        request = pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(image=image)])])
        error = await error_of(served.stub.Caption(request))
    assert error.code().name == "PERMISSION_DENIED"


async def test_the_deadline_of_the_client_holds_while_pictures_are_fetched(service: EchoService) -> None:
    is_cancelled = asyncio.Event()

    async def never(url: str, config: ServingConfig, *, max_bytes: int) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()
        raise AssertionError

    request = pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(image=pb.Image(url="https://example.org/"))])])
    async with serving(service, "serving.request_timeout_s=0.05", fetch=never) as served:
        error = await error_of(served.stub.Caption(request))
        assert error.code().name == "DEADLINE_EXCEEDED"
        assert "pictures" in str(error.details())
        await is_cancelled.wait()
    assert not service.asked


async def test_the_client_cannot_ask_for_more_time_than_there_is(service: EchoService) -> None:
    async with serving(service, "serving.request_timeout_s=20") as served:
        await served.stub.Caption(question(), timeout=500)
    assert service.asked[0].timeout_s is not None
    assert service.asked[0].timeout_s <= 20


@pytest.mark.parametrize("method", ["Caption", "CaptionStream"])
async def test_a_client_that_leaves_frees_its_request(service: EchoService, method: str) -> None:
    service.gate.clear()
    async with serving(service, "serving.max_open_requests=1", "serving.concurrent_requests=1") as served:
        call = getattr(served.stub, method)(question())
        reading = asyncio.create_task(_consume(call))
        await until(lambda: bool(service.open))
        call.cancel()
        await until(lambda: not service.open)
        await asyncio.wait([reading])
        service.gate.set()
        assert (await served.stub.Caption(question("still here"))).text == "0 frames: still here"


async def test_a_deadline_that_passes_frees_the_request(service: EchoService) -> None:
    service.gate.clear()
    async with serving(service) as served:
        error = await error_of(served.stub.Caption(question(), timeout=0.2))
        assert error.code().name == "DEADLINE_EXCEEDED"
        await until(lambda: bool(service.asked) and not service.open)


class Talkative(EchoService):
    """Never ends, and says so much at a time that a client that does not read holds it up."""

    num_taken = 0

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        self.open.add(request.request_id)
        try:
            while True:
                yield Chunk(request_id=request.request_id, text="x" * 1_000_000)
                self.num_taken += 1
        finally:
            self.open.discard(request.request_id)


async def test_a_client_that_does_not_read_and_leaves_frees_its_request() -> None:
    service = Talkative()
    async with serving(service) as served:
        call = served.stub.CaptionStream(question())
        assert (await call.read()).WhichOneof("event") == "started"
        taken = -1
        while taken != service.num_taken:  # until it stands still
            taken = service.num_taken
            for _ in range(2000):
                await asyncio.sleep(0)
        assert service.open
        call.cancel()
        await until(lambda: not service.open)


async def _consume(call: object) -> None:
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call  # type: ignore[misc]
    except asyncio.CancelledError:
        pass


class ProxyContext:
    """What a context in Ray Serve's replica can do: no deadline, no initial metadata, and nothing to abort."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.trailing_metadata: list[tuple[str, object]] = []

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("x-request-id", "mine")]

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, object]]) -> None:
        self.trailing_metadata = trailing_metadata


def _proxied(service: EchoService) -> CaptioningServicer:
    config = configured()
    return CaptioningServicer(service, config, Gatekeeper(config.serving))


async def test_the_servicer_answers_behind_a_proxy_as_well(service: EchoService) -> None:
    context = ProxyContext()
    response = await _proxied(service).Caption(question("hello"), context)
    events = [event async for event in _proxied(service).CaptionStream(question("hello"), context)]
    assert response.text == "".join(event.delta.text for event in events) == "0 frames: hello"
    assert response.request_id.startswith("mine-")
    assert context.code is None


async def test_behind_a_proxy_a_whole_answer_sets_the_status_and_a_stream_raises_it() -> None:
    servicer = _proxied(EchoService(fails=lambda request: OverloadedError("full", retry_after_s=2)))
    context = ProxyContext()
    assert await servicer.Caption(question(), context) == pb.CaptionResponse()
    assert (context.code, context.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert [key for key, _ in context.trailing_metadata] == ["grpc-status-details-bin"]
    context = ProxyContext()
    with pytest.raises(OverloadedError):
        async for _ in servicer.CaptionStream(question(), context):
            pass
    assert (context.code, context.details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
