"""A split target whose ranks are threads of this process: real shares, real gloo, and no second start of Python."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from flashsd_ray.config import ModelConfig
from flashsd_ray.models.parallel.loading import PartialTarget, load_leading
from flashsd_ray.models.parallel.orders import Order, encode
from flashsd_ray.models.parallel.worker import RankWorker

HOST = "127.0.0.1"


@dataclass(eq=False)
class _Rank:
    worker: RankWorker
    orders: SimpleQueue[bytes | None] = field(default_factory=SimpleQueue)
    answers: SimpleQueue[bytes] = field(default_factory=SimpleQueue)

    def run(self) -> None:
        while (line := self.orders.get()) is not None:
            answer = self.worker.handle(line)
            if answer is not None:
                self.answers.put(answer)
        self.worker.close()


class ThreadCrew:
    """Keeps the protocol of a Crew."""

    def __init__(self, config: ModelConfig) -> None:
        self.ranks = [_Rank(RankWorker(config, rank, HOST)) for rank in range(1, config.tensor_parallel)]
        self._threads = [Thread(target=rank.run, daemon=True) for rank in self.ranks]
        for thread in self._threads:
            thread.start()

    def tell(self, order: Order) -> None:
        for rank in self.ranks:
            rank.orders.put(encode(order))

    def ask(self, order: Order) -> list[dict[str, Any]]:
        self.tell(order)
        return [json.loads(rank.answers.get()) for rank in self.ranks]

    def close(self) -> None:
        for rank in self.ranks:
            rank.orders.put(None)
        for thread in self._threads:
            thread.join()


def split_target(path: Path | str, size: int, dtype: str = "float32") -> PartialTarget:
    """The checkpoint, split over so many ranks of this process."""
    config = ModelConfig(name=str(path), dtype=dtype, device="cpu", threads=1, tensor_parallel=size)  # type: ignore[arg-type]
    return load_leading(config, ThreadCrew(config), HOST)
