"""What a lane counts while it works; whoever exports metrics reads these totals and takes differences."""

from __future__ import annotations

from dataclasses import dataclass, field

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64)  # upper bounds of the histogram of requests per round


@dataclass(slots=True)
class LaneMeters:
    """Totals since the lane was made."""

    rounds: int = 0
    verified_rows: int = 0  # rows that the target forwarded for blocks, anchors included
    draft_tokens: int = 0
    accepted_tokens: int = 0
    new_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0  # of these: found in the KV cache
    accepted_per_position: list[int] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))
    answers: dict[str, int] = field(default_factory=dict)  # by finish reason
    stage_s: dict[str, float] = field(default_factory=dict)

    def count_round(self, num_requests: int, times: dict[str, float]) -> None:
        """A round of so many requests is in the totals."""
        self.rounds += 1
        index = next((i for i, bound in enumerate(BATCH_BOUNDS) if num_requests <= bound), len(BATCH_BOUNDS))
        self.batch_sizes[index] += 1
        for stage, seconds in times.items():
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds

    def count_block(self, num_drafted: int, num_accepted: int, num_new: int) -> None:
        """A judged block is in the totals."""
        self.verified_rows += num_drafted + 1
        self.draft_tokens += num_drafted
        self.accepted_tokens += num_accepted
        self.new_tokens += num_new
        self.accepted_per_position += [0] * (num_accepted - len(self.accepted_per_position))
        for position in range(num_accepted):
            self.accepted_per_position[position] += 1

    def count_answer(self, reason: str) -> None:
        """An ended request is in the totals."""
        self.answers[reason] = self.answers.get(reason, 0) + 1
