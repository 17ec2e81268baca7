"""What ranks exchange inside a forward.

Sums are taken in the order of the ranks, whatever the number of rows: every rank holds the same bits, and an answer
does not depend on who else is in the batch.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from flashsd_ray.errors import LaneLostError

_distributed: Any = torch.distributed  # its classes of groups have no types


class Ranks:
    """One end of a group of ranks; belongs to one thread."""

    def __init__(
        self,
        rank: int,
        size: int,
        store: Any,  # of torch.distributed, in which the ranks find each other
        device: torch.device,
        *,
        host: str,  # this rank's own address, as the others reach it
        timeout_s: float,  # longest wait for the others within one exchange
    ) -> None:
        """Every rank of the group is connected.

        Raises:
            LaneLostError: another one did not come in time.
        """
        self.rank = rank
        self.size = size
        self._is_nccl = device.type == "cuda"
        self._group: Any = None
        with _lost_as_one():
            make = _nccl if self._is_nccl else _gloo
            self._group = make(store, rank, size, host, timedelta(seconds=timeout_s))

    def sum(self, partial: Tensor) -> Tensor:
        """The sum of what every rank brings, the same bits everywhere.

        Raises:
            LaneLostError: another rank is lost or silent.
        """
        with _lost_as_one():
            first, *others = self._everybodys(partial)
        total = first + others[0]
        for other in others[1:]:
            total += other
        return total

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The tensor holds what rank 0 has; its shape and dtype are known to all.

        Raises:
            LaneLostError: another rank is lost or silent.
        """
        with _lost_as_one():
            self._connected.broadcast(tensor, 0).wait()
        return tensor

    def gather(self, part: Tensor) -> list[Tensor]:
        """On rank 0 what every rank brings, in their order and all of one shape; nothing elsewhere.

        Raises:
            LaneLostError: another rank is lost or silent.
        """
        parts = [torch.empty_like(part) for _ in range(self.size)] if self.rank == 0 else []
        with _lost_as_one():
            self._connected.gather(parts, part, 0).wait()
        return parts

    def close(self) -> None:
        """The connections are gone: whoever waits for this rank learns it now."""
        self._group = None

    @property
    def _connected(self) -> Any:
        if self._group is None:
            raise LaneLostError("the ranks of this lane are not connected any more")
        return self._group

    def _everybodys(self, mine: Tensor) -> Sequence[Tensor]:
        parts = [mine if rank == self.rank else torch.empty_like(mine) for rank in range(self.size)]
        if self._is_nccl:
            parts[self.rank] = torch.empty_like(mine)
            self._connected.allgather(parts, mine).wait()
            return parts
        # Half the time of gloo's own collectives for the few rows of decoding (docs/adr/0010).
        others = [rank for rank in range(self.size) if rank != self.rank]
        pending = [self._connected.recv([parts[rank]], rank, 0) for rank in others]
        pending += [self._connected.send([mine], rank, 0) for rank in others]
        for work in pending:
            work.wait()
        return parts


def listening(host: str) -> socket.socket:
    """A socket on any free port of this address alone."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    opened.bind((host, 0))
    opened.listen()
    return opened


def open_store(host: str, port: int, size: int, timeout_s: float, listener: socket.socket | None = None) -> Any:
    """The place where ranks find each other: rank 0 brings the listener, the others its address."""
    with _lost_as_one():
        return _distributed.TCPStore(
            host,
            port,
            size,
            listener is not None,
            timedelta(seconds=timeout_s),
            wait_for_workers=False,
            master_listen_fd=None if listener is None else listener.detach(),
        )


def _gloo(store: Any, rank: int, size: int, host: str, timeout: timedelta) -> Any:
    # Groups of their own, not torch's one default group: a process may lead several targets.
    options = _distributed.ProcessGroupGloo._Options()
    options._devices = [_distributed.ProcessGroupGloo.create_device(hostname=host)]
    options._timeout = timeout
    return _distributed.ProcessGroupGloo(store, rank, size, options)


def _nccl(store: Any, rank: int, size: int, host: str, timeout: timedelta) -> Any:
    options = _distributed.ProcessGroupNCCL.Options()
    options._timeout = timeout
    return _distributed.ProcessGroupNCCL(store, rank, size, options)


@contextmanager
def _lost_as_one() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LaneLostError(f"a rank of this lane is lost or silent: {reason}") from error
