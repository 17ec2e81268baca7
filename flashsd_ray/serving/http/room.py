"""How much one edge holds at the same time: requests, and the bytes that they bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import OverloadedError


class Room:
    """Counts what is open; used from one event loop."""

    def __init__(self, config: ServingConfig) -> None:
        self._config = config
        self.num_requests = 0
        self.num_bytes = 0

    @contextmanager
    def seat(self) -> Iterator[Share]:
        """A place for one request, with its share of the memory; everything is given back at the end.

        Raises:
            OverloadedError: ``serving.max_open_requests`` are open.
        """
        if self.num_requests >= self._config.max_open_requests:
            raise OverloadedError(
                f"{self.num_requests} requests are open, serving.max_open_requests allows no more; come again"
            )
        self.num_requests += 1
        share = Share(self)
        try:
            yield share
        finally:
            self.num_requests -= 1
            share.give_back(share.num_bytes)

    def take(self, num_bytes: int) -> None:
        """The bytes are counted; raises OverloadedError where ``serving.max_open_bytes`` leaves no room for them."""
        limit = self._config.max_open_bytes
        if self.num_bytes + num_bytes > limit:
            raise OverloadedError(f"the open requests hold {self.num_bytes} bytes, serving.max_open_bytes is {limit}")
        self.num_bytes += num_bytes


class Share:
    """The bytes that one request holds."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """The request holds so many more; raises OverloadedError when there is no room for them."""
        self._room.take(num_bytes)
        self.num_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """The request holds so many less."""
        self._room.num_bytes -= num_bytes
        self.num_bytes -= num_bytes
