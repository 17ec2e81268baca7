"""What an output holds in figures, from one pass over its rows; only counts and a few examples are kept."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.batch.rows import Outcome

EXAMPLES = 12  # of captions
ERROR_EXAMPLES = 3  # of each kind
ERROR_KINDS = 50  # kinds that have examples
TAU_STEP = 0.25
STAGES = ("read", "encode", "decode")


@dataclass(slots=True)
class Figures:
    """Totals of all outcomes that were added."""

    num_rows: int = 0  # of the input
    num_outcomes: int = 0
    num_copies: int = 0  # taken from rows with the same content
    num_tokens: int = 0  # of captions that were decoded
    rounds: float = 0.0  # verifications that these took
    drafted_tokens: int = 0  # tokens that these committed
    video_s: float = 0.0  # of segments with a caption
    errors: Counter[str] = field(default_factory=Counter)  # by kind
    error_examples: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))  # id, message
    stage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    taus: Counter[int] = field(default_factory=Counter)  # captions by tau, in steps
    lengths: Counter[int] = field(default_factory=Counter)  # captions by tokens
    origins: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)  # model and drafter, with fingerprints
    per_second: Counter[int] = field(default_factory=Counter)  # captions by when their unit was written
    examples: list[Outcome] = field(default_factory=list)
    _num_seen: int = 0
    _draws: random.Random = field(default_factory=lambda: random.Random(0))

    def add(self, outcome: Outcome, written_s: float | None = None) -> None:
        """The outcome is counted."""
        self.num_outcomes += 1
        self.num_rows += outcome.segment == 0 and outcome.prompt_index == 0
        if outcome.prompt_index == 0:
            self.stage_s["read"] += outcome.read_s
        if outcome.error:
            self._add_error(outcome)
            return
        if written_s is not None:
            self.per_second[int(written_s)] += 1
        if outcome.prompt_index == 0 and outcome.end_s is not None:
            self.video_s += outcome.end_s - (outcome.start_s or 0.0)
        self.lengths[outcome.num_tokens] += 1
        self._maybe_keep(outcome)
        if outcome.is_copy:
            self.num_copies += 1
        else:
            self._add_decoded(outcome)

    @property
    def num_captions(self) -> int:
        """Outcomes that are captions."""
        return self.num_outcomes - sum(self.errors.values())

    @property
    def tau(self) -> float:
        """Tokens that one verification committed, over all captions; 0 where nothing was verified."""
        return self.drafted_tokens / self.rounds if self.rounds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "rows": self.num_rows,
            "outcomes": self.num_outcomes,
            "captions": self.num_captions,
            "copies": self.num_copies,
            "tokens": self.num_tokens,
            "tokens_per_caption": self.num_tokens / max(1, self.num_captions - self.num_copies),
            "tau": self.tau,
            "video_s": self.video_s,
            "stage_s": dict(self.stage_s),
            "errors": {kind: self._error(kind, count) for kind, count in self.errors.most_common()},
            "origins": [dict(zip(ORIGIN, origin, strict=True)) for origin in self.origins],
            "taus": {f"{TAU_STEP * step:g}": count for step, count in sorted(self.taus.items())},
            "lengths": {str(length): count for length, count in sorted(self.lengths.items())},
        }

    def _error(self, kind: str, count: int) -> Mapping[str, Any]:
        examples = [{"row_id": row_id, "message": message} for row_id, message in self.error_examples.get(kind, [])]
        return {"count": count, "examples": examples}

    def _add_error(self, outcome: Outcome) -> None:
        self.errors[outcome.error] += 1
        if outcome.error in self.error_examples or len(self.error_examples) < ERROR_KINDS:
            examples = self.error_examples[outcome.error]
            if len(examples) < ERROR_EXAMPLES:
                examples.append((outcome.row_id, outcome.error_message))

    def _add_decoded(self, outcome: Outcome) -> None:
        self.num_tokens += outcome.num_tokens
        self.stage_s["encode"] += outcome.encode_s
        self.stage_s["decode"] += outcome.decode_s
        self.origins[(outcome.model, outcome.model_fingerprint, outcome.drafter, outcome.drafter_fingerprint)] += 1
        if outcome.tau > 0:
            # The first token comes with the prefill. Rates are not averaged; the rounds are added up.
            self.drafted_tokens += outcome.num_tokens - 1
            self.rounds += (outcome.num_tokens - 1) / outcome.tau
            self.taus[int(outcome.tau / TAU_STEP)] += 1

    def _maybe_keep(self, outcome: Outcome) -> None:
        """Every caption is kept as an example with the same probability."""
        self._num_seen += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(outcome)
        elif (place := self._draws.randrange(self._num_seen)) < EXAMPLES:
            self.examples[place] = outcome


ORIGIN = ("model", "model_fingerprint", "drafter", "drafter_fingerprint")
