"""A container that a client sends in chunks, from the asyncio side: chunks in, frames out, one thread in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing, suppress

import numpy as np

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import SequenceError
from flashsd_ray.media.incremental import ChunkSource, frames_as_they_arrive

# Decoded frames that wait to be taken: one more than is being looked at keeps the thread busy.
READY_FRAMES = 2


class ContainerFeed:
    """Decodes one container in step with its chunks: a chunk is done when the decoder has used all of it."""

    def __init__(self, label: str, config: MediaConfig, is_wanted: Callable[[float], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = ChunkSource(label, self._hungry, config)
        self._config = config
        self._is_wanted = is_wanted
        self._results: asyncio.Queue[tuple[float, np.ndarray] | Exception | None] = asyncio.Queue()
        self._places = threading.Semaphore(READY_FRAMES)
        self._thread: threading.Thread | None = None
        self._thread_ended = asyncio.Event()
        self._is_over = False

    async def push(self, data: bytes, *, is_last: bool) -> AsyncGenerator[tuple[float, np.ndarray], None]:
        """The frames that these bytes complete: seconds since the first frame, and [H, W, 3] uint8.

        Raises:
            SequenceError: the container has ended or was given up.
            MediaError: it cannot be decoded; it is given up.
        """
        if self._is_over:
            raise SequenceError("the container has ended, or was given up; open another stream for the next one")
        if not data and not is_last:
            return
        self._source.feed(data, is_last=is_last)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="flashsd-container", daemon=True)
            self._thread.start()
        while (result := await self._results.get()) is not None:
            if isinstance(result, Exception):
                self._is_over = True
                raise result
            self._places.release()
            yield result
        self._is_over |= is_last

    async def close(self) -> None:
        """The thread has ended; what was not decoded is lost."""
        self._is_over = True
        self._source.close()
        self._places.release(READY_FRAMES)
        if self._thread is not None:
            await self._thread_ended.wait()
            self._thread.join()  # it has nothing left to do

    def _run(self) -> None:
        try:
            with closing(frames_as_they_arrive(self._source, self._config, self._is_wanted)) as frames:
                for frame in frames:
                    self._places.acquire()
                    if self._is_over:
                        break
                    self._tell(frame)
            self._tell(None)
        except Exception as error:  # noqa: BLE001 - carried to the task that pushes
            self._tell(error)
        finally:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._thread_ended.set)

    def _hungry(self) -> None:
        self._tell(None)

    def _tell(self, result: tuple[float, np.ndarray] | Exception | None) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)
