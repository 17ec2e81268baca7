"""One question, one answer: what is sent, what comes back, what happens when the server is in trouble."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from flashsd_ray.client import AsyncClient, Piece, Retries, Turn
from flashsd_ray.errors import (
    AuthenticationError,
    DeadlineError,
    FlashSDError,
    InvalidRequestError,
    MediaLimitError,
    NotFoundError,
    OverloadedError,
    RefusedAddressError,
    SequenceError,
    UnavailableError,
)
from flashsd_ray.types import FinishReason, SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.unit.client.conftest import FakeTime
from tests.unit.client.scripted import FINISHED, STARTED, Servicer, delta, refuses, says, tells

Status = grpc.StatusCode
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


async def test_a_caption_holds_what_the_server_said(client: AsyncClient, servicer: Servicer) -> None:
    top = [pb.TokenLogprob(token_id=4, logprob=-0.5, text="a")]
    servicer.captions.append(says("a dog", logprobs=[pb.TokenLogprob(token_id=4, logprob=-0.5, text="a", top=top)]))
    caption = await client.caption(PIXELS, "Describe it.")
    assert (caption.text, caption.request_id, caption.token_ids) == ("a dog", "r-1", (4, 5))
    assert caption.finish_reason is FinishReason.STOP
    assert (caption.statistics.tau, caption.statistics.rounds) == (2.5, 2)
    assert caption.statistics.acceptance_rate == 0.75
    assert caption.logprobs[0].top[0].logprob == -0.5


async def test_the_request_holds_what_the_caller_said(client: AsyncClient, servicer: Servicer) -> None:
    servicer.captions.append(says())
    await client.caption(
        [PIXELS, PIXELS],
        "And now?",
        history=[Turn("system", "Be brief."), Turn("user", [PIXELS, "What is it?"]), Turn("assistant", "A dog.")],
        sampling=SamplingParams(temperature=0.5, top_p=0.9, top_k=3, max_new_tokens=5, seed=2**64 - 1, stop=("x",)),
        draft_length=0,
        model="scripted",
    )
    (request,) = servicer.requests
    assert [turn.role for turn in request.turns] == [3, 1, 2, 1]
    assert request.turns[0].parts[0].text == "Be brief."
    assert [part.WhichOneof("part") for part in request.turns[1].parts] == ["image", "text"]
    assert [part.WhichOneof("part") for part in request.turns[3].parts] == ["image", "image", "text"]
    assert request.turns[3].parts[0].image.raw.rgb == PIXELS.tobytes()
    assert (request.sampling.temperature, request.sampling.seed) == (0.5, 2**64 - 1)
    assert (request.sampling.top_k, request.sampling.max_new_tokens, request.sampling.stop) == (3, 5, ["x"])
    assert request.HasField("draft_length")
    assert request.draft_length == 0
    assert not request.sampling.HasField("logprobs")


async def test_what_the_caller_leaves_open_the_server_decides(client: AsyncClient, servicer: Servicer) -> None:
    servicer.captions.append(says())
    await client.caption((), "Hello?")
    (request,) = servicer.requests
    assert not request.HasField("sampling")
    assert not request.HasField("draft_length")
    assert servicer.deadlines == [None]
    assert not {"authorization", "x-request-id"} & servicer.metadata[0].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": SamplingParams(stop_token_ids=(3,))}, "stop_token_ids cannot be sent"),
        ({"sampling": SamplingParams(seed=-1)}, "cannot be sent"),
        ({"draft_length": -1}, "cannot be sent"),
        ({"timeout_s": 0.0}, "timeout_s must be positive"),
        ({"request_id": "a\nb"}, "printable ASCII"),
        ({"history": [Turn("robot", "x")]}, "a role is one of user, assistant, system; got 'robot'"),  # type: ignore[arg-type]
    ],
)
async def test_what_cannot_be_sent_is_refused_here(
    options: dict[str, object], message: str, client: AsyncClient, servicer: Servicer
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        await client.caption((), "Hello?", **options)  # type: ignore[arg-type]
    assert servicer.requests == []


async def test_the_caller_says_who_it_is(address: str, servicer: Servicer) -> None:
    servicer.captions.append(says())
    async with AsyncClient(address, api_key="secret") as client:
        await client.caption((), "Hello?", request_id="mine")
    assert servicer.metadata[0]["authorization"] == "Bearer secret"
    assert servicer.metadata[0]["x-request-id"] == "mine"


async def test_the_server_knows_the_time_limit(address: str, servicer: Servicer) -> None:
    servicer.captions.append(says())
    async with AsyncClient(address, timeout_s=500.0) as client:
        await client.caption((), "Hello?")
        await client.caption((), "Hello?", timeout_s=50.0)
    first, second = servicer.deadlines
    assert first is not None
    assert second is not None
    assert 100.0 < first < 510.0
    assert 0.0 < second < 60.0  # gRPC rounds it


async def test_an_answer_that_does_not_come_ends_with_the_time_limit(address: str, servicer: Servicer) -> None:
    gate = asyncio.Event()

    async def never(request: object, context: object) -> pb.CaptionResponse:
        await gate.wait()
        raise AssertionError

    servicer.captions.append(never)
    async with AsyncClient(address) as client:
        with pytest.raises(DeadlineError):
            await client.caption((), "Hello?", timeout_s=0.5)


class TestMessageSize:
    """The server's limit is learned once, and kept before anything large is sent."""

    async def test_what_is_too_large_is_not_sent(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.captions.append(says())
        servicer.model = pb.Model(max_message_bytes=1000)
        await client.caption((), "Hello?")
        with pytest.raises(MediaLimitError, match=r"the message has \d+ bytes; localhost:\d+ accepts 1000"):
            await client.caption(np.zeros((20, 20, 3), np.uint8), "Hello?")
        assert len(servicer.requests) == 1
        assert servicer.num_model_calls == 1

    async def test_a_message_above_grpcs_own_limit_arrives(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.captions.append(says())
        servicer.model = pb.Model(max_message_bytes=0)
        with pytest.raises(MediaLimitError, match="message larger than max"):
            await client.caption(np.zeros((1500, 1000, 3), np.uint8), "Hello?")
        await client.caption(np.zeros((1000, 1000, 3), np.uint8), "Hello?")
        assert len(servicer.requests[0].turns[0].parts[0].image.raw.rgb) == 3_000_000


class TestErrors:
    """A status becomes the error that this package raises for it everywhere."""

    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            (Status.INVALID_ARGUMENT, InvalidRequestError),
            (Status.UNAUTHENTICATED, AuthenticationError),
            (Status.NOT_FOUND, NotFoundError),
            (Status.FAILED_PRECONDITION, SequenceError),
            (Status.PERMISSION_DENIED, RefusedAddressError),
            (Status.DEADLINE_EXCEEDED, DeadlineError),
            (Status.INTERNAL, FlashSDError),
            (Status.UNIMPLEMENTED, FlashSDError),
        ],
    )
    async def test_by_status(
        self, code: Status, kind: type[FlashSDError], client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.captions.append(refuses(code, "because of that"))
        with pytest.raises(FlashSDError, match=r"^because of that$") as caught:
            await client.caption((), "Hello?")
        assert type(caught.value) is kind
        assert len(servicer.requests) == 1, "such a call is not made again"
        assert time.waits_s == []

    async def test_overload_says_when_to_come_again(self, address: str, servicer: Servicer) -> None:
        servicer.captions.append(refuses(Status.RESOURCE_EXHAUSTED, "full", retry_after_s=7.5))
        async with AsyncClient(address, retries=Retries(attempts=1)) as client:
            with pytest.raises(OverloadedError, match=r"^full$") as caught:
                await client.caption((), "Hello?")
        assert caught.value.retry_after_s == 7.5

    async def test_no_server(self) -> None:
        async with AsyncClient("localhost:1", retries=Retries(attempts=1)) as client:
            with pytest.raises(UnavailableError, match=r"^localhost:1: .*onnection refused"):
                await client.model()

    async def test_details_that_are_no_status(self, address: str, servicer: Servicer) -> None:
        async def garbage(request: object, context: grpc.aio.ServicerContext) -> pb.CaptionResponse:
            await context.abort(Status.RESOURCE_EXHAUSTED, "full", (("grpc-status-details-bin", b"\xff\xff"),))

        servicer.captions.append(garbage)
        async with AsyncClient(address, retries=Retries(attempts=1)) as client:
            with pytest.raises(OverloadedError, match=r"^full$") as caught:
                await client.caption((), "Hello?")
        assert caught.value.retry_after_s == 0.0


class TestRetries:
    """A call that has given nothing is made again where that may help, later and later, and not for ever."""

    async def test_a_server_that_was_away_for_a_moment(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.captions.extend([refuses(Status.UNAVAILABLE), says("there")])
        assert (await client.caption((), "Hello?", request_id="mine")).text == "there"
        assert time.waits_s == [0.1]
        assert [sent["x-request-id"] for sent in servicer.metadata] == ["mine", "mine"]

    async def test_a_server_that_stopped_in_the_middle(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.captions.extend([refuses(Status.CANCELLED), says("there")])
        assert (await client.caption((), "Hello?")).text == "there"

    async def test_the_server_says_how_long_to_wait(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        full = refuses(Status.RESOURCE_EXHAUSTED, retry_after_s=3.0)
        servicer.captions.extend([full, full, says("there")])
        assert (await client.caption((), "Hello?")).text == "there"
        assert time.waits_s == pytest.approx([3.1, 3.2])

    async def test_waits_grow_up_to_a_limit_and_end(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.captions.append(refuses(Status.UNAVAILABLE, "away"))
        with pytest.raises(UnavailableError, match="away"):
            await client.caption((), "Hello?")
        assert time.waits_s == pytest.approx([0.1, 0.2, 0.4, 0.8])
        assert len(servicer.requests) == 5

    async def test_no_wait_goes_beyond_the_time_limit(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.captions.append(refuses(Status.UNAVAILABLE, "away", retry_after_s=4.0))
        with pytest.raises(UnavailableError, match="away"):
            await client.caption((), "Hello?", timeout_s=10.0)
        assert time.now_s == pytest.approx(4.1 + 4.2)

    async def test_a_long_wait_is_left_to_the_caller(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.captions.append(refuses(Status.RESOURCE_EXHAUSTED, retry_after_s=31.0))
        with pytest.raises(OverloadedError):
            await client.caption((), "Hello?")
        assert time.waits_s == []


async def pieces_of(client: AsyncClient, **options: object) -> list[Piece]:
    return [piece async for piece in client.stream((), "Hello?", **options)]  # type: ignore[arg-type]


class TestStreaming:
    """Pieces as they are decoded; the last one says how the answer ended."""

    async def test_pieces(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.streams.append(tells(STARTED, delta("a "), delta("dog"), FINISHED))
        pieces = await pieces_of(client)
        assert [piece.text for piece in pieces] == ["a ", "dog", ""]
        assert {piece.request_id for piece in pieces} == {"r-1"}
        assert [piece.finish_reason for piece in pieces] == [None, None, FinishReason.LENGTH]
        assert pieces[0].num_accepted == 1
        assert pieces[-1].statistics is not None
        assert pieces[-1].statistics.tau == 2.5

    async def test_pieces_come_before_the_end_is_known(self, client: AsyncClient, servicer: Servicer) -> None:
        gate = asyncio.Event()
        servicer.streams.append(tells(STARTED, delta("a "), gate=gate, then=refuses(Status.INTERNAL)))
        pieces = client.stream((), "Hello?")
        assert (await pieces.__anext__()).text == "a "
        gate.set()
        with pytest.raises(FlashSDError):
            await pieces.__anext__()

    async def test_made_again_while_nothing_was_given(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        lost = refuses(Status.UNAVAILABLE)
        servicer.streams.extend([tells(then=lost), tells(STARTED, then=lost), tells(STARTED, delta("a"), FINISHED)])
        assert [piece.text for piece in await pieces_of(client)] == ["a", ""]
        assert len(time.waits_s) == 2

    async def test_what_was_given_is_left_out_when_the_connection_was_lost(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.streams.extend(
            [
                tells(STARTED, delta("a"), delta("b"), then=refuses(Status.UNAVAILABLE)),
                tells(STARTED, delta("a")),  # a server that ends before its answer does
                tells(STARTED, delta("a"), delta("b"), delta("c"), FINISHED),
            ]
        )
        pieces = [piece async for piece in client.stream((), "Hello?")]
        assert [piece.text for piece in pieces] == ["a", "b", "c", ""]
        assert pieces[-1].finish_reason is not None
        assert len(servicer.requests) == 3

    async def test_an_answer_that_came_out_differently_is_not_continued(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        servicer.streams.extend(
            [tells(STARTED, delta("a"), then=refuses(Status.UNAVAILABLE)), tells(STARTED, delta("b"), FINISHED)]
        )
        pieces = client.stream((), "Hello?")
        assert (await pieces.__anext__()).text == "a"
        with pytest.raises(UnavailableError, match="differently"):
            await pieces.__anext__()
        assert len(servicer.requests) == 2

    async def test_an_answer_without_an_end_is_not_taken_for_whole(
        self, client: AsyncClient, servicer: Servicer
    ) -> None:
        servicer.streams.append(tells(STARTED, delta("a")))
        with pytest.raises(UnavailableError, match="before its end"):
            await pieces_of(client)

    async def test_closing_early_cancels_on_the_server(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.streams.append(tells(STARTED, delta("a"), gate=asyncio.Event()))
        pieces = client.stream((), "Hello?")
        await pieces.__anext__()
        assert not servicer.cancelled.is_set()
        await pieces.aclose()
        await asyncio.wait_for(servicer.cancelled.wait(), 30)

    async def test_leaving_the_loop_cancels_on_the_server(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.streams.append(tells(STARTED, delta("a"), gate=asyncio.Event()))
        async for _piece in client.stream((), "Hello?"):
            break
        await asyncio.wait_for(servicer.cancelled.wait(), 30)


async def test_the_model_describes_itself(client: AsyncClient, servicer: Servicer) -> None:
    model = await client.model()
    assert (model.name, model.family, model.max_message_bytes) == ("scripted", "fake", 2**20)
