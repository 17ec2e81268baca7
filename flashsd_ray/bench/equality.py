"""Is it lossless? Greedy answers of every drafter and compressor against transformers' ``generate``, clip by clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from flashsd_ray.bench.answering import DRAFTED, PLAIN, answer
from flashsd_ray.bench.decode.divergence import GapReader, divergences
from flashsd_ray.bench.scrambling import scramble
from flashsd_ray.bench.workload import Question
from flashsd_ray.config import Config, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import ConfigError
from flashsd_ray.models import compressors
from flashsd_ray.models.drafters.registry import FREE, NETWORKS
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import Conversation, SamplingParams

MIXED_BATCH = 8
SCRAMBLED = "scrambled"  # latents replaced by noise: tau may fall, no token may change


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one way of decoding agrees with ``generate`` on all clips."""

    drafter: str
    compressor: str
    batch_size: int
    num_identical: int
    num_clips: int
    tau: float
    largest_gap: float | None = None  # of float32's two most probable tokens where an answer parted, at most

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def generated(
    target: PretrainedTarget, questions: Sequence[Question], max_new_tokens: int
) -> dict[str, tuple[int, ...]]:  # digest of the clip -> token ids
    """What the transformers library answers, one clip at a time."""
    encoder = LocalEncoder(target)
    answers = {}
    for question in questions:
        inputs = encoder.process(Conversation.of(question.prompt, (question.visual,)))
        with torch.inference_mode():
            output = target.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers[question.visual.digest] = tuple(output[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


def compare_all(
    target: PretrainedTarget,
    questions: Sequence[Question],
    *,
    max_new_tokens: int,
    drafters: Sequence[str] = (),  # none: all of them, and plain decoding
    gaps: GapReader | None = None,  # None: how sure the model was where answers part is not looked up
) -> Iterator[Agreement]:
    """Plain decoding, then every drafter with every compressor, alone and in mixed batches.

    Raises:
        ConfigError: there is no such drafter.
    """
    for name in drafters:
        if name not in NETWORKS and name not in FREE:
            raise ConfigError(f"unknown drafter {name!r}; known: {', '.join(sorted({*NETWORKS, *FREE}))}")
    expected = generated(target, questions, max_new_tokens)
    ways: list[tuple[str, str, int]] = [("none", "auto", size) for size in (1, MIXED_BATCH)]
    ways += [(name, "auto", size) for name in sorted({*FREE, *NETWORKS} - {"none"}) for size in (1, MIXED_BATCH)]
    ways += [(kind, name, MIXED_BATCH) for kind in sorted(NETWORKS) for name in (*compressors.names(), SCRAMBLED)]
    for drafter, compressor, batch_size in ways:
        if drafters and drafter not in drafters:
            continue
        engine = _engine(target, drafter, compressor)
        stats, num_identical, found_gaps = SpeculationStats(), 0, list[float]()
        # Budgets differ inside a batch, so that requests leave and join while others run.
        for start in range(0, len(questions), 2 * batch_size):
            batch = questions[start : start + 2 * batch_size]
            samplings = [
                SamplingParams(max_new_tokens=max_new_tokens if index % 3 or batch_size == 1 else max_new_tokens // 3)
                for index in range(len(batch))
            ]
            captions = answer(engine, batch, samplings, PLAIN if drafter == "none" else DRAFTED)
            for question, sampling in zip(batch, samplings, strict=True):
                caption = captions[question.visual.digest]
                stats += caption.stats
                wanted = expected[question.visual.digest][: sampling.max_new_tokens]
                num_identical += caption.token_ids == wanted
                if gaps is not None:
                    found_gaps += _gaps(gaps, question, wanted, caption.token_ids)
        largest = max(found_gaps, default=None)
        yield Agreement(drafter, compressor, batch_size, num_identical, len(questions), stats.tau, largest)


def _gaps(reader: GapReader, question: Question, wanted: Sequence[int], found: Sequence[int]) -> list[float]:
    """How sure the model was where the answers part, if they do."""
    digest = question.visual.digest
    conversation = Conversation.of(question.prompt, (question.visual,))
    judged = [reader.judged(one, conversation, wanted) for one in divergences({digest: wanted}, {digest: found})]
    return [one.top_gap for one in judged if one.top_gap is not None]


def _engine(target: PretrainedTarget, drafter: str, compressor: str) -> Engine:
    config = Config(
        speculation=SpeculationConfig(
            drafter=drafter, compressor="auto" if compressor == SCRAMBLED else compressor, draft_length=8
        ),
        scheduling=SchedulingConfig(max_running=MIXED_BATCH, prefill_rows=256),
    )
    engine = Engine.around(target, config)
    if compressor == SCRAMBLED:
        trained: Any = engine.drafter
        scramble(trained.network)
    return engine
