"""Costs that are measured by themselves: decoding a clip, choosing a lane, one operation of Redis, crowded cores."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time, thread_time

import numpy as np

from flashsd_ray.bench.scaling.costs import Costs
from flashsd_ray.bench.scaling.cpu import used_s
from flashsd_ray.bench.serving.processes import process
from flashsd_ray.config import Config, MediaConfig, StoresConfig
from flashsd_ray.errors import UnavailableError
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.scheduling.routing import LaneLoad, choose_lane
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput

REPEATS = 200
ROUTED_LANES = 64
REDIS_OPERATIONS = 4000  # a tick of the clock that counts processor time is 10 ms
TTL_S = 60.0
START_S = 20.0
BUSY_S = 4.0
CROWD = 8  # requests of a lane
GRACE_S = 5.0


def decoding_s(contents: list[bytes], config: MediaConfig) -> float:
    """Processor time of decoding one of the clips; the codec's own threads count."""
    began_s = process_time()
    for index, content in enumerate(contents):
        load_visual_bytes(content, f"clip {index}", config)
    return (process_time() - began_s) / len(contents)


def routing_s() -> float:
    """Time of choosing a lane, for each lane there is."""
    lanes = [LaneLoad(f"lane-{number}", number % 7) for number in range(ROUTED_LANES)]
    began_s = thread_time()
    for number in range(REPEATS):
        choose_lane(lanes, f"picture {number}")
    return (thread_time() - began_s) / REPEATS / ROUTED_LANES


def redis_s(
    num_bytes: int,  # of the features of one request
) -> float | None:
    """Processor time of a Redis server for writing or reading such a value; None where Redis is not installed.

    Raises:
        UnavailableError: it does not come up.
    """
    if shutil.which("redis-server") is None:
        return None
    with _own_redis() as (url, pid):
        store = RedisStore(StoresConfig(url=url, timeout_s=10.0, retry_s=0.05, prefix="flashsd-bench"))
        value = os.urandom(num_bytes)
        try:
            _wait_for(lambda: store.put("warm", value, TTL_S))
            began_s = used_s(pid)
            for number in range(REDIS_OPERATIONS // 2):
                store.put(f"{number % 8}", value, TTL_S)
                store.get(f"{number % 8}")
            return (used_s(pid) - began_s) / REDIS_OPERATIONS
        finally:
            store.close()


@contextmanager
def _own_redis() -> Iterator[tuple[str, int]]:
    """Its address and its process."""
    with tempfile.TemporaryDirectory(prefix="flashsd-redis") as directory:
        socket = Path(directory) / "socket"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory]
        started = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(socket.exists)
            yield f"unix://{socket}", started.pid
        finally:
            started.terminate()
            started.wait()


def _wait_for(is_there: Callable[[], bool]) -> None:
    end_s = perf_counter() + START_S
    while not is_there():
        if perf_counter() > end_s:
            raise UnavailableError("the redis-server that is to be measured does not answer")


def crowding(config: Config, num_cores: int, draft_length: int) -> float:
    """How many times longer a lane's rounds take when every core runs a lane than when one does."""
    if num_cores < 2:
        return 1.0
    with ExitStack() as opened:
        pipes = [
            opened.enter_context(process(_decode, config, draft_length, grace_s=GRACE_S))[0] for _ in range(num_cores)
        ]
        for pipe in pipes:
            pipe.recv()  # it is loaded and warm
        alone, together = _rounds_per_s(pipes[:1]), _rounds_per_s(pipes)
    return max(1.0, alone / together)


def _rounds_per_s(pipes: Sequence[Connection]) -> float:
    """Mean of processes that work at the same time."""
    for pipe in pipes:
        pipe.send(BUSY_S)
    return sum(float(pipe.recv()) for pipe in pipes) / len(pipes)


def _decode(pipe: Connection, config: Config, draft_length: int) -> None:
    """Rounds of a lane with some requests, for as long as it is told."""
    from flashsd_ray.engine.local import Engine

    lane = Engine.local(config).lane
    numbers = count()

    def step() -> None:
        while lane.num_running + lane.num_waiting < CROWD:
            lane.submit(_request(next(numbers), draft_length))
        lane.step()

    step()
    pipe.send("ready")
    with suppress(EOFError):
        while True:
            seconds = pipe.recv()
            began_s, rounds = perf_counter(), 0
            while perf_counter() - began_s < seconds:
                step()
                rounds += 1
            pipe.send(rounds / (perf_counter() - began_s))


def _request(number: int, draft_length: int) -> CaptionRequest:
    frames = np.full((1, 64, 64, 3), number % 256, np.uint8)
    visual = VisualInput(kind="image", frames=frames, timestamps_s=np.zeros(1))
    return CaptionRequest(
        request_id=f"request {number}",
        prompt="Describe the picture.",
        visuals=(visual,),
        sampling=SamplingParams(max_new_tokens=256, ignore_eos=True),
        draft_length=draft_length,
    )


def known_costs(contents: list[bytes], media: MediaConfig, *, feature_bytes: int) -> Costs:
    """Every cost that needs no lane to be measured; that of Redis is 0 where Redis is not installed.

    Raises:
        UnavailableError: Redis does not come up.
    """
    return Costs(decode_s=decoding_s(contents, media), route_s=routing_s(), redis_s=redis_s(feature_bytes) or 0.0)
