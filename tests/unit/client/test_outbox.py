"""Whatever is lost on the way: every frame arrives once and in order, and every question until it is settled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.client.outbox import Outbox
from flashsd_ray.wire.v1 import captioning_pb2 as pb

STEPS = st.lists(st.sampled_from(["put", "write", "arrive", "acknowledge", "refuse", "lose"]), max_size=60)


def frame(number: int) -> pb.Frame:
    return pb.Frame(timestamp_s=number)


def number_of(message: pb.StreamVideoRequest | None) -> int:
    assert message is not None
    return round(message.frame.timestamp_s)


def written(outbox: Outbox) -> list[pb.StreamVideoRequest]:
    """Everything that waits to be written."""
    messages = []
    while (message := outbox.write()) is not None:
        messages.append(message)
    return messages


class Network:
    """A server that counts what it takes over, at the end of a wire that can be cut."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.wire: list[int] = []
        self.held: list[int] = []
        self.refused: set[int] = set()
        self.num_put = 0

    def put(self) -> None:
        self.outbox.put_frame(frame(self.num_put))
        self.num_put += 1

    def write(self) -> None:
        if self.outbox.has_unwritten:
            self.wire.append(number_of(self.outbox.write()))

    def arrive(self) -> None:
        if self.wire:
            self.held.append(self.wire.pop(0))

    def acknowledge(self) -> None:
        if self.held:
            self.outbox.acknowledge(len(self.held) - 1)

    def refuse(self) -> None:
        """The next frame counts, although it cannot be used."""
        if self.wire:
            self.refused.add(self.wire[0])
            self.outbox.refuse(len(self.held))
            self.arrive()

    def lose(self) -> None:
        self.wire.clear()
        _confirmed, num_lost = self.outbox.rewind(len(self.held))
        assert num_lost == 0


@given(STEPS)
def test_every_frame_arrives_once_and_in_order(steps: list[str]) -> None:
    network = Network()
    for step in steps:
        getattr(network, step)()
    while network.outbox.has_unwritten:
        network.write()
    while network.wire:
        network.arrive()
    assert network.held == list(range(network.num_put))
    network.acknowledge()
    assert network.outbox.num_frames == 0


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_server_that_holds_less_than_it_acknowledged(num_acknowledged: int, num_held: int) -> None:
    outbox = Outbox()
    for number in range(6):
        outbox.put_frame(frame(number))
        outbox.write()
    outbox.acknowledge(num_acknowledged - 1)
    _confirmed, num_lost = outbox.rewind(num_held)
    assert num_lost == max(num_acknowledged - num_held, 0)
    sent = [number_of(outbox.write()) for _ in range(outbox.num_frames)]
    assert sent == list(range(max(num_acknowledged, num_held), 6))
    outbox.acknowledge(num_held + len(sent) - 1)
    assert outbox.num_frames == 0, "frames are counted as the server counts them"


def test_only_frames_that_were_written_can_be_acknowledged() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put_frame(frame(number))
    outbox.write()
    assert outbox.acknowledge(99) == 1
    assert [number_of(message) for message in written(outbox)] == [1, 2]


def test_questions_and_frames_keep_their_order_on_a_new_connection() -> None:
    outbox = Outbox()
    outbox.put_frame(frame(0))
    outbox.put_ask(pb.Ask(ask_id="a"))
    outbox.put_frame(frame(1))
    outbox.put_once(pb.StreamVideoRequest(cancel=pb.Cancel(ask_id="c")))
    outbox.put_ask(pb.Ask(ask_id="b"))
    outbox.put_end()
    written(outbox)
    assert outbox.settle("b")
    outbox.rewind(0)
    assert [message.WhichOneof("message") for message in written(outbox)] == ["frame", "ask", "frame", "end"]


def test_a_prompt_is_kept_until_a_frame_after_it_is_acknowledged() -> None:
    outbox = Outbox()
    outbox.put_frame(frame(0))
    outbox.put_prompt("first")
    outbox.put_frame(frame(1))
    outbox.put_prompt("second")
    outbox.put_prompt("third")

    def texts() -> list[str]:
        return [message.set_prompt.prompt or f"frame {number_of(message)}" for message in written(outbox)]

    assert texts() == ["frame 0", "first", "frame 1", "third"]
    outbox.acknowledge(0)
    outbox.rewind(1)
    assert texts() == ["first", "frame 1", "third"]
    outbox.rewind(2)
    assert texts() == ["third"]
    outbox.put_prompt("fourth")
    assert texts() == ["fourth"]


def test_a_question_that_was_not_sent_needs_no_cancel() -> None:
    outbox = Outbox()
    outbox.put_ask(pb.Ask(ask_id="a"))
    outbox.put_ask(pb.Ask(ask_id="b"))
    outbox.write()
    outbox.withdraw("b")
    assert not outbox.has_unwritten
    outbox.withdraw("a")
    assert [message.cancel.ask_id for message in written(outbox)] == ["a"]
    outbox.rewind(0)
    assert not outbox.has_unwritten
