"""What every answer must be: the same request, decoded alone and without drafts by an engine of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flashsd_ray.bench.serving.asks import Ask, Outcome
from flashsd_ray.bench.serving.progress import counted
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Caption
from flashsd_ray.engine.local import Engine
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.types import CaptionRequest


def expected_answers(config: Config, asks: Sequence[Ask]) -> dict[str, Caption]:  # by name of the ask
    """The right answers.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    engine = Engine.local(config)
    requests = counted("answers of the engine", [request_of(ask, config) for ask in asks])
    return {request.request_id: engine.caption(request) for request in requests}


def request_of(ask: Ask, config: Config, *, draft_length: int | None = 0) -> CaptionRequest:
    """The same question for an engine."""
    return CaptionRequest(
        request_id=ask.name,
        prompt=ask.prompt,
        visuals=(load_visual_bytes(ask.picture, ask.name, config.media),),
        sampling=ask.sampling,
        draft_length=draft_length,
    )


def difference(outcome: Outcome, expected: Caption) -> str:
    """Where an answer is not what it must be; empty when it is."""
    if not outcome.is_answered:
        return f"no answer: {outcome.code} {outcome.detail}".strip()
    pairs: Mapping[str, tuple[object, object]] = {
        "text": (outcome.text, expected.text),
        "finish reason": (outcome.finish_reason, expected.finish_reason.value),
        "number of tokens": (outcome.num_tokens, len(expected.token_ids)),
        "tokens": (outcome.token_texts, tuple(token.text for token in expected.logprobs)),
        "token ids": (outcome.token_ids, expected.token_ids),
    }
    return "; ".join(f"{name}: {got!r}, not {right!r}" for name, (got, right) in pairs.items() if got != right)
