"""A drafter in a process of its own, which carries out the orders of one lane.

Of the target only what the drafter shares stays in memory: embedding and head (once when they are tied), and the head
packed for the processor. The target's layers and its vision tower are loaded for a moment, because they say which
target this is, and let go.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from time import perf_counter

import torch

from flashsd_ray.actors.drafter_front import card_of
from flashsd_ray.config import Config
from flashsd_ray.engine.local import drafter_of, view_of
from flashsd_ray.errors import FlashSDError, ProtocolError
from flashsd_ray.models.drafters import TargetView
from flashsd_ray.models.drafters.free import FreeDrafter
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.linear import FixedLinear
from flashsd_ray.models.loading import load_undecoding
from flashsd_ray.types import Verdict
from flashsd_ray.wire.codec import decode, encode
from flashsd_ray.wire.drafting import CloseOrder, DraftAnswer, DrafterCard, DraftOrder, OpenOrder, Refusal
from flashsd_ray.wire.listener import Listener


class DrafterHost:
    """Answers a lane's messages with a drafter; a handler for wire/listener.py, or for calls of an actor."""

    def __init__(self, drafter: NeuralDrafter | FreeDrafter, view: TargetView, *, max_message_bytes: int) -> None:
        self.card = card_of(drafter, view)
        self._drafter = drafter
        self._view = view
        self._max_message_bytes = max_message_bytes
        self.busy_s = 0.0  # time spent on orders so far
        self._open: set[str] = set()
        self._refused: dict[str, FlashSDError] = {}

    @classmethod
    def load(cls, config: Config) -> DrafterHost:
        """The drafter that the config names is ready to draft for the target that the config names.

        Effects:
            Sets the number of CPU threads that torch uses in this process.

        Raises:
            CheckpointError: one of them is missing, damaged, unsupported or made for another target.
            ConfigError: a name is unknown.
        """
        view = load_view(config)
        limits = config.scheduling
        drafter = drafter_of(config, view, cache_rows=limits.cache_rows, max_running=limits.max_running)
        return cls(drafter, view, max_message_bytes=config.placement.drafter_message_bytes)

    def listen(self, address: str, key: bytes) -> Listener:
        """Where a lane finds this drafter, once the listener serves.

        Raises:
            UnavailableError: the address is taken or not ours.
            ConfigError: the address is neither ``unix:PATH`` nor ``tcp:HOST:PORT``.
        """
        return Listener(address, key, self, max_frame_bytes=self._max_message_bytes)

    def handle(self, message: bytes | bytearray) -> bytes | None:
        """The order was carried out; the answer to it, where one is due.

        Raises:
            WireError: the message is damaged or not one of ours.
            ProtocolError: the message is ours, but no order.
        """
        began_s = perf_counter()
        try:
            return self._carry_out(decode(message, max_bytes=self._max_message_bytes))
        finally:
            self.busy_s += perf_counter() - began_s

    def _carry_out(self, order: object) -> bytes | None:
        if isinstance(order, DrafterCard):
            return encode(self.card)
        if isinstance(order, DraftOrder):
            return encode(self._draft(order), max_bytes=self._max_message_bytes)
        if isinstance(order, OpenOrder):
            self._open_request(order)
        elif isinstance(order, CloseOrder):
            self._close_request(order.request_id)
        else:
            raise ProtocolError(f"a drafter takes no {type(order).__name__}")
        return None

    def forget(self) -> None:
        """Every request is closed: the lane that opened them is gone."""
        for request_id in list(self._open):
            self._close_request(request_id)
        self._refused.clear()

    def _open_request(self, order: OpenOrder) -> None:
        try:
            self._drafter.open(order.request_id, order.prompt, order.sampling, order.max_rows)
        except FlashSDError as error:
            self._refused[order.request_id] = error
        else:
            self._open.add(order.request_id)

    def _close_request(self, request_id: str) -> None:
        self._refused.pop(request_id, None)
        self._open.discard(request_id)
        self._drafter.close(request_id)

    def _draft(self, order: DraftOrder) -> DraftAnswer:
        if len(order.verdicts) != len(order.lengths):
            raise ProtocolError(f"{len(order.verdicts)} verdicts come with {len(order.lengths)} lengths")
        asked = [verdict.request_id for verdict in order.verdicts]
        refusals = [Refusal(request_id=name, error=self._refused[name]) for name in asked if name in self._refused]
        pairs = zip(order.verdicts, order.lengths, strict=True)
        taken = [(self._here(verdict), length) for verdict, length in pairs if verdict.request_id not in self._refused]
        try:
            blocks = self._drafter.propose([verdict for verdict, _ in taken], [length for _, length in taken])
        except FlashSDError as error:
            return DraftAnswer(number=order.number, refusals=tuple(refusals), error=error)
        return DraftAnswer(number=order.number, blocks=tuple(blocks), refusals=tuple(refusals))

    def _here(self, verdict: Verdict) -> Verdict:
        """The verdict with its taps where the drafter computes."""
        if verdict.taps is None:
            return verdict
        return replace(verdict, taps=verdict.taps.to(self._view.device, self._view.dtype))


def load_view(config: Config) -> TargetView:
    """What a drafter sees of the target that the config names; nothing else of the target stays in memory.

    Effects:
        Sets the number of CPU threads that torch uses in this process.

    Raises:
        CheckpointError: the target is missing, damaged or unsupported.
    """
    target = load_undecoding(config.model)
    view = view_of(target)
    view = replace(view, embedding=view.embedding.detach(), head=FixedLinear(view.lm_head))
    del target
    gc.collect()  # the library's modules hold each other
    if view.device.type == "cuda":
        torch.cuda.empty_cache()
    return view
