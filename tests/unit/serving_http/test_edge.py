"""The HTTP edge under clients that are careless, gone or hostile: clear errors, nothing left behind, nothing leaked."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.serving.http.body import parsed
from flashsd_ray.serving.http.fields import ChatFields, CompletionFields, RequestFields
from tests.fake_service import EchoService
from tests.unit.serving_http.conftest import Serve, Served, WatchedService

on_the_server = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
GOOD: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hello world"}]}


def part(kind: str, **content: Any) -> dict[str, Any]:
    return {**GOOD, "messages": [{"role": "user", "content": [{"type": kind, **content}]}]}


# ------------------------------------------------------------------------------------------------------------- fields

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temprature": 1}, "temprature"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": -1}, "frequency_penalty"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"audio": {"voice": "x"}}, "audio"),
    ({"store": True}, "store"),
    ({"min_p": 0.1}, "min_p"),
    ({"best_of": 2}, "best_of"),
    ({"n": 0}, "n"),
    ({"n": 9}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": True}, "n"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "0"}, "temperature"),
    ({"temperature": 1e300}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 257}, "max_tokens"),
    ({"max_tokens": 2**70}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": [""]}, None),
    ({"stop": 3}, "stop"),
    ({"stop": ["x", 3]}, "stop[1]"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ({"draft_length": -1}, "draft_length"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [3]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (part("image_url", image_url="x"), "messages[0].content[0].image_url"),
    (part("image_url", image_url={"url": "x", "detail": "low"}), "messages[0].content[0].image_url.detail"),
    (part("video_url", video_url={"url": "x", "num_frames": 0}), "messages[0].content[0].video_url.num_frames"),
    (part("video_url", video_url={"url": "x", "speed": 2}), "messages[0].content[0].video_url.speed"),
]


@on_the_server
@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[json.dumps(fields)[:60] for fields, _ in REFUSED])
async def test_what_is_not_supported_is_refused_by_name(serve: Serve, fields: dict[str, Any], param: str) -> None:
    served = serve()
    status, body, _ = await served.post({**GOOD, **fields})
    assert status == 400
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param
    assert body["error"]["type"] == "invalid_request_error"
    if param:
        assert param in body["error"]["message"]
    assert served.service.asked == []


@on_the_server
async def test_the_harmless_value_of_a_refused_field_is_named(serve: Serve) -> None:
    _, body, _ = await serve().post({**GOOD, "presence_penalty": 0.5})
    assert "send 0" in body["error"]["message"]
    assert body["error"]["code"] == "unsupported_parameter"


@on_the_server
async def test_fields_without_effect_are_accepted(serve: Serve) -> None:
    harmless = {name: values[0] for name, values in ChatFields.without_effect.items()}
    nothing = dict.fromkeys([*ChatFields.without_effect, "seed", "stop", "audio", "anything"])
    names = {"user": "me", "safety_identifier": "me", "prompt_cache_key": "mine"}
    for fields in (harmless, nothing, names, {"stream": False, "stop": "x", "top_k": -1}):
        assert (await serve().post({**GOOD, **fields}))[0] == 200
    completion = {name: values[0] for name, values in CompletionFields.without_effect.items()}
    assert (await serve().post({"prompt": "x", **completion}, TEXT))[0] == 200


@on_the_server
@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2], [3]], ["x", 1], 3, {}, [], None])
async def test_token_ids_are_no_prompt(serve: Serve, prompt: Any) -> None:
    status, body, _ = await serve().post({"prompt": prompt}, TEXT)
    assert (status, body["error"]["param"]) == (400, "prompt")


@on_the_server
@pytest.mark.parametrize(
    "fields", [{"echo": True}, {"suffix": "x"}, {"best_of": 2}, {"messages": []}, {"logprobs": True}]
)
async def test_odd_fields_of_completions_are_refused(serve: Serve, fields: dict[str, Any]) -> None:
    status, body, _ = await serve().post({"prompt": "x", **fields}, TEXT)
    assert (status, body["error"]["param"]) == (400, next(iter(fields)))


@on_the_server
async def test_prompts_and_answers_to_each_are_counted_together(serve: Serve) -> None:
    status, body, _ = await serve().post({"prompt": ["x"] * 3, "n": 3}, TEXT)
    assert status == 400
    assert "serving.max_choices allows 8" in body["error"]["message"]


# ------------------------------------------------------------------------------------------------------------- bodies


@on_the_server
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"a": NaN}', 400),
        (b'"text"', 400),
        (b"[]", 400),
        (b"[" * 100_000, 400),
        (b'{"messages":' + b"[" * 190 + b"]" * 190 + b"}", 400),
        (b"[" + b"{}," * 300_000, 413),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400),
        (json.dumps({**GOOD, "messages": [{"role": "user", "content": "x" * 100_001}]}).encode(), 413),
        (json.dumps({**GOOD, "stop": "x" * 100_001}).encode(), 413),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_damaged_bodies(serve: Serve, body: bytes, status: int) -> None:
    served = serve()
    answered, content, _ = await served.post(body)
    assert answered == status, content
    assert content["error"]["message"]
    assert served.service.asked == []


@on_the_server
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_has_a_size(serve: Serve, is_chunked: bool) -> None:
    served = serve(max_body_bytes=1000)
    for size, expected in ((1000, 200), (1001, 413), (5_000_000, 413)):
        body = json.dumps(GOOD).encode().ljust(size)

        async def pieces(body: bytes = body) -> Any:
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        headers = {"content-type": "application/json"}
        data = pieces() if is_chunked else body
        async with served.http.post(CHAT, data=data, headers=headers) as response:
            assert response.status == expected
            if expected == 413:
                assert "serving.max_body_bytes" in (await response.json())["error"]["message"]


@on_the_server
async def test_a_body_is_json(serve: Serve) -> None:
    # A page in somebody's browser may send other kinds to a server on this machine without asking it first.
    for media_type in ("text/plain", "application/x-www-form-urlencoded"):
        status, body, _ = await serve().post(json.dumps(GOOD).encode(), headers={"content-type": media_type})
        assert (status, body["error"]["param"]) == (415, "content-type")
    media_type = "Application/JSON; charset=utf-8"
    assert (await serve().post(json.dumps(GOOD).encode(), headers={"content-type": media_type}))[0] == 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
FIELD_NAMES = st.sampled_from([*ChatFields.model_fields, *ChatFields.without_effect, "prompt", "x"])


@given(
    fields=st.dictionaries(FIELD_NAMES, JSON_VALUES, max_size=6), kind=st.sampled_from([ChatFields, CompletionFields])
)
def test_whatever_a_body_holds_it_is_taken_or_refused(fields: dict[str, Any], kind: type[RequestFields]) -> None:
    with suppress(FlashSDError):
        assert isinstance(parsed(json.dumps(fields).encode(), kind, ServingConfig()), kind)


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with one place of it changed into something odd."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        return {**value, name: mutated(value[name], chance)} if chance.random() < 0.9 else {**value, f"{name}x": 1}
    if isinstance(value, list) and value and chance.random() < 0.8:
        index = chance.randrange(len(value))
        return [*value[:index], mutated(value[index], chance), *value[index + chance.randint(0, 1) :]]
    odd = [
        None,
        True,
        -1,
        0,
        2**40,
        1e308,
        "",
        "x" * 2000,
        "\x00\ud7ff\U0001f600",
        [],
        {},
        [[]],
        [value] * 3,
        {"a": value},
    ]
    return chance.choice([*odd, "file:///etc/passwd", "http://127.0.0.1:1/", "data:;base64,AAAA", "data:image/png,x"])


@on_the_server
async def test_no_body_breaks_the_server(serve: Serve, picture_url: str) -> None:
    chance = random.Random(7)
    served = serve()
    content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": picture_url}}]
    seeds: list[tuple[str, dict[str, Any]]] = [
        (CHAT, {**GOOD, "n": 2, "logprobs": True, "top_logprobs": 1, "stop": ["x"], "stream": True}),
        (CHAT, {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": content}]}),
        (CHAT, part("video_url", video_url={"url": picture_url, "num_frames": 2, "fps": 1.0, "start": 0.5, "end": 1})),
        (TEXT, {"prompt": ["a", "b"], "max_tokens": 3, "temperature": 0.5, "top_p": 0.5, "seed": 3, "logprobs": 1}),
    ]
    statuses = set()
    for turn in range(1000):
        path, seed = seeds[turn % len(seeds)]
        body = json.dumps(mutated(copy.deepcopy(seed), chance)).encode()
        if turn % 8 == 0:
            cut = chance.randrange(len(body))
            body = body[:cut] + bytes([chance.randrange(256)]) + body[cut + chance.randrange(9) :]
        async with served.http.post(path, data=body, headers={"content-type": "application/json"}) as response:
            text = await response.text()
        statuses.add(response.status)
        assert response.status < 500, (body[:300], text)
        assert response.status == 200 or json.loads(text)["error"]["message"]
    assert statuses >= {200, 400, 403}
    await served.settled()
    assert (await served.post(GOOD))[0] == 200


# ------------------------------------------------------------------------------------------------------ other requests


@on_the_server
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("OPTIONS", "/v1/chat/completions", 405),
    ],
)
async def test_other_paths_and_methods(serve: Serve, method: str, path: str, status: int) -> None:
    served = serve()
    async with served.http.request(method, path) as response:
        body = await response.json()
        assert response.status == status
        assert body["error"]["message"]
        assert response.headers["x-request-id"]


@on_the_server
async def test_request_ids(serve: Serve) -> None:
    served = serve()
    for wanted, kept in (("mine-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("\u00e9", False)):
        status, body, headers = await served.post(GOOD, headers={"x-request-id": wanted})
        assert status == 200
        assert (headers["x-request-id"] == wanted) is kept
        assert body["id"] == f"chatcmpl-{headers['x-request-id']}"
    inside = [request.request_id for request in served.service.asked]
    assert len(set(inside)) == 5
    assert inside[0].startswith("mine-1-")
    assert all(re.fullmatch(r".+-[0-9a-f]{32}", request_id) for request_id in inside)


@on_the_server
async def test_a_proxy_in_front_may_show_the_id(serve: Serve) -> None:
    status, body, headers = await serve(echoes_request_id=False).post(GOOD, headers={"x-request-id": "mine"})
    assert (status, body["id"]) == (200, "chatcmpl-mine")
    assert "x-request-id" not in headers


@on_the_server
async def test_traces(serve: Serve) -> None:
    served = serve()
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    for text in (trace, "", "nonsense", f"{trace}-more"):
        await served.post(GOOD, headers={"traceparent": text})
    assert [request.trace for request in served.service.asked] == [trace, "", "", ""]


@on_the_server
@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", ""])
async def test_a_time_limit_is_a_number(serve: Serve, text: str) -> None:
    status, body, _ = await serve().post(GOOD, headers={"x-request-timeout": text})
    assert (status, body["error"]["param"]) == (400, "x-request-timeout")


@on_the_server
async def test_a_client_cannot_ask_for_more_time_than_there_is(serve: Serve) -> None:
    served = serve(request_timeout_s=3.0)
    for text in ("1e9", "inf"):
        assert (await served.post(GOOD, headers={"x-request-timeout": text}))[0] == 200
    assert all((request.timeout_s or 9) <= 3 for request in served.service.asked)


# -------------------------------------------------------------------------------------------------------------- status


@on_the_server
async def test_health(serve: Serve) -> None:
    served = serve()
    assert (await served.get("/healthz"))[0] == 200
    status, body, _ = await served.get("/readyz")
    assert (status, body["status"], body["degraded"]) == (200, "ready", [])
    assert body["lanes"][0]["lane_id"] == "lane-0"
    served.service.degraded = ("one of two lanes is lost; the other answers",)
    served.service.is_ready = False
    status, body, _ = await served.get("/readyz")
    assert (status, body["degraded"]) == (503, ["one of two lanes is lost; the other answers"])


@on_the_server
async def test_a_service_that_cannot_say_how_it_is_is_not_ready(serve: Serve) -> None:
    class Lost(EchoService):
        async def status(self) -> Any:
            raise UnavailableError("the scheduler is lost")

    status, body, _ = await serve(Lost()).get("/readyz")
    assert (status, body["degraded"]) == (503, ["the scheduler is lost"])


@on_the_server
async def test_metrics(serve: Serve) -> None:
    async with serve().http.get("/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert await response.text() == "requests 1\n"

    async def page() -> str:
        return "requests 2\n"

    async with serve(metrics=page).http.get("/metrics") as response:
        assert await response.text() == "requests 2\n"
    assert (await serve(metrics=None).get("/metrics"))[0] == 404


# -------------------------------------------------------------------------------------------------------- disconnects


@asynccontextmanager
async def connected(served: Served, body: dict[str, Any], announced: int | None = None) -> Any:
    """A connection on which a request was sent, to be cut off by the test."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    content = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {announced or len(content)}\r\n\r\n".encode() + content)
    await writer.drain()
    yield reader
    writer.close()
    await writer.wait_closed()


