"""A drafter elsewhere drafts as one here does; a lost or broken one costs drafts, and never a token or an error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import ref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.actors import drafter_host
from flashsd_ray.actors.drafter_front import DrafterFront
from flashsd_ray.actors.drafter_host import DrafterHost
from flashsd_ray.actors.remote_drafter import RemoteDrafter
from flashsd_ray.config import Config, PlacementConfig, SpeculationConfig
from flashsd_ray.engine.answers import Chunk, joined
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import CheckpointError, ProtocolError, UnknownRequestError, WireError
from flashsd_ray.models import drafters
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.types import CaptionRequest, DraftBlock, EncodedPrompt, SamplingParams, TokenLogprob, Verdict
from flashsd_ray.wire.codec import decode, encode
from flashsd_ray.wire.drafting import CloseOrder, DraftAnswer, DraftOrder, OpenOrder
from tests.fakes import ScriptDrafter, TableTarget
from tests.remote_drafting import MAX_MESSAGE_BYTES, Switchboard, at_once, host_of, served
from tests.tiny_drafting import first_verdict, next_verdict, tiny_prompt, tiny_view
from tests.unit.engine.test_lane import EOS, LOGITS, LetterEncoder, expected, noise

RETRY_S = 2.0
SAMPLED = SamplingParams(temperature=0.8, seed=3)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    """A remote drafter over a channel that can be broken, and a local one of the same weights."""

    def __init__(
        self, kind: str = "block", *, vision: bool = False, limit: int = MAX_MESSAGE_BYTES, **sizes: int
    ) -> None:
        torch.set_num_threads(1)
        view = tiny_view()
        config = replace(NETWORKS[kind].default_config(view, "pool"), source="vision") if vision else None
        sizes = {"cache_rows": 256, "max_running": 4, **sizes}
        self.local, hosted = (drafters.build_drafter(kind, view, config=config, **sizes) for _ in range(2))
        self.host = host_of(hosted, view)
        self.front = DrafterFront.of(hosted, view)
        self.clock = Clock()
        self.switchboard = Switchboard(self.host)
        self.placement = PlacementConfig(drafter_retry_s=RETRY_S, drafter_message_bytes=limit)
        self.remote = self.new_remote()

    def new_remote(self) -> RemoteDrafter:
        connect: Any = self.switchboard
        start: Any = at_once
        return RemoteDrafter(self.front, connect, placement=self.placement, clock=self.clock, start=start)

    def open(self, request_id: str, sampling: SamplingParams = SAMPLED) -> Verdict:
        """The request is open at both; returns its first verdict."""
        prompt = tiny_prompt(seed=len(request_id))
        for drafter in (self.local, self.remote):
            drafter.open(request_id, prompt, sampling, len(prompt) + 30)
        return first_verdict(self.local, request_id, prompt, token_id=1)

    def orders(self) -> list[Any]:
        return [decode(message) for message in self.switchboard.last.sent]


def described(blocks: list[DraftBlock]) -> list[Any]:
    return [
        (block.request_id, block.round, block.start, block.token_ids, block.confidence)
        + (() if block.proposal is None else (block.proposal.support_probs.tolist(),))
        for block in blocks
    ]


def is_empty(blocks: list[DraftBlock], verdicts: list[Verdict]) -> bool:
    expected = [(verdict.request_id, verdict.round + 1, verdict.next_start, (), None) for verdict in verdicts]
    return described(blocks) == expected


@pytest.mark.parametrize("rule", ["coupled", "rejection"])
@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_blocks_are_those_of_a_local_drafter(kind: str, rule: Any) -> None:
    view = tiny_view()
    local, hosted = (drafters.build_drafter(kind, view, rule=rule, cache_rows=256, max_running=4) for _ in range(2))
    with served(hosted, view) as remote:
        verdicts = []
        for name, sampling in (("a", SamplingParams()), ("bb", SAMPLED)):
            prompt = tiny_prompt((8, 8) if name == "a" else (), seed=len(name))
            for drafter in (local, remote):
                drafter.open(name, prompt, sampling, len(prompt) + 40)
            verdicts.append(first_verdict(remote, name, prompt, token_id=1))
        for tokens in ((2,), (3, 4, 5), (6, 7)):
            expected = local.propose(verdicts, [5, 3])
            assert described(remote.propose(verdicts, [5, 3])) == described(expected)
            assert any(block.token_ids for block in expected)
            verdicts = [next_verdict(remote, verdict, tokens) for verdict in verdicts]


def test_taps_are_fused_here_as_the_drafter_would() -> None:
    for kind in sorted(NETWORKS):
        bench = Bench(kind)
        assert isinstance(bench.local, NeuralDrafter)
        taps = torch.randn(5, bench.local.network.view.hidden_size * len(bench.remote.tap_layers))
        assert torch.equal(bench.remote.fuse(taps), bench.local.fuse(taps))


def test_a_front_does_not_keep_the_drafter() -> None:
    view = tiny_view()
    drafter = drafters.build_drafter("block", view)
    assert isinstance(drafter, NeuralDrafter)
    front, kept = DrafterFront.of(drafter, view), ref(drafter.network)
    del drafter
    assert kept() is None
    taps = torch.randn(2, len(front.card.tap_layers) * view.hidden_size)
    assert front.fuse(taps).shape == (2, front.card.tap_width)


def test_several_orders_may_be_under_way_and_be_waited_for_in_any_order() -> None:
    bench = Bench()
    verdicts = [bench.open(name) for name in ("a", "bb", "ccc")]
    pending = [bench.remote.begin([verdict], [4]) for verdict in verdicts]
    expected = [bench.local.propose([verdict], [4]) for verdict in verdicts]
    for index in (1, 2, 0):
        assert described(pending[index].blocks()) == described(expected[index])
        assert described(pending[index].blocks()) == described(expected[index])


def test_an_order_that_nobody_waits_for_is_forgotten() -> None:
    bench = Bench()
    first, second = bench.open("a"), bench.open("bb")
    del first
    bench.remote.begin([second], [2])
    verdict = next_verdict(bench.local, second, (1, 2))
    bench.local.propose([second], [2])
    assert described(bench.remote.propose([verdict], [3])) == described(bench.local.propose([verdict], [3]))
    assert len(bench.remote._pending) == 0


def test_only_what_a_drafter_reads_is_sent() -> None:
    bench = Bench()
    logprobs = (TokenLogprob(token_id=1, logprob=-1.0),)
    bench.remote.propose([replace(bench.open("a"), logprobs=logprobs)], [2])
    opening, order = bench.orders()[-2:]
    prompt = tiny_prompt(seed=1)
    assert isinstance(opening, OpenOrder)
    assert (opening.prompt.token_ids, opening.prompt.segments) == (prompt.token_ids, prompt.segments)
    assert opening.prompt.embeddings.numel() == opening.prompt.positions.numel() == 0
    assert isinstance(order, DraftOrder)
    assert order.verdicts[0].logprobs == ()


def test_a_drafter_that_reads_vision_features_gets_them() -> None:
    bench = Bench("block", vision=True)
    verdict = bench.open("a")
    assert described(bench.remote.propose([verdict], [4])) == described(bench.local.propose([verdict], [4]))
    (opening,) = [order for order in bench.orders() if isinstance(order, OpenOrder)]
    assert torch.equal(opening.prompt.embeddings, tiny_prompt(seed=1).embeddings)


def test_a_lost_drafter_costs_drafts_of_requests_it_never_saw_whole_and_no_others() -> None:
    bench = Bench()
    old = bench.open("a")
    assert bench.remote.propose([old], [4])[0].token_ids
    bench.switchboard.is_up = False
    bench.switchboard.last.close()
    old = next_verdict(bench.local, old, (1, 2))
    assert is_empty(bench.remote.propose([old], [4]), [old])
    assert bench.remote.is_lost
    between = bench.open("bb")
    assert is_empty(bench.remote.propose([old, between], [4, 4]), [old, between])
    bench.switchboard.is_up = True
    bench.clock.now_s += RETRY_S
    new = bench.open("ccc")
    assert not bench.remote.is_lost
    blocks = bench.remote.propose([old, between, new], [4, 4, 4])
    assert is_empty(blocks[:2], [old, between])
    assert described(blocks[2:]) == described(bench.local.propose([new], [4]))
    for name in ("a", "bb", "ccc"):
        bench.remote.close(name)
    assert [order.request_id for order in bench.orders() if isinstance(order, CloseOrder)] == ["ccc"]


def test_attempts_to_reach_a_lost_drafter_are_a_period_apart() -> None:
    bench = Bench()
    bench.switchboard.is_up = False
    bench.switchboard.last.close()
    verdict = bench.open("a")
    attempts = []
    for _ in range(9):
        assert is_empty(bench.remote.propose([verdict], [1]), [verdict])
        attempts.append(bench.switchboard.num_attempts)
        bench.clock.now_s += RETRY_S / 4
    assert attempts == [2, 2, 2, 2, 3, 3, 3, 3, 4]


def test_orders_under_way_when_the_drafter_is_lost_come_back_empty() -> None:
    bench = Bench()
    verdicts = [bench.open(name) for name in ("a", "bb")]
    bench.switchboard.last.is_silent = True
    pending = [bench.remote.begin([verdict], [4]) for verdict in verdicts]
    assert is_empty(pending[1].blocks(), verdicts[1:])  # as a drafter that hangs: nothing comes in time
    assert bench.remote.is_lost
    assert is_empty(pending[0].blocks(), verdicts[:1])
    assert bench.host._open == set()


def test_a_drafter_that_comes_later_is_found() -> None:
    bench = Bench()
    bench.switchboard.is_up = False
    bench.remote = bench.new_remote()
    assert bench.remote.is_lost
    bench.switchboard.is_up = True
    verdict = bench.open("a")
    assert described(bench.remote.propose([verdict], [4])) == described(bench.local.propose([verdict], [4]))


def test_another_drafter_is_refused_at_first_and_ignored_later() -> None:
    bench = Bench("block")
    other = Bench("ar")
    bench.switchboard.handler = other.host
    with pytest.raises(CheckpointError, match="kind='ar'"):
        bench.new_remote()
    bench.switchboard.channels[0].close()
    verdict = bench.open("a")
    assert is_empty(bench.remote.propose([verdict], [4]), [verdict])
    assert all(channel.is_closed for channel in bench.switchboard.channels)


def test_a_request_that_the_drafter_refuses_is_decoded_plainly() -> None:
    bench = Bench(cache_rows=32, max_running=1)
    verdict = bench.open("a")
    prompt = tiny_prompt()
    bench.remote.open("large", prompt, SAMPLED, 4000)
    large = first_verdict(bench.local, "large", prompt, token_id=1)
    blocks = bench.remote.propose([large, verdict], [4, 4])
    assert is_empty(blocks[:1], [large])
    assert described(blocks[1:]) == described(bench.local.propose([verdict], [4]))
    large = next_verdict(bench.local, large, (1, 2))
    assert is_empty(bench.remote.propose([large], [4]), [large])
    orders = [order for order in bench.orders() if isinstance(order, DraftOrder)]
    assert len(orders) == 1
    assert bench.host._refused == {}


def test_a_request_too_large_to_be_sent_is_decoded_plainly() -> None:
    bench = Bench(limit=2048)
    verdict = bench.open("a")
    assert is_empty(bench.remote.propose([verdict], [4]), [verdict])  # the taps of its prompt
    assert not bench.remote.is_lost
    assert bench.host._open == set()
    huge = replace(tiny_prompt(), token_ids=(1,) * 3000)
    bench.remote.open("huge", huge, SAMPLED, 4000)
    verdict = replace(verdict, request_id="huge", start=3000)
    assert is_empty(bench.remote.propose([verdict], [4]), [verdict])
    assert not any(getattr(order, "request_id", "") == "huge" for order in bench.orders())


def test_protocol_errors_arrive_as_they_were_raised() -> None:
    bench = Bench()
    verdict = bench.open("a")
    with pytest.raises(ProtocolError, match="rows of taps are needed"):
        bench.remote.propose([replace(verdict, taps=None)], [2])
    assert not bench.remote.is_lost
    with pytest.raises(UnknownRequestError):
        bench.remote.begin([replace(verdict, request_id="never opened")], [2])


@pytest.mark.parametrize(
    "wrong",
    [
        {"start": 0},
        {"round": 7},
        {"request_id": "x"},
        {"token_ids": (1,) * 9},
        {"token_ids": (50,)},
        {"token_ids": (-1,)},
    ],
)
def test_a_drafter_that_answers_nonsense_is_let_go(wrong: dict[str, Any]) -> None:
    bench = Bench()
    verdict = bench.open("a")
    block = replace(bench.local.propose([verdict], [4])[0], **wrong)
    bench.switchboard.last.is_silent = True
    pending = bench.remote.begin([verdict], [4])
    (order,) = [order for order in bench.orders() if isinstance(order, DraftOrder)]
    bench.switchboard.last.answers.append(encode(DraftAnswer(number=order.number, blocks=(block,))))
    assert is_empty(pending.blocks(), [verdict])
    assert bench.remote.is_lost


@pytest.mark.parametrize("answer", [b"noise", encode("no answer")])
def test_a_drafter_that_does_not_speak_our_language_is_let_go(answer: bytes) -> None:
    bench = Bench()
    verdict = bench.open("a")
    bench.switchboard.last.answers.append(answer)
    assert is_empty(bench.remote.propose([verdict], [4]), [verdict])
    assert bench.remote.is_lost


@pytest.mark.parametrize("message", [b"", b"noise", encode("no order"), encode(DraftAnswer(number=1))])
def test_a_lane_that_does_not_speak_our_language_is_turned_away(message: bytes) -> None:
    with pytest.raises((WireError, ProtocolError)):
        Bench().host.handle(message)


def test_an_order_of_verdicts_without_lengths_is_turned_away() -> None:
    bench = Bench()
    with pytest.raises(ProtocolError, match="1 verdicts come with 0 lengths"):
        bench.host.handle(encode(DraftOrder(number=1, verdicts=(bench.open("a"),), lengths=())))


def test_what_a_lane_leaves_behind_is_closed() -> None:
    bench = Bench(cache_rows=32, max_running=1)
    for _ in range(20):  # the cache would be full after one
        verdict = bench.open("a")
        assert bench.remote.propose([verdict], [2])[0].token_ids
        bench.local.close("a")
        bench.remote.disconnect()
        bench.remote.close("a")


def test_only_the_shared_weights_of_the_target_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        target = load_undecoding(*args, **options)
        loaded.extend(map(ref, (target.model, target.decoder, target.text_model)))
        return target

    load_undecoding = drafter_host.load_undecoding
    monkeypatch.setattr(drafter_host, "load_undecoding", load)
    host = DrafterHost.load(Config())
    assert len(loaded) == 3
    assert all(part() is None for part in loaded)
    assert host.card.kind == "block"
    prompt = EncodedPrompt(token_ids=(1, 2, 3), embeddings=torch.zeros(0), positions=torch.zeros(0))
    verdict = Verdict(
        request_id="r", round=0, start=3, num_accepted=0, token_ids=(4,), taps=torch.zeros(3, host.card.tap_width)
    )
    host.handle(encode(OpenOrder(request_id="r", prompt=prompt, sampling=SamplingParams(), max_rows=20)))
    answer = host.handle(encode(DraftOrder(number=5, verdicts=(verdict,), lengths=(4,))))
    assert answer is not None
    drafted = decode(answer)
    assert isinstance(drafted, DraftAnswer)
    assert [len(block.token_ids) for block in drafted.blocks] == [4]


OUTAGES = st.lists(st.sampled_from(["step", "step", "step", "submit", "kill", "hang", "restore"]), max_size=60)


@given(OUTAGES)
@settings(max_examples=100)
def test_outages_at_any_time_change_no_token(events: list[str]) -> None:
    drafter: Any = ScriptDrafter(noise, 4)
    host = host_of(drafter, tiny_view())
    switchboard: Any = Switchboard(host)
    clock, start = Clock(), at_once
    front = DrafterFront.of(drafter, tiny_view())
    remote = RemoteDrafter(front, switchboard, clock=clock, start=start)  # type: ignore[arg-type]
    config = Config(speculation=SpeculationConfig(draft_length=3))
    lane = Lane(LetterEncoder(), TableTarget(LOGITS), remote, config, eos_token_ids=(EOS,))
    chunks: dict[str, list[Chunk]] = {}
    requests: dict[str, CaptionRequest] = {}
    for event in [*events, *["step"] * 200]:
        if event == "submit":
            sampling = SamplingParams(max_new_tokens=9, temperature=len(chunks) % 2 * 0.8, seed=len(chunks))
            request = CaptionRequest(
                request_id=f"r{len(chunks)}", prompt="abcde"[: len(chunks) % 5 + 1], sampling=sampling
            )
            lane.submit(request)
            requests[request.request_id], chunks[request.request_id] = request, []
        elif event == "step":
            for chunk in lane.step():
                chunks[chunk.request_id].append(chunk)
            clock.now_s += 1.0
        else:
            switchboard.is_up = event == "restore"
            switchboard.last.is_silent = event == "hang"
            if event == "kill":
                switchboard.last.close()
    assert lane.is_idle
    for request_id, request in requests.items():
        assert joined(chunks[request_id]).token_ids == expected(request)
    assert remote._open == remote._drafted == set()
    assert remote.is_lost or not drafter.histories
