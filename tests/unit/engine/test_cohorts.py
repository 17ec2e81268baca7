"""Two cohorts take turns: the drafter is never waited for in vain, and no answer changes by a token."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hypothesis import settings

from flashsd_ray.config import Config, PlacementConfig, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.lane import Lane
from flashsd_ray.types import CaptionRequest, DraftBlock, EncodedPrompt, Fill, SamplingParams, Verdict
from tests.fakes import ScriptDrafter, TableTarget
from tests.unit.engine.test_lane import EOS, LOGITS, Clock, LaneMachine, LetterEncoder, expected, noise


class LateBlocks:
    """Blocks that are made when the orders before them have been carried out, and not before they are needed."""

    def __init__(self, drafter: LateDrafter, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> None:
        self.drafter = drafter
        self.verdicts, self.lengths = list(verdicts), list(lengths)
        self.made: list[DraftBlock] | None = None

    def make(self) -> None:
        self.made = self.drafter.inner.propose(self.verdicts, self.lengths)

    def blocks(self) -> list[DraftBlock]:
        while self.made is None:
            self.drafter.orders.popleft()()
        return self.made


class LateDrafter:
    """Like a drafter in another process: orders wait in line until the blocks of one are asked for."""

    tap_layers: tuple[int, ...] = ()
    tap_width = 0

    def __init__(self) -> None:
        self.inner = ScriptDrafter(noise, 4)
        self.max_draft_length = self.inner.max_draft_length
        self.fuse = self.inner.fuse
        self.orders: deque[Callable[[], None]] = deque()

    def open(self, request_id: str, prompt: EncodedPrompt, sampling: SamplingParams, max_rows: int) -> None:
        self.orders.append(lambda: self.inner.open(request_id, prompt, sampling, max_rows))

    def close(self, request_id: str) -> None:
        self.orders.append(lambda: self.inner.close(request_id))

    def begin(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> LateBlocks:
        late = LateBlocks(self, verdicts, lengths)
        self.orders.append(late.make)
        return late

    def propose(self, verdicts: Sequence[Verdict], lengths: Sequence[int]) -> list[DraftBlock]:
        return self.begin(verdicts, lengths).blocks()

    @property
    def under_way(self) -> set[str]:
        """Requests whose blocks were ordered and not taken."""
        made = [order.__self__ for order in self.orders if isinstance(getattr(order, "__self__", None), LateBlocks)]
        return {verdict.request_id for late in made for verdict in late.verdicts}


class WatchedTarget(TableTarget):
    """Notes at each forward what is judged, and what is drafted meanwhile."""

    def __init__(self, drafter: LateDrafter, max_rows: int = 10**6) -> None:
        super().__init__(LOGITS, max_rows=max_rows)
        self.drafter = drafter
        self.seen: list[tuple[set[str], set[str]]] = []

    def verify(self, blocks: Sequence[DraftBlock], fills: Sequence[Fill] = ()) -> list[Verdict]:
        self.seen.append(({block.request_id for block in blocks}, self.drafter.under_way))
        return super().verify(blocks, fills)


def new_lane(target: TableTarget, drafter: LateDrafter | ScriptDrafter, cohorts: int = 0) -> Lane:
    config = Config(
        scheduling=SchedulingConfig(max_running=4, max_waiting=5, prefill_rows=4),
        speculation=SpeculationConfig(draft_length=3),
        placement=PlacementConfig(cohorts=cohorts),
    )
    return Lane(LetterEncoder(), target, drafter, config, eos_token_ids=(EOS,), clock=Clock())


def endless(request_id: str, max_new_tokens: int = 40) -> CaptionRequest:
    sampling = SamplingParams(max_new_tokens=max_new_tokens, ignore_eos=True)
    return CaptionRequest(request_id=request_id, prompt="ab", sampling=sampling)


class TwoCohorts(LaneMachine):
    """Submits, cancels and steps in any order, with a drafter elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(
            LetterEncoder(), self.target, LateDrafter(), self.lane._config, eos_token_ids=(EOS,), clock=Clock()
        )


class TwoCohortsInOneProcess(LaneMachine):
    """The same with a drafter that works at once: pointless, and right all the same."""

    def __init__(self) -> None:
        super().__init__()
        config = Config(
            scheduling=self.lane._config.scheduling,
            speculation=self.lane._config.speculation,
            placement=PlacementConfig(cohorts=2),
        )
        self.lane = Lane(
            LetterEncoder(), self.target, ScriptDrafter(noise, 4), config, eos_token_ids=(EOS,), clock=Clock()
        )


TestTwoCohorts = TwoCohorts.TestCase
TestTwoCohorts.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestTwoCohortsInOneProcess = TwoCohortsInOneProcess.TestCase
TestTwoCohortsInOneProcess.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_one_cohort_is_drafted_for_while_the_other_is_judged() -> None:
    drafter = LateDrafter()
    target = WatchedTarget(drafter)
    lane = new_lane(target, drafter)
    for name in "abcd":
        lane.submit(endless(name))
    for _ in range(10):
        lane.step()
    judged, drafted = target.seen[-2:]
    assert judged[0] == drafted[1]
    assert judged[1] == drafted[0]
    assert len(judged[0]) == len(drafted[0]) == 2
    assert not judged[0] & judged[1]


def test_those_who_are_left_are_divided_anew() -> None:
    drafter = LateDrafter()
    target = WatchedTarget(drafter)
    lane = new_lane(target, drafter)
    for name in "abcd":
        lane.submit(endless(name))
    for _ in range(6):
        lane.step()
    for name in target.seen[-1][0]:
        lane.cancel(name)
    for _ in range(4):
        lane.step()
    assert all(len(judged) == len(drafted) == 1 and judged != drafted for judged, drafted in target.seen[-2:])


def test_a_lone_request_is_judged_in_every_round() -> None:
    drafter = LateDrafter()
    target = WatchedTarget(drafter)
    lane = new_lane(target, drafter)
    lane.submit(endless("a"))
    while not lane.is_idle:
        (chunk,) = lane.step()
        assert chunk.token_ids


def test_a_block_of_a_request_that_is_gone_is_not_given_to_its_successor() -> None:
    drafter = LateDrafter()
    lane = new_lane(WatchedTarget(drafter), drafter)
    lane.submit(endless("a"))
    lane.submit(endless("b"))
    for _ in range(4):
        lane.step()
    lane.cancel("a")
    successor = CaptionRequest(request_id="a", prompt="edcba", sampling=SamplingParams(max_new_tokens=12))
    lane.submit(successor)
    tokens: list[int] = []
    while not lane.is_idle:
        tokens += [token for chunk in lane.step() if chunk.request_id == "a" for token in chunk.token_ids]
    assert tuple(tokens) == expected(successor)


def test_time_is_counted_once_for_each_request() -> None:
    for drafter in (LateDrafter(), ScriptDrafter(noise, 4)):
        lane = new_lane(TableTarget(LOGITS), drafter)
        for name in "abc":
            lane.submit(endless(name))
        ended = []
        while not lane.is_idle:
            ended += [chunk.stats for chunk in lane.step() if chunk.stats is not None]
        for stats in ended:
            seconds = stats.seconds
            assert 0 < seconds["verify"] + seconds["draft"] <= seconds["decode"] + 1e-9
            assert seconds["prefill"] + seconds["decode"] <= lane.meters.stage_s["decode"]
