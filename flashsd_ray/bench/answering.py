"""Questions answered together by an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flashsd_ray.bench.workload import Question
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.types import CaptionRequest, EncodedPrompt, SamplingParams

PLAIN, DRAFTED = 0, None  # draft_length of a request: none at all, or as the engine decides


def answer(
    engine: Engine,
    batch: Sequence[Question],
    samplings: Sequence[SamplingParams],  # one for each question
    draft_length: int | None,
    prompts: Mapping[str, EncodedPrompt] | None = None,  # by digest of the clip; None: the engine encodes
) -> dict[str, Caption]:  # by digest of the clip
    """All questions are answered, decoded together.

    Raises:
        FlashSDError: one of them could not be answered.
    """
    arrived: dict[str, list[Chunk]] = {}
    for question, sampling in zip(batch, samplings, strict=True):
        digest = question.visual.digest
        request = CaptionRequest(
            request_id=digest,
            prompt=question.prompt,
            visuals=(question.visual,),
            sampling=sampling,
            draft_length=draft_length,
        )
        engine.lane.submit(request, None if prompts is None else prompts[digest])
        arrived[digest] = []
    while not engine.lane.is_idle:
        for chunk in engine.lane.step():
            arrived[chunk.request_id].append(chunk)
    return {digest: joined(chunks) for digest, chunks in arrived.items()}