@on_the_server
@pytest.mark.parametrize("fields", [{}, {"n": 3}, {"stream": True}, {"stream": True, "n": 3}])
async def test_a_client_that_goes_cancels_its_request(serve: Serve, fields: dict[str, Any]) -> None:
    service = WatchedService()
    service.gate.clear()
    served = serve(service)
    async with connected(served, {**GOOD, **fields}):
        await service.begun.wait()
    await service.ended.wait()
    await served.settled()
    assert service.open == set()
    assert len(service.asked) == fields.get("n", 1)


@on_the_server
async def test_a_client_that_goes_in_the_middle_of_a_stream_cancels_its_request(serve: Serve) -> None:
    class Halting(WatchedService):
        """Holds everything back after the first word."""

        async def stream(self, request: Any) -> Any:
            async for chunk in super().stream(request):
                self.gate.clear()
                yield chunk

    service = Halting()
    served = serve(service)
    async with connected(served, {**GOOD, "stream": True}) as reader:
        await reader.readuntil(b'"content":"0"')
        assert service.open
    await service.ended.wait()
    await served.settled()
    assert service.open == set()


@on_the_server
async def test_a_client_that_goes_before_its_body_came_leaves_nothing(serve: Serve) -> None:
    service = WatchedService()
    served = serve(service)
    room = served.app.state.edge.room
    async with connected(served, GOOD, announced=10_000):
        while room.num_bytes == 0:  # noqa: ASYNC110 - nothing in the edge would set an event for this
            await asyncio.sleep(0)
    while room.num_requests:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert room.num_bytes == 0
    assert service.asked == []


