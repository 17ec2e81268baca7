"""What a live session has to send, and what it must send again when the connection was lost. Knows no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flashsd_ray.wire.v1 import captioning_pb2 as pb


@dataclass(slots=True, eq=False, kw_only=True)
class _Entry:
    message: pb.StreamVideoRequest
    frame: int | None = None  # index of the frame, as the server counts
    ask_id: str = ""  # of a question
    is_prompt: bool = False
    is_kept: bool = True  # whether it is sent again on a new connection


class Outbox:
    """Messages in their order. Sent ones stay until the server has confirmed them."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._num_written = 0  # of the entries: are on the wire
        self.next_frame = 0  # index of the next frame that is put in

    @property
    def num_frames(self) -> int:
        """Frames that the server has not confirmed."""
        return sum(entry.frame is not None for entry in self._entries)

    @property
    def has_unwritten(self) -> bool:
        """Whether something waits to be written."""
        return self._num_written < len(self._entries)

    def put_frame(self, frame: pb.Frame) -> None:
        """The frame will be written, and kept until it is acknowledged."""
        self._entries.append(_Entry(message=pb.StreamVideoRequest(frame=frame), frame=self.next_frame))
        self.next_frame += 1

    def put_ask(self, ask: pb.Ask) -> None:
        """The question will be written, and kept until it is settled."""
        self._entries.append(_Entry(message=pb.StreamVideoRequest(ask=ask), ask_id=ask.ask_id))

    def put_prompt(self, prompt: str) -> None:
        """The prompt will be written, and kept until a frame after it is acknowledged, as nothing else confirms it."""
        while self._entries and self._entries[-1].is_prompt:
            self._entries.pop()  # nothing follows that it was meant for
        self._num_written = min(self._num_written, len(self._entries))
        message = pb.StreamVideoRequest(set_prompt=pb.SetPrompt(prompt=prompt))
        self._entries.append(_Entry(message=message, is_prompt=True))

    def put_end(self) -> None:
        """The end will be written, on every connection."""
        self._entries.append(_Entry(message=pb.StreamVideoRequest(end=pb.End())))

    def put_once(self, message: pb.StreamVideoRequest) -> None:
        """The message will be written on this connection only."""
        self._entries.append(_Entry(message=message, is_kept=False))

    def write(self) -> pb.StreamVideoRequest | None:
        """The next message, which is on the wire now; None when there is none."""
        if not self.has_unwritten:
            return None
        entry = self._entries[self._num_written]
        if entry.is_kept:
            self._num_written += 1
        else:
            del self._entries[self._num_written]
        return entry.message

    def acknowledge(self, frame: int) -> int:
        """The frames up to this one, and prompts before it, are not kept any more; returns how many frames that were."""
        num_frames, stop = self.num_frames, 0
        # What has not been written cannot be meant, whatever the server says.
        for index, entry in enumerate(self._entries[: self._num_written]):
            if entry.frame is not None and entry.frame <= frame:
                stop = index + 1
        self._drop(lambda entry: entry.frame is not None or entry.is_prompt, stop)
        return num_frames - self.num_frames

    def refuse(self, frame: int) -> bool:
        """This frame is not kept any more; returns whether it was."""
        return self._drop(lambda entry: entry.frame == frame) > 0

    def settle(self, ask_id: str) -> bool:
        """The question is not kept any more; returns whether it was."""
        return self._drop(lambda entry: bool(entry.ask_id) and entry.ask_id == ask_id) > 0

    def withdraw(self, ask_id: str) -> None:
        """Nobody waits for the answer any more: the question is not sent, or it is cancelled."""
        is_unwritten = any(entry.ask_id == ask_id for entry in self._entries[self._num_written :])
        self.settle(ask_id)
        if not is_unwritten:
            self.put_once(pb.StreamVideoRequest(cancel=pb.Cancel(ask_id=ask_id)))

    def rewind(
        self,
        next_frame: int,  # index of the frame that the server expects next
    ) -> tuple[int, int]:
        """Everything unconfirmed will be written, on a new connection; returns how many frames were confirmed, and how
        many lost: those that had been acknowledged and that the server expects again.

        Questions that had been written are asked again as what they are: about the frames that came before them.
        """
        for entry in self._entries[: self._num_written]:
            if entry.ask_id:
                entry.message.ask.is_again = True
        num_confirmed = self.acknowledge(next_frame - 1)
        frames = [entry for entry in self._entries if entry.frame is not None]
        first = frames[0].frame if frames else self.next_frame
        for index, entry in enumerate(frames):
            entry.frame = next_frame + index
        self.next_frame = next_frame + len(frames)
        self._num_written = 0
        return num_confirmed, max((first or 0) - next_frame, 0)

    def _drop(self, is_done: Callable[[_Entry], bool], stop: int | None = None) -> int:
        done = [index for index, entry in enumerate(self._entries[:stop]) if is_done(entry)]
        for index in reversed(done):
            del self._entries[index]
            self._num_written -= index < self._num_written
        return len(done)
