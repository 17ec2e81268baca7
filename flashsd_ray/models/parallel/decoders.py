"""The decode loop on several ranks: rank 0 leads, the others carry out what it tells them.

The loop itself is Decoder's. A rank's projections make its own heads and feed-forward units; what they add to the
residual stream is summed over the ranks twice a layer, so that every rank goes on with the same rows. Only rank 0 knows
requests, tokens and drafts: the others see rows and where their keys are kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from flashsd_ray.models.decoder import Decoder, DecoderOutput, FlatBatch, RowGroup
from flashsd_ray.models.kv_cache import KVCache
from flashsd_ray.models.linear import FixedLinear
from flashsd_ray.models.parallel.orders import Forward, GroupShape, Head, NewCache, Order
from flashsd_ray.models.parallel.ranks import Ranks


class Crew(Protocol):
    """The other ranks, as rank 0 reaches them."""

    def tell(self, order: Order) -> None:
        """Every other rank gets the order.

        Raises:
            LaneLostError: one of them is gone.
        """
        ...

    def ask(self, order: Order) -> list[dict[str, Any]]:
        """What each of them answers to an order that is answered.

        Raises:
            LaneLostError: one of them is gone.
            CheckpointError: one of them could not load its share.
        """
        ...

    def close(self) -> None:
        """The other ranks have been told to end."""
        ...


class SplitDecoder(Decoder):
    """One rank's part of a decoder."""

    def __init__(self, text_model: nn.Module, lm_head: Tensor, ranks: Ranks) -> None:
        super().__init__(text_model, lm_head)
        self.ranks = ranks

    def _added(self, hidden: Tensor, linear: FixedLinear, rows: Tensor) -> Tensor:
        # The residual stream is the same everywhere, so one rank brings it along.
        return self.ranks.sum(linear.plus(hidden, rows) if self.ranks.rank == 0 else linear(rows))


class LeadingDecoder(SplitDecoder):
    """Rank 0: to its caller it is a whole decoder."""

    def __init__(
        self,
        text_model: nn.Module,
        lm_head: Tensor,  # [V, D], or the first of the ranks' parts
        ranks: Ranks,
        crew: Crew,
        *,
        vocab_size: int,
    ) -> None:
        super().__init__(text_model, lm_head, ranks)
        self.crew = crew
        self._vocab_size = vocab_size
        self._lock = RLock()  # an order and what follows it are one
        self._cache_numbers: WeakKeyDictionary[KVCache, int] = WeakKeyDictionary()
        self._numbers = itertools.count()

    @property
    def vocab_size(self) -> int:
        """V, of all ranks together."""
        return self._vocab_size

    def new_cache(self, num_rows: int, tap_width: int = 0) -> KVCache:
        """An empty cache: this rank's heads are here, those of the others on their ranks."""
        cache = super().new_cache(num_rows, tap_width)
        number = next(self._numbers)
        with self._ordered(NewCache(number=number, num_rows=num_rows, in_use=tuple(self._cache_numbers.values()))):
            self._cache_numbers[cache] = number
        return cache

    @torch.inference_mode()
    def forward(self, batch: FlatBatch, cache: KVCache, tap_layers: Sequence[int] = ()) -> DecoderOutput:
        """All rows went through all layers on all ranks.

        Raises:
            LaneLostError: a rank is lost or silent; no further forward can succeed.
        """
        order = Forward(
            cache=self._cache_numbers[cache],
            num_rows=len(batch.cache_rows),
            groups=tuple(_shape_of(group) for group in batch.groups),
            deepstack=tuple(len(rows) for rows, _ in batch.deepstack),
        )
        with self._ordered(order):
            self.ranks.broadcast(torch.cat([batch.cache_rows, *_places(batch)]))
            self.ranks.broadcast(torch.cat([batch.embeddings, batch.cos, batch.sin], dim=-1))
            for _, added in batch.deepstack:
                self.ranks.broadcast(added.contiguous())
            return super().forward(batch, cache, tap_layers)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """The head applied to hidden rows: [.., D] -> [.., V]; by this rank alone where it holds the whole head.

        Raises:
            LaneLostError: a rank is lost or silent; no further forward can succeed.
        """
        if len(self.lm_head) == self.vocab_size:
            return super().logits(hidden)
        rows = hidden.reshape(-1, self.hidden_size).contiguous()
        with self._ordered(Head(num_rows=len(rows))):
            parts = self.ranks.gather(super().logits(self.ranks.broadcast(rows)))
        return torch.cat(parts, dim=-1)[:, : self.vocab_size].view(*hidden.shape[:-1], -1)

    def close(self) -> None:
        """The group has ended; every later forward raises LaneLostError."""
        self.ranks.close()
        self.crew.close()

    @contextmanager
    def _ordered(self, order: Order) -> Iterator[None]:
        with self._lock:
            try:
                self.crew.tell(order)
                yield
            except BaseException:
                # Whatever it was, the ranks do not stand at the same place any more.
                self.close()
                raise


