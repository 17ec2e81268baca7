"""`serve deploy cluster/serve.yaml` on a Ray that somebody else started brings up a service that answers."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from openai import APIConnectionError, APIStatusError, OpenAI

from flashsd_ray.ray_environment import RAY_ENVIRONMENT
from tests.redis_server import free_port

CLUSTER = Path(__file__).parents[2] / "cluster"
BIN = Path(sys.executable).parent
START_S, LOOK_S = 400.0, 0.5


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a cluster that lets in nobody without its token, as clusters on machines of one's own should be."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {
        **os.environ,
        **token,
        **RAY_ENVIRONMENT,
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    """The address of a cluster's dashboard, which is where deployments are sent to."""
    port, ports = free_port(), [free_port() for _ in range(4)]
    options = ["--port", ports[0], "--dashboard-port", port, "--dashboard-agent-listen-port", ports[1]]
    options += ["--ray-client-server-port", ports[2], "--metrics-export-port", ports[3], "--num-cpus", 4]
    with tempfile.TemporaryDirectory(prefix="ray") as directory:
        options += ["--temp-dir", directory, "--object-store-memory", 200_000_000]
        command = [str(BIN / "ray"), "start", "--head", "--block", "--include-dashboard", "true", *map(str, options)]
        with (Path(directory) / "output").open("wb") as output:
            head = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            head.send_signal(signal.SIGTERM)  # ends what it has started, and nothing of anybody else
            try:
                head.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()


@pytest.mark.timeout(2 * START_S)
def test_the_file_is_deployed_and_the_service_answers(
    dashboard: str, environment: dict[str, str], tmp_path: Path
) -> None:
    settings = yaml.safe_load((CLUSTER / "serve.yaml").read_text(encoding="utf-8"))
    # Its ports may be taken here; everything else is as it is in the file.
    settings["http_options"]["port"] = http_port = free_port()
    settings["applications"][0]["args"]["serving"]["grpc_port"] = free_port()
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    end_s = time.monotonic() + START_S
    deploy(dashboard, path, environment, end_s)
    client = OpenAI(base_url=f"http://127.0.0.1:{http_port}/v1", api_key="none", max_retries=0, timeout=60.0)
    try:
        answer = asked(client, end_s)
    except (APIConnectionError, APIStatusError) as error:
        pytest.fail(f"{error}\n{serve('status', '--address', dashboard, environment=environment).stdout}")
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def deploy(dashboard: str, path: Path, environment: dict[str, str], end_s: float) -> None:
    """The file was taken: the dashboard may need a while until it takes any."""
    while True:
        done = serve("deploy", "--address", dashboard, str(path), environment=environment)
        if done.returncode == 0:
            return
        assert time.monotonic() < end_s, done.stderr
        time.sleep(LOOK_S)


def serve(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Ray Serve's own command said."""
    command = [str(BIN / "serve"), *words]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=START_S)


def asked(client: OpenAI, end_s: float):  # type: ignore[no-untyped-def]
    """The answer, as soon as there is one."""
    while True:
        try:
            return client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "Describe it."}], max_tokens=8, temperature=0
            )
        except (APIConnectionError, APIStatusError):
            if time.monotonic() > end_s:
                raise
            time.sleep(LOOK_S)
