"""The second half of ``flashsd demo``: the server, asked once over HTTP and once over gRPC while frames still arrive."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from flashsd_ray.errors import ConfigError

if TYPE_CHECKING:
    from flashsd_ray.config import Config
    from flashsd_ray.serving.running import Running

PROMPT = "Describe the video in detail."


def serve_and_ask(clip: Path, config: Config) -> int:
    """A server was started, has answered over both interfaces, and is gone.

    Raises:
        ConfigError: a package is missing, or the server cannot be started.
    """
    from flashsd_ray.cli.serve import start
    from flashsd_ray.cli.terminal import Activity

    config = replace(config, serving=replace(config.serving, http_port=0, grpc_port=0))
    activity, began_s = Activity(), perf_counter()
    try:
        with start(config, None, activity.says) as running:
            activity.rests()
            print(
                f"server ready after {perf_counter() - began_s:.1f} s (placement {config.placement.kind})", flush=True
            )
            _ask_over_http(running, clip, began_s)
            _ask_over_grpc(running, clip)
            activity.says("stopping the server")
    finally:
        activity.rests()
    return 0


def _ask_over_http(running: Running, clip: Path, began_s: float) -> None:
    try:
        from openai import OpenAI
    except ModuleNotFoundError:
        raise ConfigError("this demo asks as OpenAI's users do: pip install openai") from None
    print(f"\nHTTP: openai.OpenAI(base_url={running.http_url!r}).chat.completions.create(...)", flush=True)
    data = base64.b64encode(clip.read_bytes()).decode()
    video = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
    client = OpenAI(base_url=running.http_url, api_key="none")
    asked_s, first_s = perf_counter(), None
    told = {"num_new_tokens": 0, "tau": 0.0}  # until the last chunk tells
    chunks: Any = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": [video, {"type": "text", "text": PROMPT}]}],  # type: ignore[list-item,misc]
        temperature=0,
        stream=True,
    )
    for chunk in chunks:
        text = chunk.choices[0].delta.content if chunk.choices else None
        if text:
            first_s = first_s or perf_counter()
            _show(text)
        told = (chunk.model_extra or {}).get("flashsd") or told
    first_s = first_s or perf_counter()
    print(
        f"\n  cold start to first text {first_s - began_s:.1f} s; question to first text {first_s - asked_s:.2f} s; "
        f"{told['num_new_tokens']} tokens, tau {told['tau']:.2f}",
        flush=True,
    )


def _ask_over_grpc(running: Running, clip: Path) -> None:
    from flashsd_ray.cli.main import main

    print(f"\ngRPC: flashsd stream {clip.name} --server {running.grpc_address} --every 2", flush=True)
    main(["stream", str(clip), "--server", running.grpc_address, "--every", "2", "--temperature", "0"])


def _show(text: str) -> None:
    from flashsd_ray.cli.terminal import visible

    sys.stdout.write(visible(text))
    sys.stdout.flush()
