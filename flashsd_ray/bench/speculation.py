"""Speculative against plain decoding: one process, one set of kernels, distinct clips, each timed both ways in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flashsd_ray.bench.paired import Ratio, speed_ratio
from flashsd_ray.engine.answers import Caption
from flashsd_ray.engine.local import Engine
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import CaptionRequest, SamplingParams, VisualInput

PLAIN, DRAFTED = 0, None  # draft_length of a request: none at all, or as the engine decides


@dataclass(frozen=True, slots=True)
class Gain:
    """What speculation brought at one batch size."""

    batch_size: int
    num_clips: int
    num_identical: int  # answers whose token ids are those of plain decoding
    ratio: Ratio  # of decode seconds
    plain_tokens_per_s: float  # decode only
    drafted_tokens_per_s: float
    drafted: SpeculationStats

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "batch_size": self.batch_size,
            "num_clips": self.num_clips,
            "num_identical": self.num_identical,
            "speed_up": self.ratio.as_dict(),
            "plain_tokens_per_s": self.plain_tokens_per_s,
            "drafted_tokens_per_s": self.drafted_tokens_per_s,
            "tau": self.drafted.tau,
            "num_new_tokens": self.drafted.num_new_tokens,
            "accepted_per_position": list(self.drafted.accepted_per_position),
            "rounds": self.drafted.rounds,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """One clip and what is asked about it."""

    prompt: str
    visual: VisualInput


def measure(
    plain: Engine,  # without a drafter: one that is silent costs a few percent, which would flatter us
    drafted: Engine,
    questions: Sequence[Question],
    *,
    batch_size: int,
    sampling: SamplingParams,
) -> Gain:
    """All questions answered both ways, batch by batch, the order of the two changing from batch to batch.

    Raises:
        ValueError: two clips have the same content, or there are none.
    """
    digests = {question.visual.digest for question in questions}
    if not questions or len(digests) != len(questions):
        raise ValueError(f"{len(questions)} clips with {len(digests)} different contents; distinct ones are needed")
    engines = {PLAIN: plain, DRAFTED: drafted}
    for draft_length, engine in engines.items():
        warm_up = questions[:batch_size]
        answer(engine, warm_up, [sampling] * len(warm_up), draft_length)
    times: dict[int | None, list[float]] = {PLAIN: [], DRAFTED: []}
    totals = {PLAIN: SpeculationStats(), DRAFTED: SpeculationStats()}
    num_identical = 0
    for number, batch in enumerate(_batches(questions, batch_size)):
        answers = {}
        for draft_length in (PLAIN, DRAFTED) if number % 2 else (DRAFTED, PLAIN):
            captions = answer(engines[draft_length], batch, [sampling] * len(batch), draft_length)
            answers[draft_length] = captions
            # Decoded together, so the longest of the batch took all the time there was.
            times[draft_length].append(max(caption.stats.seconds["decode"] for caption in captions.values()))
            totals[draft_length] += sum((caption.stats for caption in captions.values()), SpeculationStats())
        num_identical += sum(answers[PLAIN][key].token_ids == answers[DRAFTED][key].token_ids for key in answers[PLAIN])
    return Gain(
        batch_size=batch_size,
        num_clips=len(questions),
        num_identical=num_identical,
        ratio=speed_ratio(times[PLAIN], times[DRAFTED]),
        plain_tokens_per_s=_decoded(totals[PLAIN]) / sum(times[PLAIN]),
        drafted_tokens_per_s=_decoded(totals[DRAFTED]) / sum(times[DRAFTED]),
        drafted=totals[DRAFTED],
    )


def answer(
    engine: Engine,
    batch: Sequence[Question],
    samplings: Sequence[SamplingParams],  # one for each question
    draft_length: int | None,
) -> dict[str, Caption]:  # by digest of the clip
    """All questions are answered, decoded together."""
    requests = [
        CaptionRequest(
            request_id=question.visual.digest,
            prompt=question.prompt,
            visuals=(question.visual,),
            sampling=sampling,
            draft_length=draft_length,
        )
        for question, sampling in zip(batch, samplings, strict=True)
    ]
    return {caption.request_id: caption for caption in engine.caption_many(requests)}


def _batches(questions: Sequence[Question], size: int) -> Iterator[Sequence[Question]]:
    for start in range(0, len(questions), size):
        yield questions[start : start + size]


def _decoded(stats: SpeculationStats) -> int:
    return stats.num_new_tokens - stats.num_prefills
