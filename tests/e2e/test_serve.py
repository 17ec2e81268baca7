"""``flashsd serve`` as an operator runs it, asked by the clients that people have."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from openai import BadRequestError, OpenAI

from flashsd_ray import CaptionRequest, Client, Config, Engine, load_visual
from flashsd_ray.config import with_overrides
from flashsd_ray.types import SamplingParams
from tests.e2e.conftest import environment

PROMPT = "Describe the video in detail."


@dataclass(frozen=True)
class Server:
    http_url: str
    grpc_address: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    options = ["--placement", "local", "--http-port", "0", "--grpc-port", "0", "--dtype", "float32"]
    command = [sys.executable, "-m", "flashsd_ray", "serve", *options, "--set", "telemetry.log_level=error"]
    # A session of its own, so that nothing meant for the tests reaches it.
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    http, grpc = re.search(r"HTTP +(\S+)", said), re.search(r"gRPC +(\S+)", said)
    assert http is not None, said
    assert grpc is not None, said
    yield Server(http[1], grpc[1], process)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0


def data_url(clip: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def expected(clips: list[Path]) -> list[str]:
    engine = Engine.local(with_overrides(Config(), ["model.dtype=float32"]))
    requests = [
        CaptionRequest(
            request_id=clip.name,
            prompt=PROMPT,
            visuals=(load_visual(clip, engine.config.media),),
            sampling=SamplingParams(max_new_tokens=96),
            draft_length=0,
        )
        for clip in clips
    ]
    return [engine.caption(request).text for request in requests]


def test_openai_and_grpc_clients_read_what_the_engine_writes(
    server: Server, clips: list[Path], expected: list[str]
) -> None:
    openai = OpenAI(base_url=server.http_url, api_key="none")
    (model,) = openai.models.list().data
    for clip, text in zip(clips, expected, strict=True):
        answer = openai.chat.completions.create(
            model=model.id,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "video_url", "video_url": {"url": data_url(clip)}},  # type: ignore[list-item,misc]
                        {"type": "text", "text": PROMPT},
                    ],
                }
            ],
            temperature=0,
            max_tokens=96,
        )
        assert answer.choices[0].message.content == text
    with Client(server.grpc_address) as client:
        for clip, text in zip(clips, expected, strict=True):
            caption = client.caption(str(clip), PROMPT, sampling=SamplingParams(max_new_tokens=96))
            assert caption.text == text
            assert caption.statistics.tau > 1


def test_frames_that_were_filmed_one_by_one_answer_like_the_file(
    server: Server, clips: list[Path], expected: list[str]
) -> None:
    video = load_visual(clips[0], Config().media)
    with Client(server.grpc_address) as client, client.watch(prompt=PROMPT) as session:
        for frame, timestamp_s in zip(video.frames, video.timestamps_s, strict=True):
            session.send(frame, float(timestamp_s))
        answer = session.answer(sampling=SamplingParams(max_new_tokens=96))
    assert answer.text == expected[0]
    # Every frame but the last rows was in the cache before the question came.
    assert answer.statistics.num_cached_tokens > 0.8 * answer.statistics.num_prompt_tokens


def test_mistakes_are_named(server: Server) -> None:
    openai = OpenAI(base_url=server.http_url, api_key="none", max_retries=0)
    with pytest.raises(BadRequestError, match="logit_bias"):
        openai.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hello"}], logit_bias={"1": 5}
        )


def test_metrics_count_what_happened(server: Server) -> None:
    page = urlopen(server.http_url.removesuffix("/v1") + "/metrics").read().decode()
    for name, labels in (
        ("flashsd_requests_total", 'edge="grpc",outcome="stop"'),
        ("flashsd_lane_draft_tokens_total", 'lane="lane-0"'),
        ("flashsd_lane_cached_prompt_tokens_total", 'lane="lane-0"'),
    ):
        assert re.search(rf"^{name}\{{{labels}\}} [1-9]", page, flags=re.MULTILINE), f"{name}\n{page}"
