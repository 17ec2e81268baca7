"""Whole and split target answer the same questions in turn: are the tokens the same, and what does a round take?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

from flashsd_ray.bench.answering import DRAFTED, PLAIN, answer
from flashsd_ray.bench.intervals import Ratio, ratio_of_totals
from flashsd_ray.bench.workload import Question
from flashsd_ray.engine.local import Engine
from flashsd_ray.types import Conversation, EncodedPrompt, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model, one way of decoding, one batch size."""

    model: str
    ranks: int
    dtype: str
    drafter: str
    batch_size: int
    num_identical: int
    num_clips: int
    whole_round_ms: float
    split_round_ms: float
    ratio: Ratio  # how many times faster the split one is

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"ratio": self.ratio.as_dict()}


class Pair:
    """Two engines that should give the same answers."""

    def __init__(self, whole: Engine, split: Engine, questions: Sequence[Question], max_new_tokens: int) -> None:
        self._engines = (whole, split)
        self._questions = questions
        self._sampling = SamplingParams(max_new_tokens=max_new_tokens)
        # Encoded once: both engines have the same encoder, which is not what is compared.
        self._prompts = {one.visual.digest: whole.encoder.encode(_conversation(one)) for one in questions}

    def compare(self, batch_size: int, *, with_drafts: bool) -> Comparison:
        """All questions, one batch after the other, each asked of both engines in turn."""
        whole, split = self._engines
        draft_length = DRAFTED if with_drafts else PLAIN
        self._answers(whole, self._questions[:batch_size], draft_length)  # nobody pays for the first time
        self._answers(split, self._questions[:batch_size], draft_length)
        seconds: dict[Engine, list[float]] = {whole: [], split: []}
        before = {engine: engine.lane.meters.rounds for engine in self._engines}
        identical = 0
        for number, start in enumerate(range(0, len(self._questions), batch_size)):
            batch, found = self._questions[start : start + batch_size], {}
            for engine in self._engines if number % 2 else reversed(self._engines):
                began_s = perf_counter()
                found[engine] = self._answers(engine, batch, draft_length)
                seconds[engine].append(perf_counter() - began_s)
            identical += sum(found[whole][digest] == tokens for digest, tokens in found[split].items())
        rounds = {engine: engine.lane.meters.rounds - before[engine] for engine in self._engines}
        return Comparison(
            model=whole.target.name,
            ranks=split.config.model.tensor_parallel,
            dtype=whole.dtype,
            drafter=whole.drafter_name if with_drafts else "none",
            batch_size=batch_size,
            num_identical=identical,
            num_clips=len(self._questions),
            whole_round_ms=1000 * sum(seconds[whole]) / rounds[whole],
            split_round_ms=1000 * sum(seconds[split]) / rounds[split],
            ratio=ratio_of_totals(seconds[whole], seconds[split]),
        )

    def _answers(
        self, engine: Engine, batch: Sequence[Question], draft_length: int | None
    ) -> dict[str, tuple[int, ...]]:
        prompts: dict[str, EncodedPrompt] = self._prompts
        captions = answer(engine, batch, [self._sampling] * len(batch), draft_length, prompts)
        return {digest: caption.token_ids for digest, caption in captions.items()}


def compare_all(pair: Pair, batch_sizes: Sequence[int]) -> Iterator[Comparison]:
    """Without drafts and with them, in every batch size."""
    for batch_size in batch_sizes:
        for with_drafts in (False, True):
            yield pair.compare(batch_size, with_drafts=with_drafts)


def _conversation(question: Question) -> Conversation:
    return Conversation.of(question.prompt, (question.visual,))
