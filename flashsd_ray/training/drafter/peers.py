"""Processes that train one drafter together: each on its own part of the data, all with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.network import DrafterNetwork


@dataclass(frozen=True, slots=True)
class Peers:
    """Where this process stands among them."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Peers:
        """As torch's process group says; alone where there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrapped(self, network: DrafterNetwork) -> Callable[[Lesson], Answers]:
        """The network's forward; going back through it averages the gradients of all processes."""
        if self.size == 1:
            return network
        # A batch without pictures gives the compressor no gradient.
        return DistributedDataParallel(network, find_unused_parameters=True)

    def largest(self, value: float, device: torch.device) -> float:
        """The largest of the values that the processes have, so that all decide alike."""
        return self._joined(value, device, dist.ReduceOp.MAX)

    def total(self, value: float, device: torch.device) -> float:
        """The sum of the values that the processes have."""
        return self._joined(value, device, dist.ReduceOp.SUM)

    def _joined(self, value: float, device: torch.device, operation: Any) -> float:
        if self.size == 1:
            return value
        values = torch.tensor([value], dtype=torch.float32, device=device)
        dist.all_reduce(values, op=operation)
        return float(values)