class Follower:
    """Any other rank."""

    def __init__(self, decoder: SplitDecoder) -> None:
        self.decoder = decoder
        self._caches: dict[int, KVCache] = {}

    @torch.inference_mode()
    def carry_out(self, order: Order) -> None:
        """This rank's part of what rank 0 is doing is done.

        Raises:
            LaneLostError: another rank is lost or silent.
        """
        if isinstance(order, NewCache):
            self._caches = {number: self._caches[number] for number in order.in_use}
            self._caches[order.number] = self.decoder.new_cache(order.num_rows)
        elif isinstance(order, Forward):
            self.decoder.forward(self._batch(order), self._caches[order.cache])
        elif isinstance(order, Head):
            hidden = self._floats(order.num_rows, self.decoder.hidden_size)
            logits = self.decoder.logits(self.decoder.ranks.broadcast(hidden))
            self.decoder.ranks.gather(logits)

    def _batch(self, order: Forward) -> FlatBatch:
        decoder, ranks = self.decoder, self.decoder.ranks
        sizes = [order.num_rows, *itertools.chain(*map(_num_places, order.groups)), *order.deepstack]
        places = ranks.broadcast(torch.empty(sum(sizes), dtype=torch.int64, device=decoder.device))
        cache_rows, *parts = places.split(sizes)
        embeddings, cos, sin = ranks.broadcast(
            self._floats(order.num_rows, decoder.hidden_size + 2 * decoder.head_dim)
        ).split((decoder.hidden_size, decoder.head_dim, decoder.head_dim), dim=-1)
        rest = iter(parts)
        return FlatBatch(
            embeddings=embeddings.contiguous(),
            cos=cos,
            sin=sin,
            cache_rows=cache_rows,
            groups=_groups(order.groups, rest),
            deepstack=[
                (next(rest), ranks.broadcast(self._floats(count, decoder.hidden_size))) for count in order.deepstack
            ],
        )

    def _floats(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=self.decoder.dtype, device=self.decoder.device)


def _shape_of(group: RowGroup) -> GroupShape:
    return GroupShape(
        batch=group.batch,
        rows=group.rows,
        length=group.length,
        first_row=group.keys.start if isinstance(group.keys, slice) else None,
        is_masked=group.first_positions is not None,
        prompt_start=group.prompt_start,
        num_read=group.num_read,
    )


def _places(batch: FlatBatch) -> Iterator[Tensor]:
    """The integers of a batch behind its cache rows, in the order of ``_num_places``."""
    for group in batch.groups:
        if not isinstance(group.keys, slice):
            yield group.keys
        if group.first_positions is not None:
            yield group.first_positions
    for rows, _ in batch.deepstack:
        yield rows


def _num_places(shape: GroupShape) -> Iterator[int]:
    if shape.first_row is None:
        yield shape.batch * shape.length
    if shape.is_masked:
        yield shape.batch


def _groups(shapes: Sequence[GroupShape], places: Iterator[Tensor]) -> list[RowGroup]:
    groups: list[RowGroup] = []
    for shape in shapes:
        first = shape.first_row
        groups.append(
            RowGroup(
                start=groups[-1].stop if groups else 0,
                batch=shape.batch,
                rows=shape.rows,
                keys=next(places) if first is None else slice(first, first + shape.length),
                length=shape.length,
                first_positions=next(places) if shape.is_masked else None,
                prompt_start=shape.prompt_start,
                num_read=shape.num_read,
            )
        )
    return groups
