"""Both edges and the whole pipeline in this process, without Ray: placement ``local``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from flashsd_ray.actors.local_service import LocalService
from flashsd_ray.actors.metered_service import MeteredService
from flashsd_ray.config import Config
from flashsd_ray.serving.grpc.edge import open_grpc_edge
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import start as start_http
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.serving.running import Running
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.telemetry.metrics import EdgeMeters, page
from flashsd_ray.telemetry.traces import Traces, start


@asynccontextmanager
async def edges(service: LocalService, config: Config, traces: Traces) -> AsyncIterator[Running]:
    """Inside the block both edges answer for the service; after it they have finished what was open."""
    gatekeeper, meters = Gatekeeper(config.serving), EdgeMeters()

    async def metrics() -> str:
        stores = {"latents": service.store} if service.store is not None else {}
        return await page(service, meters, encoders={"encoder-0": service.encoder}, stores=stores)

    over_http = MeteredService(service, meters, "http", traces=traces)
    over_grpc = MeteredService(service, meters, "grpc", traces=traces)
    async with AsyncExitStack() as opened:
        http = await start_http(build_app(over_http, config, gatekeeper, metrics=metrics), config)
        opened.push_async_callback(http.stop)
        grpc = await open_grpc_edge(over_grpc, config, gatekeeper)
        opened.push_async_callback(grpc.stop, config.serving.drain_timeout_s)
        yield Running(
            host=config.serving.host,
            http_port=http.port,
            grpc_port=grpc.port,
            is_tls=bool(config.serving.tls_key),
        )


@contextmanager
def running(config: Config, *, says: Callable[[str], None] = lambda text: None) -> Iterator[Running]:
    """Inside the block requests are answered by a thread of this process.

    Raises:
        CheckpointError: the model cannot be loaded.
        ConfigError: a port is taken or a certificate cannot be read.
    """
    says("loading the model")
    started: Future[tuple[Running, Callable[[], None]]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(config, started)), name="flashsd-serve")
    thread.start()
    try:
        where, _ = started.result()
        yield where
    finally:
        # An interrupt may come while the model is being loaded: then the server stops as soon as it is there.
        started.add_done_callback(_stop)
        thread.join()


def _stop(started: Future[tuple[Running, Callable[[], None]]]) -> None:
    if started.exception() is None:
        started.result()[1]()


async def _serve(config: Config, started: Future[tuple[Running, Callable[[], None]]]) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    try:
        async with AsyncExitStack() as opened:
            log_as(config.telemetry, "local")
            traces = start(config.telemetry, "local")
            opened.callback(traces.close)
            service = await LocalService.start(config, traces=traces)
            opened.push_async_callback(service.close)
            where = await opened.enter_async_context(edges(service, config, traces))
            started.set_result((where, stop))
            await stopped.wait()
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
