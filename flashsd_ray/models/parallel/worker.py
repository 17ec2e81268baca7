"""What a rank other than the first does: load its share, connect, and carry out orders until rank 0 is gone."""

from __future__ import annotations

import json
import resource
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flashsd_ray.config import ModelConfig
from flashsd_ray.errors import ProtocolError
from flashsd_ray.models.decoder import Decoder
from flashsd_ray.models.parallel.decoders import Follower, SplitDecoder
from flashsd_ray.models.parallel.loading import load_share
from flashsd_ray.models.parallel.orders import Hello, Join, Measure, decode
from flashsd_ray.models.parallel.ranks import Ranks, open_store
from flashsd_ray.models.pretrained import limit_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How much memory a rank uses."""

    rank: int
    weight_bytes: int  # of layers, embedding and head; copies packed for the processor are not counted
    peak_bytes: int  # most memory that the process had, the libraries it imports included


class RankWorker:
    """One rank; its methods are called by one thread."""

    def __init__(self, config: ModelConfig, rank: int, host: str, *, sharing: int = 1) -> None:
        """The rank's share is in memory.

        Raises:
            CheckpointError: the checkpoint is missing, damaged or unsupported, or cannot be split over so many ranks.
        """
        self.rank = rank
        self._size = config.tensor_parallel
        self._host = host
        self._text_model, self._head = load_share(config, rank)
        self._threads, self._sharing = config.threads, sharing
        self._follower: Follower | None = None

    def handle(self, line: bytes | bytearray) -> bytes | None:
        """The order was carried out; what is answered, where an answer is due.

        Raises:
            ProtocolError: the line is no order, or comes too early.
            LaneLostError: another rank is lost or silent.
        """
        order = decode(line)
        if isinstance(order, Hello):
            return b"{}"
        if isinstance(order, Join):
            self._join(order)
            return None
        if self._follower is None:
            raise ProtocolError("a rank was sent an order before it was told where the others are")
        if isinstance(order, Measure):
            return json.dumps(asdict(holding_of(self._follower.decoder, self.rank))).encode()
        self._follower.carry_out(order)
        return None

    def close(self) -> None:
        """Whoever waits for this rank learns that it is gone."""
        if self._follower is not None:
            self._follower.decoder.ranks.close()

    def _join(self, order: Join) -> None:
        store = open_store(order.host, order.port, self._size, order.timeout_s)
        device = self._head.device
        ranks = Ranks(self.rank, self._size, store, device, host=self._host, timeout_s=order.timeout_s)
        decoder = SplitDecoder(self._text_model, self._head, ranks)
        limit_threads(decoder, self._threads, self._sharing)
        self._follower = Follower(decoder)


def holding_of(decoder: Decoder, rank: int) -> Holding:
    """What this process holds of a decoder."""
    tensors = [decoder.embedding, decoder.final_norm]
    if decoder.lm_head.data_ptr() != decoder.embedding.data_ptr():
        tensors.append(decoder.lm_head)
    for layer in decoder.layers:
        tensors += [layer.input_norm, layer.post_norm]
        tensors += [norm for norm in (layer.query_norm, layer.key_norm) if norm is not None]
        for linear in (layer.qkv, layer.out, layer.gate_up, layer.down):
            tensors += [linear.weight, *([] if linear.bias is None else [linear.bias])]
    return Holding(rank=rank, weight_bytes=sum(tensor.nbytes for tensor in tensors), peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """Most memory that this process had since it began, or since ``forget_peak``."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
