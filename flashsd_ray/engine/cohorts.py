"""Requests that take turns: while the target judges the blocks of one cohort, a drafter makes those of the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flashsd_ray.scheduling.rounds import Standing
from flashsd_ray.speculation.draft_length import LengthInputs, LengthParams, LengthState
from flashsd_ray.speculation.interfaces import Drafter, Pending, PipelinedDrafter
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.speculation.stopping import StopRules
from flashsd_ray.types import CaptionRequest, DraftBlock, Verdict

Begin = Callable[[Sequence[Verdict], Sequence[int]], Pending]


@dataclass(slots=True, eq=False)
class Cohort:
    """Requests that are judged together."""

    drafting: Drafting | None = None  # their next blocks
    num_rounds: int = 0


@dataclass(slots=True, eq=False)
class Running:
    """A request whose rows are reserved."""

    request: CaptionRequest
    cohort: Cohort
    deadline_s: float  # by the lane's clock
    opened_s: float
    num_prompt_tokens: int
    num_found: int  # prompt positions that another request had left in the cache
    rules: StopRules
    lengths: LengthParams
    block: DraftBlock  # the next to be judged; in round 0 empty, which is the prefill, and while it is being drafted
    num_cached: int  # positions in the target's cache
    stats: SpeculationStats
    counted_s: float  # until when the lane's working time is in the stats
    first_token_s: float = 0.0  # from ``opened_s``
    untold: list[int] = field(default_factory=list)  # committed tokens that the drafter has not seen
    length_state: LengthState = field(default_factory=LengthState)

    @property
    def standing(self) -> Standing:
        """Where the request stands before a round."""
        return Standing(self.block.request_id, self.block.start, self.num_cached)

    @property
    def has_untold_prompt(self) -> bool:
        """Whether the drafter would have to read the prompt before it drafts the next block."""
        return self.block.start - len(self.untold) == self.num_prompt_tokens

    def tell_prompt(self) -> Verdict:
        """The verdict of round 0, whose token is untold no more."""
        token_ids = (self.untold.pop(0),)
        return Verdict(
            request_id=self.block.request_id,
            round=0,
            start=self.num_prompt_tokens,
            num_accepted=0,
            token_ids=token_ids,
        )

    def tell(self) -> Verdict:
        """All that was untold, as if the verdict on a single block had brought it."""
        token_ids = tuple(self.untold)
        self.untold.clear()
        return Verdict(
            request_id=self.block.request_id,
            round=self.block.round - 1,
            start=self.block.start - len(token_ids),
            num_accepted=len(token_ids) - 1,
            token_ids=token_ids,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Drafting:
    """Blocks that were ordered."""

    owners: list[Running]
    pending: Pending
    inputs: LengthInputs
    order_s: float  # what giving the order took; all of the drafting where the drafter works at once
    num_asked: int  # tokens to draft for all of them together
    num_read: int  # prompts that the drafter has not seen before
    reading_s: float  # of ``order_s``: reading them


@dataclass(frozen=True, slots=True)
class Drafted:
    """What came of an order."""

    num_asked: int = 0
    num_drafted: int = 0
    order_s: float = 0.0
    num_read: int = 0
    reading_s: float = 0.0


class Turns:
    """Whose turn it is, and who belongs to whom."""

    def __init__(self, num_cohorts: int, running: Mapping[str, Running]) -> None:
        self._cohorts = [Cohort() for _ in range(num_cohorts)]  # the one whose turn it is comes first
        self._running = running

    @property
    def smallest(self) -> Cohort:
        """The cohort that a new request joins."""
        return min(self._cohorts, key=lambda cohort: len(self.members(cohort)))

    def members(self, cohort: Cohort) -> list[Running]:
        """The requests of the cohort in order of admission."""
        return [running for running in self._running.values() if running.cohort is cohort]

    def take(self) -> Cohort:
        """The cohort whose turn it was: the next that has any requests, of which there must be some."""
        cohort = next(cohort for cohort in self._cohorts if self.members(cohort))
        self._cohorts.remove(cohort)
        self._cohorts.append(cohort)
        cohort.num_rounds += 1
        return cohort

    def level(self, cohort: Cohort) -> list[Running]:
        """The members of the cohort, once those it has too many of have joined the others.

        None of its blocks may be under way: whoever changes takes its block along.
        """
        members = self.members(cohort)
        for other in self._cohorts:
            while other is not cohort and len(members) - len(self.members(other)) > 1:
                members.pop().cohort = other
        return members


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    made: list[DraftBlock]

    def blocks(self) -> list[DraftBlock]:
        return self.made


def begin_with(drafter: Drafter) -> Begin:
    """How blocks are ordered from the drafter; one that is not pipelined makes them at once."""
    if isinstance(drafter, PipelinedDrafter):
        return drafter.begin
    return lambda verdicts, lengths: _Made(drafter.propose(verdicts, lengths))


def num_cohorts(configured: int, drafter: Drafter) -> int:
    """Two for a drafter that works while the lane does something else, unless a number is configured."""
    return configured or (2 if isinstance(drafter, PipelinedDrafter) else 1)
