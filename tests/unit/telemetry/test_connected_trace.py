"""One request leaves one trace, through the edge, the encoder and the lane, each with traces of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.actors.in_process import LocalEncoding, LocalLane
from flashsd_ray.actors.lane_host import LaneHost
from flashsd_ray.actors.metered_service import MeteredService
from flashsd_ray.actors.router import Router
from flashsd_ray.config import Config, EncodingConfig, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.lane import Lane
from flashsd_ray.telemetry.metrics import EdgeMeters
from flashsd_ray.telemetry.traces import Traces
from flashsd_ray.types import CaptionRequest, Conversation, EncodedPrompt, SamplingParams
from tests.fake_service import CARD
from tests.fakes import ScriptDrafter, TableTarget, seeded_logits, token_prompt
from tests.unit.telemetry.test_traces import Kept

LOGITS = seeded_logits(6, seed=4)


class LetterEncoder:
    """Each letter of the conversation is a token."""

    num_frames = 0
    num_frames_encoded = 0

    def encode_each(self, conversations: list[Conversation]) -> list[EncodedPrompt]:
        return [token_prompt([ord(letter) % 5 for letter in str(one.turns[0].parts[0])]) for one in conversations]


class Pipeline:
    """Three parts that could be three processes."""

    def __init__(self, edge: Traces, encoder: Traces, lane: Traces) -> None:
        config = Config(
            scheduling=SchedulingConfig(max_running=2, cache_rows=10_000), speculation=SpeculationConfig(draft_length=3)
        )
        drafter = ScriptDrafter(lambda history, length: [int(LOGITS(history).argmax())] * length, 3)
        self.host = LaneHost(Lane(None, TableTarget(LOGITS), drafter, config), traces=lane)
        self.encoder = EncoderHost(LetterEncoder(), EncodingConfig())
        self.router = Router(CARD)
        self.router.set_encoders([LocalEncoding(self.encoder, traces=encoder)])
        self.router.set_lanes([LocalLane(self.host, "edge")])
        self.service = MeteredService(self.router, EdgeMeters(), "http", traces=edge)

    @classmethod
    @asynccontextmanager
    async def of(cls, edge: Traces, encoder: Traces, lane: Traces) -> AsyncIterator[Pipeline]:
        pipeline = cls(edge, encoder, lane)
        try:
            yield pipeline
        finally:
            await pipeline.router.close()
            await pipeline.host.close()
            await pipeline.encoder.close()


def request(num_tokens: int = 6) -> CaptionRequest:
    sampling = SamplingParams(max_new_tokens=num_tokens, ignore_eos=True)
    return CaptionRequest(request_id="r", prompt="abcd", sampling=sampling)


async def test_a_request_leaves_one_trace() -> None:
    edge, encoder, lane = Kept("http"), Kept("encoder-0"), Kept("lane-0")
    async with Pipeline.of(edge.traces, encoder.traces, lane.traces) as pipeline:
        chunks = [chunk async for chunk in pipeline.service.stream(request())]
    (root,) = edge.spans
    children = [*encoder.spans, *lane.spans]
    assert [span.name for span in children] == ["encode", "queue", "prefill", "decode"]
    assert {span.context.trace_id for span in children} == {root.context.trace_id}
    assert {span.parent.span_id for span in children if span.parent} == {root.context.span_id}
    attributes = dict(children[-1].attributes or {})
    stats = chunks[-1].stats
    assert stats is not None
    assert attributes["flashsd.rounds"] == stats.rounds
    assert attributes["flashsd.tau"] == stats.tau
    assert attributes["flashsd.accepted_tokens"] == stats.num_accepted_tokens
    assert root.parent is None


async def test_a_cancelled_request_leaves_its_trace_too() -> None:
    edge, encoder, lane = Kept("http"), Kept("encoder-0"), Kept("lane-0")
    async with (
        Pipeline.of(edge.traces, encoder.traces, lane.traces) as pipeline,
        aclosing(pipeline.service.stream(request(3000))) as chunks,
    ):
        await anext(chunks)
    outcomes = {str((span.attributes or {}).get("flashsd.outcome")) for span in lane.spans}
    assert [span.name for span in lane.spans] == ["queue", "prefill", "decode"]
    assert outcomes == {"cancelled"}


async def test_without_a_collector_nothing_is_kept_anywhere() -> None:
    async with Pipeline.of(Traces(), Traces(), Traces()) as pipeline:
        assert [chunk async for chunk in pipeline.service.stream(request())][-1].finish_reason is not None
        assert not pipeline.host._spans._passages
