"""The unmodified openai client against the real server: what it asks arrives, what it gets is what it knows."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from flashsd_ray.config import Config, MediaConfig
from flashsd_ray.errors import (
    CheckpointError,
    DeadlineError,
    FlashSDError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService
from tests.unit.serving_http.conftest import KEY, Serve, WatchedService

pytestmark = pytest.mark.asyncio(loop_scope="session")

HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]


def turns(request: CaptionRequest) -> list[tuple[str, list[str]]]:
    return [
        (turn.role, [part if isinstance(part, str) else f"<{part.kind}>" for part in turn.parts])
        for turn in request.turns
    ]


# --------------------------------------------------------------------------------------------------------------- chat


async def test_a_whole_answer(serve: Serve) -> None:
    served = serve()
    answer = await served.client.chat.completions.create(model="echo", messages=HELLO, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == "echo"
    assert answer.system_fingerprint == "f00d"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "0 frames: hello big world"
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 5, 12)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3


async def test_a_stream(serve: Serve) -> None:
    served = serve()
    stream = await served.client.chat.completions.create(
        model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert [delta.role for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert [delta.content for delta in deltas] == ["", "0", " frames:", " hello", " big", " world", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 6 + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * 7


async def test_the_statistics_stand_beside_openais_fields(serve: Serve) -> None:
    served = serve()
    options: dict[str, Any] = {"model": "echo", "messages": HELLO, "seed": 5}
    answer = await served.client.chat.completions.create(**options, extra_headers={"x-request-id": "mine"})
    stream = await served.client.chat.completions.create(**options, stream=True)
    chunks = [chunk async for chunk in stream]
    statistics = (answer.model_extra or {})["flashsd"]
    assert statistics["request_id"] == "mine"
    assert statistics["seed"] == 5
    assert statistics["num_new_tokens"] == 5
    assert statistics["tau"] == statistics["acceptance_rate"] == 1.0
    assert statistics["num_draft_tokens"] == statistics["num_accepted_tokens"] == statistics["rounds"] == 4
    in_stream = [(chunk.model_extra or {}).get("flashsd") for chunk in chunks]
    assert in_stream[:-1] == [None] * (len(chunks) - 1)
    assert {**in_stream[-1], "request_id": "mine"} == statistics


async def test_everything_that_a_client_says_arrives(serve: Serve) -> None:
    served = serve()
    await served.client.chat.completions.create(
        model="echo",
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": [{"type": "text", "text": "be kind"}]},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": [{"type": "text", "text": "three"}, {"type": "text", "text": "four"}]},
        ],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=77,
        stop=["x", "y"],
        seed=12,
        logprobs=True,
        top_logprobs=2,
        user="somebody",
        presence_penalty=0,
        frequency_penalty=0.0,
        n=1,
        tools=[],
        response_format={"type": "text"},
        extra_body={"top_k": 40, "ignore_eos": True, "stop_token_ids": [3], "draft_length": 0},
        extra_headers={"x-request-timeout": "5"},
    )
    (request,) = served.service.asked
    assert turns(request) == [
        ("system", ["be brief"]),
        ("system", ["be kind"]),
        ("user", ["one"]),
        ("assistant", ["two"]),
        ("user", ["three", "four"]),
    ]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.5, 0.9, 40, 12)
    assert (sampling.max_new_tokens, sampling.stop, sampling.stop_token_ids) == (77, ("x", "y"), (3,))
    assert (sampling.ignore_eos, sampling.logprobs, request.draft_length) == (True, 2, 0)
    assert request.timeout_s is not None
    assert 0 < request.timeout_s <= 5
    assert request.uses_template


async def test_what_a_client_leaves_out_has_a_value(serve: Serve) -> None:
    served = serve(default_max_new_tokens=100)
    await served.client.chat.completions.create(model="echo", messages=HELLO)
    await served.client.chat.completions.create(model="echo", messages=HELLO, max_tokens=3)
    first, second = served.service.asked
    assert (first.sampling.temperature, first.sampling.max_new_tokens, first.sampling.logprobs) == (1.0, 100, None)
    assert first.sampling.seed != second.sampling.seed
    assert second.sampling.max_new_tokens == 3
    assert first.draft_length is None
    assert first.timeout_s is not None
    assert 590 < first.timeout_s <= 600
    served = serve(default_max_new_tokens=10_000, default_temperature=0.0)
    await served.client.chat.completions.create(model="echo", messages=HELLO)
    assert served.service.asked[0].sampling.max_new_tokens == served.service.card.max_new_tokens
    assert served.service.asked[0].sampling.is_greedy


async def test_an_answer_can_be_sent_back_as_it_came(serve: Serve) -> None:
    served = serve()
    answer = await served.client.chat.completions.create(model="echo", messages=HELLO)
    spoken: Any = answer.choices[0].message
    await served.client.chat.completions.create(
        model="echo", messages=[*HELLO, spoken, spoken.model_dump(), {"role": "user", "content": "and then?"}]
    )
    said = "0 frames: hello big world"
    assert turns(served.service.asked[1])[1:3] == [("assistant", [said]), ("assistant", [said])]


async def test_pictures_and_videos(serve: Serve, picture_url: str, video_url: str) -> None:
    served = serve()
    sampled = {"url": video_url, "num_frames": 3, "start": 0.2, "end": 1.5}
    content: Any = [
        {"type": "image_url", "image_url": {"url": picture_url, "detail": "auto"}},
        {"type": "text", "text": "compare"},
        {"type": "video_url", "video_url": sampled},
        {"type": "image_url", "image_url": {"url": picture_url}},
        {"type": "video_url", "video_url": {"url": video_url, "fps": 1.0}},
    ]
    messages: Any = [{"role": "user", "content": content}, {"role": "user", "content": "well?"}]
    answer = await served.client.chat.completions.create(model="echo", messages=messages, n=2)
    first, second = served.service.asked
    assert turns(first)[0] == ("user", ["<image>", "compare", "<video>", "<image>", "<video>"])
    visuals = first.conversation.visuals
    assert visuals[0].frames.shape == (1, 4, 4, 3)
    assert visuals[0].frames.flatten().tolist() == list(range(48))
    assert len(visuals[1].frames) == 3
    assert visuals[1].timestamps_s[0] >= 0.2
    assert visuals[1].timestamps_s[-1] < 1.5
    assert answer.choices[0].message.content == f"{5 + len(visuals[3].frames)} frames: well?"
    # Several answers look at the same pixels; they are decoded once.
    assert all(one is other for one, other in zip(visuals, second.conversation.visuals, strict=True))


async def test_a_picture_is_fetched_from_a_file_that_the_operator_allows(serve: Serve, clip: Path) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": f"file://{clip}"}}]}]
    served = serve(allowed_directories=(str(clip.parent),))
    answer = await served.client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == f"{MediaConfig().num_frames} frames:"
    with pytest.raises(openai.PermissionDeniedError, match=r"serving\.allowed_directories"):
        await serve().client.chat.completions.create(model="echo", messages=messages)


async def test_several_answers(serve: Serve) -> None:
    served = serve()
    answer = await served.client.chat.completions.create(model="echo", messages=HELLO, n=3, seed=10)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [choice.message.content for choice in answer.choices] == ["0 frames: hello big world"] * 3
    assert sorted(request.sampling.seed for request in served.service.asked) == [10, 11, 12]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 15)
    assert (answer.model_extra or {})["flashsd"]["num_new_tokens"] == 15


async def test_several_answers_in_one_stream(serve: Serve) -> None:
    served = serve()
    stream = await served.client.chat.completions.create(model="echo", messages=HELLO, n=3, seed=10, stream=True)
    texts, seeds = {0: "", 1: "", 2: ""}, {}
    async for chunk in stream:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            seeds[choice.index] = (chunk.model_extra or {})["flashsd"]["seed"]
    assert set(texts.values()) == {"0 frames: hello big world"}
    assert seeds == {0: 10, 1: 11, 2: 12}


async def test_logprobs(serve: Serve) -> None:
    served = serve()
    options: dict[str, Any] = {"model": "echo", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    answer = await served.client.chat.completions.create(**options)
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content or []
    assert [entry.token for entry in content] == ["0", "frames:", "hello", "big", "world"]
    assert content[2].logprob == -0.5
    assert bytes(content[2].bytes or ()) == b"hello"
    assert [other.token for other in content[2].top_logprobs] == ["hello", "hello"]
    stream = await served.client.chat.completions.create(**options, stream=True)
    streamed = [
        entry
        async for chunk in stream
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert streamed == content


async def test_token_ids(serve: Serve) -> None:
    served = serve()
    options: dict[str, Any] = {"model": "echo", "messages": HELLO}
    asking = options | {"extra_body": {"return_token_ids": True}}
    told = (await served.client.chat.completions.create(**asking)).choices[0].model_extra or {}
    assert told["token_ids"] == [1, 2, 3, 4, 5]
    stream = await served.client.chat.completions.create(**asking, stream=True)
    extras = [chunk.choices[0].model_extra or {} async for chunk in stream]
    assert [token_id for extra in extras for token_id in extra.get("token_ids", ())] == told["token_ids"]
    untold = (await served.client.chat.completions.create(**options)).choices[0].model_extra or {}
    assert "token_ids" not in untold
    completion = await served.client.completions.create(
        model="echo", prompt=["one", "two"], extra_body={"return_token_ids": True}
    )
    assert [(choice.model_extra or {})["token_ids"] for choice in completion.choices] == [[1, 2, 3], [1, 2, 3]]


async def test_a_length_ends_an_answer(serve: Serve) -> None:
    answer = await serve().client.chat.completions.create(model="echo", messages=HELLO, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "0 frames:"


def ask_synchronously(url: str) -> tuple[str, str]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model="echo", messages=HELLO)
        with client.chat.completions.create(model="echo", messages=HELLO, stream=True) as stream:
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    return answer.choices[0].message.content or "", streamed


async def test_the_synchronous_client(serve: Serve) -> None:
    served = serve()
    answers = await asyncio.to_thread(ask_synchronously, f"http://127.0.0.1:{served.port}/v1")
    assert answers == ("0 frames: hello big world",) * 2


# -------------------------------------------------------------------------------------------------------- completions


async def test_a_completion(serve: Serve) -> None:
    served = serve()
    answer = await served.client.completions.create(model="echo", prompt="once upon", max_tokens=9, echo=False)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "0 frames: once upon"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    (request,) = served.service.asked
    assert not request.uses_template
    assert request.conversation.turns[0].parts == ("once upon",)


async def test_several_prompts(serve: Serve) -> None:
    served = serve()
    answer = await served.client.completions.create(model="echo", prompt=["one", "two"], n=2, logprobs=1)
    assert [choice.text.split()[-1] for choice in answer.choices] == ["one", "one", "two", "two"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 14
    logprobs = answer.choices[3].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["0", "frames:", "two"]
    assert logprobs.text_offset == [0, 1, 8]
    assert logprobs.top_logprobs == [{"0": -0.5}, {"frames:": -0.5}, {"two": -0.5}]


async def test_a_completion_stream(serve: Serve) -> None:
    served = serve()
    stream = await served.client.completions.create(model="echo", prompt="once", stream=True, logprobs=0)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "0 frames: once"
    assert chunks[-1].choices[0].finish_reason == "stop"
    offsets = [chunk.choices[0].logprobs.text_offset for chunk in chunks if chunk.choices[0].logprobs]
    assert offsets == [[0], [1], [8]]
    assert (chunks[-1].model_extra or {})["flashsd"]["num_new_tokens"] == 3


# ------------------------------------------------------------------------------------------------------------- models


async def test_the_models(serve: Serve) -> None:
    served = serve(model_name="lab/captioner")
    (model,) = [model async for model in await served.client.models.list()]
    assert model.id == "lab/captioner"
    assert await served.client.models.retrieve("lab/captioner") == model
    assert (model.model_extra or {})["max_model_len"] == 4096
    answer = await served.client.chat.completions.create(model="lab/captioner", messages=HELLO)
    assert answer.model == "lab/captioner"
    with pytest.raises(openai.NotFoundError) as caught:
        await served.client.models.retrieve("echo")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        await served.client.chat.completions.create(model="echo", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequestError("too long"), openai.BadRequestError),
        (OverloadedError("full", retry_after_s=2.5), openai.RateLimitError),
        (UnavailableError("starting", retry_after_s=0.1), openai.InternalServerError),
        (DeadlineError("late"), openai.InternalServerError),
    ],
)
async def test_an_error_before_the_first_chunk_has_its_status(
    serve: Serve, stream: bool, error: FlashSDError, kind: type[openai.APIStatusError]
) -> None:
    served = serve(EchoService(fails=lambda request: error))
    with pytest.raises(kind) as caught:
        await served.client.chat.completions.create(model="echo", messages=HELLO, stream=stream)
    assert caught.value.status_code == error.http_status
    assert str(error) in caught.value.message
    retry_after = {OverloadedError: "3", UnavailableError: "1"}.get(type(error))
    assert caught.value.response.headers.get("retry-after") == retry_after
    assert caught.value.request_id


@pytest.mark.parametrize("stream", [False, True])
async def test_an_internal_error_shows_nothing(serve: Serve, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    errors = [CheckpointError("weights of the secret model"), RuntimeError("secret")]
    for error in errors:
        served = serve(EchoService(fails=lambda request, error=error: error))  # type: ignore[misc]
        with pytest.raises(openai.InternalServerError) as caught:
            await served.client.chat.completions.create(
                model="echo", messages=HELLO, stream=stream, extra_headers={"x-request-id": "find-me"}
            )
        assert caught.value.status_code == 500
        assert "secret" not in str(caught.value.body)
        assert "find-me" in caplog.text
        assert "secret" in caplog.text


@pytest.mark.parametrize(
    "error", [UnavailableError("the lane was lost"), CheckpointError("secret"), RuntimeError("secret")]
)
async def test_an_error_after_the_first_chunk_ends_the_stream(serve: Serve, error: Exception) -> None:
    class Breaking(EchoService):
        async def stream(self, request: CaptionRequest) -> Any:
            async for chunk in super().stream(request):
                yield chunk
                if chunk.token_ids == (2,):
                    raise error

    served = serve(Breaking())
    stream = await served.client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    texts = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert texts == ["", "0", " frames:"]
    with pytest.raises(openai.APIError) as caught:
        await anext(stream)
    assert "secret" not in str(caught.value.body)
    if isinstance(error, UnavailableError):
        assert "the lane was lost" in caught.value.message


async def test_an_answer_without_an_end_is_no_answer(serve: Serve) -> None:
    class Stopping(EchoService):
        async def stream(self, request: CaptionRequest) -> Any:
            async for chunk in super().stream(request):
                yield chunk
                break

    served = serve(Stopping())
    with pytest.raises(openai.InternalServerError, match="cut off") as caught:
        await served.client.chat.completions.create(model="echo", messages=HELLO)
    assert caught.value.status_code == 503


async def test_one_failing_answer_fails_all_and_cancels_the_others(serve: Serve) -> None:
    service = EchoService(fails=lambda request: OverloadedError("full") if request.sampling.seed == 11 else None)
    service.gate.clear()
    served = serve(service)
    with pytest.raises(openai.RateLimitError):
        await served.client.chat.completions.create(model="echo", messages=HELLO, n=3, seed=10)
    assert len(service.asked) == 3
    assert service.open == set()


async def test_keys(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"tester:{KEY}\n")
    keys.chmod(0o600)
    served = serve(keys_file=str(keys), concurrent_requests=1)
    assert await served.client.chat.completions.create(model="echo", messages=HELLO)
    stranger = served.client.with_options(api_key="sk-other")
    with pytest.raises(openai.AuthenticationError) as caught:
        await stranger.chat.completions.create(model="echo", messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        await stranger.models.list()
    assert len(served.service.asked) == 1
    assert (await served.get("/healthz"))[0] == 200
    assert (await served.get("/readyz"))[0] == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_has_so_many_slots_and_gets_them_back(serve: Serve, stream: bool) -> None:
    service = WatchedService()
    service.gate.clear()
    served = serve(service, concurrent_requests=1)
    options: dict[str, Any] = {"model": "echo", "messages": HELLO, "stream": stream}
    waiting = asyncio.create_task(served.client.chat.completions.create(**options))
    await service.begun.wait()
    with pytest.raises(openai.RateLimitError) as caught:
        await served.client.chat.completions.create(**options)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    service.gate.set()
    answer = await waiting
    if stream:
        assert [chunk async for chunk in answer]
    await served.settled()
    assert await served.client.chat.completions.create(model="echo", messages=HELLO)


async def test_a_stream_that_is_closed_cancels_its_request(serve: Serve) -> None:
    service = WatchedService()
    served = serve(service)
    stream = await served.client.chat.completions.create(model="echo", messages=HELLO, stream=True)
    service.gate.clear()
    await stream.close()
    await service.ended.wait()
    await served.settled()


async def test_a_limit_of_the_edge(serve: Serve) -> None:
    served = serve(max_open_requests=0)
    with pytest.raises(openai.RateLimitError, match=r"serving\.max_open_requests"):
        await served.client.chat.completions.create(model="echo", messages=HELLO)


async def test_time_is_up(serve: Serve) -> None:
    served = serve()
    served.service.gate.clear()
    for stream in (False, True):
        with pytest.raises(openai.InternalServerError) as caught:
            await served.client.chat.completions.create(
                model="echo", messages=HELLO, stream=stream, extra_headers={"x-request-timeout": "0.02"}
            )
        assert caught.value.status_code == 504
    assert served.service.open == set()


async def test_too_many_pictures(serve: Serve, picture_url: str) -> None:
    content: Any = [{"type": "image_url", "image_url": {"url": picture_url}}] * 3
    served = serve(config=Config(media=MediaConfig(max_inputs=2)))
    with pytest.raises(openai.BadRequestError, match=r"media\.max_inputs allows 2"):
        await served.client.chat.completions.create(model="echo", messages=[{"role": "user", "content": content}])


async def test_pictures_fill_the_memory(serve: Serve, picture_url: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": picture_url}}] * 8
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    file_bytes = len(base64.b64decode(picture_url.partition(",")[2]))
    # The last picture is fetched when the others are decoded.
    most_bytes = len(body) + 7 * (4 * 4 * 3) + file_bytes
    assert (await serve(max_open_bytes=most_bytes).post(body))[0] == 200
    for limit in (most_bytes - 1, len(body) - 1):
        status, answer, _ = await serve(max_open_bytes=limit).post(body)
        assert status == 429
        assert "serving.max_open_bytes" in answer["error"]["message"]


async def test_pictures_of_one_request_share_a_limit(serve: Serve, picture_url: str) -> None:
    part: Any = {"type": "image_url", "image_url": {"url": picture_url}}
    served = serve(config=Config(media=MediaConfig(max_decoded_bytes=100)))
    messages: Any = [{"role": "user", "content": [part, part]}]
    assert await served.client.chat.completions.create(model="echo", messages=messages)
    messages = [{"role": "user", "content": [part, part, part]}]
    with pytest.raises(openai.APIStatusError, match=r"media\.max_decoded_bytes") as caught:
        await served.client.chat.completions.create(model="echo", messages=messages)
    assert caught.value.status_code == 413


async def test_a_video_is_no_image(serve: Serve, video_url: str) -> None:
    content: Any = [{"type": "image_url", "image_url": {"url": video_url}}]
    with pytest.raises(openai.BadRequestError, match="send it as a video_url"):
        await serve().client.chat.completions.create(model="echo", messages=[{"role": "user", "content": content}])


async def test_a_damaged_picture_is_named(serve: Serve, picture_url: str) -> None:
    content: Any = [
        {"type": "image_url", "image_url": {"url": picture_url}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        await serve().client.chat.completions.create(model="echo", messages=[{"role": "user", "content": content}])
    assert caught.value.param == "messages[0].content[1]"
