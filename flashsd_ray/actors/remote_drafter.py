"""A drafter that lives in another process, as the lane sees it.

Messages are sent in order and any number may be under way, so a lane can verify one half of its requests while the
drafter drafts for the other (``begin``).

A drafter that is lost or silent costs drafts and nothing else. From then on the requests that were open, and those that
are opened before it is back, get empty blocks, which is plain decoding: the drafter has not seen their taps. It is
looked for again a period after each failed attempt, in another thread; requests opened after it is back are drafted
for. A request that the drafter refuses is decoded plainly too.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from weakref import WeakValueDictionary

from torch import Tensor

from flashsd_ray.actors.drafter_front import DrafterFront
from flashsd_ray.actors.reconnection import Reconnection, Start, in_thread
from flashsd_ray.config import PlacementConfig
from flashsd_ray.errors import (
    CheckpointError,
    FlashSDError,
    InvalidRequestError,
    UnavailableError,
    UnknownRequestError,
    WireError,
)
from flashsd_ray.speculation.interfaces import Pending
from flashsd_ray.types import DraftBlock, EncodedPrompt, SamplingParams, Verdict
from flashsd_ray.wire.channel import Channel
from flashsd_ray.wire.codec import decode, encode
from flashsd_ray.wire.drafting import CloseOrder, DraftAnswer, DrafterCard, DraftOrder, OpenOrder

logger = logging.getLogger(__name__)


class RemoteDrafter:
    """Keeps the contract of a Drafter over a channel; belongs to the lane's thread."""

    def __init__(
        self,
        front: DrafterFront,
        connect: Callable[[], Channel],
        *,
        placement: PlacementConfig | None = None,
        clock: Callable[[], float] = monotonic,
        start: Start[Channel] = in_thread,
    ) -> None:
        """The drafter is there, or it is looked for like one that was lost.

        Raises:
            CheckpointError: the other end drafts with another checkpoint or for another target.
            AuthenticationError: the other end has another key.
        """
        placement = placement or PlacementConfig()
        self.tap_layers = front.card.tap_layers
        self.tap_width = front.card.tap_width
        self.max_draft_length = front.card.max_draft_length
        self._front = front
        self._max_message_bytes = placement.drafter_message_bytes
        self._new_reconnection = partial(
            Reconnection,
            partial(_greeted, connect, front.card),
            retry_s=placement.drafter_retry_s,
            clock=clock,
            start=start,
        )
        self._open: set[str] = set()
        self._drafted: set[str] = set()  # those of the open requests that the drafter knows
        self._numbers = itertools.count()
        self._pending: WeakValueDictionary[int, _Pending] = WeakValueDictionary()
        self._channel: Channel | None = None
        self._reconnection: Reconnection[Channel] = self._new_reconnection()
        try:
            self._channel = _greeted(connect, front.card)
        except UnavailableError as error:
            logger.warning("the drafter is not there yet: %s", error)

    @classmethod
    def at(cls, address: str, key: bytes, front: DrafterFront, placement: PlacementConfig) -> RemoteDrafter:
        """The drafter that a DrafterHost serves at this address.

        Raises:
            CheckpointError: the other end drafts with another checkpoint or for another target.
            AuthenticationError: the other end has another key.
            ConfigError: the address is neither ``unix:PATH`` nor ``tcp:HOST:PORT``.
        """
        connect = partial(
            Channel.connect,
            address,
            key,
            max_frame_bytes=placement.drafter_message_bytes,
            timeout_s=placement.drafter_timeout_s,
        )
        return cls(front, connect, placement=placement)

    @property
    def is_lost(self) -> bool:
        """Whether nobody drafts at the moment."""
        return self._channel is None

    def fuse(self, taps: Tensor) -> Tensor:  # [m, M * D] -> [m, E]
        """The rows that verdicts shall carry; done in this process."""
        return self._front.fuse(taps)

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        """The request is drafted for, unless the drafter is lost or refuses it.

        Raises:
            InvalidRequestError: the id is in use.
        """
        if request_id in self._open:
            raise InvalidRequestError(f"request {request_id} is open already")
        self._open.add(request_id)
        self._look_for_drafter()
        if not self._front.reads_embeddings:
            prompt = replace(prompt, embeddings=prompt.embeddings[:0])
        prompt = replace(prompt, positions=prompt.positions[:, :0], deepstack=())
        order = OpenOrder(request_id=request_id, prompt=prompt, sampling=sampling, max_rows=max_rows)
        if self._send(order, (request_id,)):
            self._drafted.add(request_id)

    def close(self, request_id: str) -> None:
        """Everything held for the request is free; closing twice is allowed."""
        self._open.discard(request_id)
        self._give_up((request_id,))

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        """One block for each verdict, empty where nobody drafts.

        Raises:
            UnknownRequestError: a request is not open.
            ProtocolError: the drafter finds that a verdict does not fit.
        """
        return self.begin(verdicts, lengths).blocks()

    def begin(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> Pending:
        """The drafter has its order, where there is a drafter.

        Raises:
            UnknownRequestError: a request is not open.
        """
        for verdict in verdicts:
            if verdict.request_id not in self._open:
                raise UnknownRequestError(f"request {verdict.request_id} is not open at this drafter")
        self._look_for_drafter()
        asked = {v.request_id: (v, n) for v, n in zip(verdicts, lengths, strict=True) if v.request_id in self._drafted}
        number = next(self._numbers)
        pending = _Pending(self, verdicts, {name: length for name, (_, length) in asked.items()})
        order = DraftOrder(
            number=number,
            verdicts=tuple(
                replace(verdict, logprobs=()) if verdict.logprobs else verdict for verdict, _ in asked.values()
            ),
            lengths=tuple(length for _, length in asked.values()),
        )
        if asked and self._send(order, tuple(asked)):
            self._pending[number] = pending
        else:
            pending.settle(DraftAnswer(number=number))
        return pending

    def disconnect(self) -> None:
        """The drafter is let go, as if it were lost, until the next attempt to reach it."""
        if self._channel is not None:
            self._lose(UnavailableError("the lane has closed the channel"))

    def receive(self) -> None:
        """The next answer has reached whoever waits for it, or the drafter is lost, which answers everybody."""
        if self._channel is None:
            return
        try:
            answer = decode(self._channel.receive(), max_bytes=self._max_message_bytes)
            if not isinstance(answer, DraftAnswer):
                raise WireError(f"a drafter answers with a {type(answer).__name__}")
            self._settle(answer)
        except (UnavailableError, WireError) as error:
            self._lose(error)

    def _settle(self, answer: DraftAnswer) -> None:
        for refusal in answer.refusals:
            logger.warning("the drafter refuses %s: %s", refusal.request_id, refusal.error)
            self._give_up((refusal.request_id,))
        pending = self._pending.get(answer.number)
        if pending is not None:
            if not all(self._is_asked_for(block, pending) for block in answer.blocks):
                raise WireError("the drafter answers with blocks that nobody asked for")
            pending.settle(answer)
            del self._pending[answer.number]

    def _is_asked_for(self, block: DraftBlock, pending: _Pending) -> bool:
        # The target relies on it: a block that starts elsewhere would fail the whole round.
        length = pending.lengths.get(block.request_id)
        verdict = next((verdict for verdict in pending.verdicts if verdict.request_id == block.request_id), None)
        if length is None or verdict is None:
            return False
        return (
            (block.round, block.start) == (verdict.round + 1, verdict.next_start)
            and len(block.token_ids) <= length
            and all(0 <= token_id < self._front.vocab_size for token_id in block.token_ids)
        )

    def _send(self, order: OpenOrder | DraftOrder | CloseOrder, request_ids: Sequence[str]) -> bool:
        """Whether the order is on its way; requests whose order is too large are drafted for no more."""
        if self._channel is None:
            return False
        try:
            message = encode(order, max_bytes=self._max_message_bytes)
        except WireError as error:
            logger.warning("not drafted for: %s: %s (placement.drafter_message_bytes)", ", ".join(request_ids), error)
            self._give_up(request_ids)
            return False
        try:
            self._channel.send(message)
        except FlashSDError as error:
            self._lose(error)
            return False
        return True

    def _give_up(self, request_ids: Sequence[str]) -> None:
        """The drafter holds nothing for these requests, and is asked nothing about them."""
        for request_id in request_ids:
            if request_id in self._drafted:
                self._drafted.remove(request_id)
                self._send(CloseOrder(request_id=request_id), (request_id,))

    def _lose(self, error: FlashSDError) -> None:
        logger.warning("the drafter is lost, answers go on without drafts: %s", error)
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        self._drafted.clear()
        self._reconnection = self._new_reconnection()
        for number, pending in list(self._pending.items()):
            pending.settle(DraftAnswer(number=number))
        self._pending.clear()

    def _look_for_drafter(self) -> None:
        if self._channel is None:
            self._channel = self._reconnection.poll()
            if self._channel is not None:
                logger.info("the drafter is back")


class _Pending:
    """Blocks of one draft order."""

    def __init__(self, drafter: RemoteDrafter, verdicts: Sequence[Verdict], lengths: dict[str, int]) -> None:
        self.verdicts = verdicts
        self.lengths = lengths  # most tokens of each request that was asked for
        self._drafter = drafter
        self._answer: DraftAnswer | None = None

    def settle(self, answer: DraftAnswer) -> None:
        """The blocks are there; requests without one get an empty one."""
        self._answer = answer

    def blocks(self) -> list[DraftBlock]:
        """One block for each verdict.

        Raises:
            ProtocolError: the drafter finds that a verdict does not fit.
        """
        while self._answer is None:
            self._drafter.receive()
        if self._answer.error is not None:
            raise self._answer.error
        made = {block.request_id: block for block in self._answer.blocks}
        return [
            made.get(verdict.request_id)
            or DraftBlock(request_id=verdict.request_id, round=verdict.round + 1, start=verdict.next_start)
            for verdict in self.verdicts
        ]


def _greeted(connect: Callable[[], Channel], card: DrafterCard) -> Channel:
    """A channel to a drafter that says the same of itself.

    Raises:
        UnavailableError: nobody is there.
        CheckpointError: somebody else is there.
    """
    channel = connect()
    try:
        theirs = decode(channel.request(encode(card)))
        if theirs != card:
            raise CheckpointError(f"the drafter at the other end is {theirs}, this lane works with {card}")
    except BaseException:
        channel.close()
        raise
    return channel
