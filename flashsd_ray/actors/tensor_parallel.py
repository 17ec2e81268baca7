"""Ranks of a split target as parts of a cluster: rank 0 is the lane, the others listen for its orders.

Orders come over a channel that proves who sends them. A rank whose lane is gone is of no use to anybody: it says so when
it is asked how it is, and whoever looks after it ends it with its lane.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

from flashsd_ray.actors.rank_address import RankAddress
from flashsd_ray.config import ModelConfig
from flashsd_ray.errors import LaneLostError, UnavailableError
from flashsd_ray.models.parallel.loading import PartialTarget, load_leading
from flashsd_ray.models.parallel.orders import Order, encode
from flashsd_ray.models.parallel.worker import RankWorker
from flashsd_ray.models.pretrained import limit_threads
from flashsd_ray.wire.channel import Channel
from flashsd_ray.wire.listener import Listener

log = logging.getLogger(__name__)

ORDER_BYTES = 2**20  # largest order or answer; both are a line each


class RankHost:
    """Any rank but the first; a handler for wire/listener.py."""

    def __init__(self, config: ModelConfig, rank: int, host: str) -> None:
        """The rank's share is being loaded."""
        self.rank = rank
        self._worker: Future[RankWorker] = Future()
        self._failure = ""
        Thread(target=self._load, args=(config, host), daemon=True, name=f"flashsd-rank-{rank}").start()

    def listen(self, address: str, key: bytes) -> Listener:
        """Where the lane finds this rank, once the listener serves.

        Raises:
            UnavailableError: the address is taken or not ours.
            ConfigError: the address is neither ``unix:PATH`` nor ``tcp:HOST:PORT``.
        """
        return Listener(address, key, self, max_frame_bytes=ORDER_BYTES)

    def check(self) -> None:
        """Nothing is wrong with this rank.

        Raises:
            FlashSDError: its share could not be loaded.
            UnavailableError: its lane is gone, or an order could not be carried out.
        """
        if self._worker.done():
            self._worker.result()
        if self._failure:
            raise UnavailableError(f"rank {self.rank} has ended: {self._failure}")

    def handle(self, message: bytes | bytearray) -> bytes | None:
        """The order was carried out; the answer to it, where one is due.

        Raises:
            FlashSDError: it could not be, and the rank has ended.
        """
        worker = self._worker.result()
        self.check()
        try:
            return worker.handle(message)
        except BaseException as error:
            self._end(str(error) or type(error).__name__)
            raise

    def forget(self) -> None:
        """The rank has ended: its lane is gone."""
        self._end("its lane is gone")

    def _load(self, config: ModelConfig, host: str) -> None:
        try:
            self._worker.set_result(RankWorker(config, self.rank, host))
        except BaseException as error:
            log.exception("rank %d could not load its share", self.rank)
            self._worker.set_exception(error)

    def _end(self, reason: str) -> None:
        self._failure = self._failure or reason
        if self._worker.done() and self._worker.exception() is None:
            self._worker.result().close()


class RemoteCrew:
    """The ranks that listen somewhere in the cluster; belongs to one thread at a time."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = channels

    @classmethod
    def at(cls, ranks: Sequence[RankAddress]) -> RemoteCrew:
        """The ranks that RankHosts serve at these addresses, in their order.

        Raises:
            UnavailableError: one of them is not there.
            AuthenticationError: one of them has another key.
        """
        return cls([Channel.connect(one.address, one.key, max_frame_bytes=ORDER_BYTES) for one in ranks])

    def tell(self, order: Order) -> None:
        """Every rank gets the order.

        Raises:
            LaneLostError: one of them is gone.
        """
        line = encode(order)
        for rank, channel in enumerate(self._channels, start=1):
            try:
                channel.send(line)
            except UnavailableError as error:
                raise LaneLostError(f"rank {rank} is lost: {error}") from error

    def ask(self, order: Order) -> list[dict[str, Any]]:
        """What every rank answers.

        Raises:
            LaneLostError: one of them is gone, or could not load its share.
        """
        self.tell(order)
        answers = []
        for rank, channel in enumerate(self._channels, start=1):
            try:
                answers.append(json.loads(channel.receive()))
            except UnavailableError as error:
                raise LaneLostError(f"rank {rank} is lost: {error}") from error
        return answers

    def close(self) -> None:
        """The ranks have learned that they are not needed any more."""
        for channel in self._channels:
            channel.close()


def lead_ranks(config: ModelConfig, ranks: Sequence[RankAddress], host: str) -> PartialTarget:
    """The target, of which this process is rank 0 and the others are at these addresses.

    Effects:
        Sets the number of CPU threads that torch uses in this process.

    Raises:
        CheckpointError: it is missing, damaged or unsupported, or cannot be split over so many ranks.
        UnavailableError: one of the ranks is not there.
    """
    target = load_leading(config, RemoteCrew.at(ranks), host)
    limit_threads(target.decoder, config.threads)
    return target