@on_the_server
async def test_a_body_that_does_not_come_is_waited_for_so_long(serve: Serve) -> None:
    served = serve(request_timeout_s=0.02)
    async with connected(served, GOOD, announced=10_000) as reader:
        assert b" 504 " in await reader.readline()


@on_the_server
async def test_a_client_that_does_not_read_is_left(serve: Serve) -> None:
    class Flooding(WatchedService):
        async def stream(self, request: Any) -> Any:
            async for chunk in super().stream(request):
                yield replace(chunk, text="x" * 10_000_000)

    served = serve(Flooding(), request_timeout_s=0.2, keepalive_s=0.01)
    room = served.app.state.edge.room
    async with connected(served, {**GOOD, "stream": True}):
        await served.service.begun.wait()
        assert room.num_requests == 1
        while room.num_requests:  # noqa: ASYNC110
            await asyncio.sleep(0)


@on_the_server
async def test_a_stream_without_news_shows_that_it_lives(serve: Serve) -> None:
    class Halting(EchoService):
        async def stream(self, request: Any) -> Any:
            async for chunk in super().stream(request):
                self.gate.clear()
                yield chunk

    service = Halting()
    served = serve(service, keepalive_s=0.005)
    async with connected(served, {**GOOD, "stream": True}) as reader:
        await reader.readuntil(b": still here")
        await reader.readuntil(b": still here")
        service.gate.set()
        await reader.readuntil(b" frames:")


@on_the_server
async def test_a_stream_reads_as_events(serve: Serve) -> None:
    served = serve()
    async with served.http.post(CHAT, json={**GOOD, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        events = (await response.text()).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    pieces = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert pieces[-1]["flashsd"]["request_id"] == response.headers["x-request-id"]
