"""Who decodes: an engine with some drafter. What one batch took, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from flashsd_ray.bench.answering import answer
from flashsd_ray.bench.workload import Question
from flashsd_ray.engine.local import Engine
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import EncodedPrompt, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One batch as one contender answered it; prompts were read before, and are not in the time."""

    seconds: float  # from the moment when all have their first token to the end
    num_tokens: int  # committed in that time
    token_ids: Mapping[str, Sequence[int]]  # whole answers by digest of the clip
    rounds: int  # verify passes of all requests, prefill excluded
    drafts: int = 0
    accepted_per_slot: tuple[int, ...] = ()  # [i]: rounds in which the first i + 1 drafts stood
    stage_s: Mapping[str, float] = field(default_factory=dict)  # of the batch's rounds: draft, verify
    batch_rounds: int = 0  # rounds of the batch

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Outcome:
        """What ``as_dict`` was made from."""
        return cls(**{**values, "accepted_per_slot": tuple(values["accepted_per_slot"])})


class Contender(Protocol):
    """Answers batches."""

    name: str

    def answer(self, batch: Sequence[Question], samplings: Sequence[SamplingParams]) -> Outcome:
        """All questions are answered, decoded together."""
        ...


class EngineContender:
    """An engine of ours; prompts are encoded already, and all of a batch is prefilled in one round."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        prompts: Mapping[str, EncodedPrompt],  # by digest of the clip
        draft_length: int | None,  # None: as the engine decides
    ) -> None:
        self.name = name
        self.engine = engine
        self._prompts = prompts
        self._draft_length = draft_length

    def answer(self, batch: Sequence[Question], samplings: Sequence[SamplingParams]) -> Outcome:
        """All questions are answered, decoded together."""
        captions = answer(self.engine, batch, samplings, self._draft_length, self._prompts)
        total = sum((caption.stats for caption in captions.values()), SpeculationStats())
        # Decoded together, so the longest of the batch was there all the time.
        longest = max((caption.stats for caption in captions.values()), key=lambda stats: stats.seconds["decode"])
        return Outcome(
            seconds=longest.seconds["decode"],
            num_tokens=total.num_new_tokens - total.num_prefills,
            token_ids={digest: list(caption.token_ids) for digest, caption in captions.items()},
            rounds=total.rounds,
            drafts=total.num_draft_tokens,
            accepted_per_slot=total.accepted_per_position,
            stage_s={stage: longest.seconds[stage] for stage in ("draft", "verify")},
            batch_rounds=longest.rounds,
        )


class WideContender:
    """Another contender whose engine attends in float32 while it answers: on some CPUs faster for one request."""

    def __init__(self, name: str, contender: EngineContender) -> None:
        self.name = name
        self._contender = contender

    def answer(self, batch: Sequence[Question], samplings: Sequence[SamplingParams]) -> Outcome:
        """All questions are answered, decoded together; nobody else's request is open meanwhile."""
        decoder = self._contender.engine.target.decoder
        usual, decoder.attends_wide = decoder.attends_wide, True
        try:
            return self._contender.answer(batch, samplings)
        finally:
            decoder.attends_wide = usual
