"""Frames on their way into the window of a session: alone, or out of a container that comes in chunks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import numpy as np

from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError
from flashsd_ray.media.sampling import exact
from flashsd_ray.sessions.clock import Clock
from flashsd_ray.sessions.container_feed import ContainerFeed
from flashsd_ray.sessions.events import PushChunk, PushFrame
from flashsd_ray.sessions.periods import Grid, Period
from flashsd_ray.sessions.pictures import check_bytes, check_window, pixels_of
from flashsd_ray.sessions.prefetching import Prefetcher
from flashsd_ray.sessions.session import Session


class Intake:
    """Takes frames over one by one, no faster than ``sessions.max_frames_per_second``."""

    def __init__(
        self,
        session: Session,
        prefetcher: Prefetcher,
        places: asyncio.Semaphore,  # one is taken up by every frame until it is acknowledged or refused
        config: Config,
        clock: Clock,
        on_period: Callable[[Period], Coroutine[Any, Any, None]],  # awaited when a period has ended
    ) -> None:
        self._session = session
        self._prefetcher = prefetcher
        self._places = places
        self._config = config
        self._clock = clock
        self._on_period = on_period
        self._container: ContainerFeed | None = None
        self._container_start_s = 0.0  # video time of the container's first frame

    async def frame(self, message: PushFrame) -> None:
        """The frame, whose place is taken already, is in the window.

        Raises:
            FlashSDError: it cannot be used; it is counted and its place is free.
        """
        label = f"frame {self._session.next_frame}"
        try:
            await self._keep_to_the_rate()
            max_frames = self._session.settings.policy.max_frames
            pixels = await pixels_of(message.image, label, self._config, max_frames=max_frames)
            await self._take(pixels, message.timestamp_s, message.image)
        except FlashSDError:
            self.count_refused()
            self._places.release()
            raise

    async def chunk(self, message: PushChunk) -> None:
        """The frames that these bytes complete are in the window.

        Raises:
            FlashSDError: the container cannot be used; it is given up.
        """
        if self._container is None:
            self._container = self._opened(message.fps)
            self._container_start_s = self._session.time_of(None)
        try:
            check_bytes(len(message.data), "chunk", self._config)
            async with aclosing(self._container.push(message.data, is_last=message.is_last)) as frames:
                async for time_s, pixels in frames:
                    await self._container_frame(pixels, self._container_start_s + time_s)
        except FlashSDError:
            await self.close()
            raise

    def count_refused(self) -> None:
        """A frame has its number, although it is not used."""
        self._session.next_frame += 1

    async def close(self) -> None:
        """No container is being decoded."""
        if self._container is not None:
            await self._container.close()

    def _opened(self, fps: float) -> ContainerFeed:
        if not (math.isfinite(fps) and fps >= 0):
            raise InvalidRequestError(f"fps must be positive, or 0 for the server's choice, got {fps}")
        grid = Grid(1 / exact(fps or self._config.sessions.frame_rate))
        return ContainerFeed("the container", self._config.media, grid.take)

    async def _container_frame(self, pixels: np.ndarray, time_s: float) -> None:
        await self._places.acquire()
        try:
            await self._keep_to_the_rate()
            max_frames = self._session.settings.policy.max_frames
            check_window(pixels, "the container", self._config, max_frames=max_frames)
            await self._take(pixels, time_s)
        except FlashSDError:
            self._places.release()
            raise

    async def _keep_to_the_rate(self) -> None:
        wait_s = self._session.rate_limit.wait_s(self._clock.now_s())
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    async def _take(
        self, pixels: np.ndarray, timestamp_s: float | None, image: bytes | np.ndarray | None = None
    ) -> None:
        session = self._session
        session.frames.prepare(pixels)
        time_s = session.time_of(timestamp_s)
        period = session.periods.ended_by(time_s) if session.periods is not None else None
        if period is not None:
            await self._on_period(period)
        session.take(pixels, time_s, image)
        self._prefetcher.frame_arrived()
