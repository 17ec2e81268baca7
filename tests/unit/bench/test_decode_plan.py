"""Who answers what, and in which order; what is on disk, and what goes on from there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.bench.decode.contenders import Outcome
from flashsd_ray.bench.decode.measuring import Measured, measure
from flashsd_ray.bench.decode.plan import Cell, Plan, Turn, cells_of
from flashsd_ray.bench.journal import ResultJournal
from flashsd_ray.bench.workload import Question, assert_distinct
from flashsd_ray.errors import ConfigError
from flashsd_ray.types import SamplingParams, VisualInput

PLAN = Plan(
    cells=cells_of([0.0, 1.0], [1, 4, 32]),
    num_clips=20,
    contenders=("plain", "block", "generate", "lookup"),
    num_baseline_clips=6,
    foreign=frozenset({"generate", "lookup"}),
    alone=frozenset({"lookup"}),
)


def question(index: int) -> Question:
    frames = np.full((1, 2, 2, 3), index, dtype=np.uint8)
    return Question("What?", VisualInput(kind="video", frames=frames, timestamps_s=np.zeros(1)))


class Scripted:
    """A contender that remembers what it was asked."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self.name = name
        self._log = log

    def answer(self, batch: Sequence[Question], samplings: Sequence[SamplingParams]) -> Outcome:
        self._log.append((self.name, len(batch)))
        token_ids = {one.visual.digest: [sampling.seed] for one, sampling in zip(batch, samplings, strict=True)}
        return Outcome(seconds=1.0, num_tokens=len(batch), token_ids=token_ids, rounds=len(batch))


@settings(deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 2, 3, 8, 32]))
def test_every_clip_is_answered_and_every_batch_is_full(num_clips: int, batch_size: int) -> None:
    plan = Plan(cells=cells_of([0.0], [batch_size]), num_clips=num_clips, contenders=("plain",))
    batches = [plan.clips_of(turn) for turn in plan.turns()]
    assert {clip for batch in batches for clip in batch} == set(range(num_clips))
    assert all(len(set(batch)) == len(batch) == min(batch_size, num_clips) for batch in batches)


def test_everybody_begins_as_often_as_the_others() -> None:
    orders = [PLAN.order(turn) for turn in PLAN.turns() if turn.cell == Cell(0.0, 1)]
    both = Counter(order[0] for order in orders if len(order) == 2)
    assert both == {"plain": 7, "block": 7}
    assert Counter(order[0] for order in orders if len(order) == 4).keys() == set(PLAN.contenders)


def test_foreign_contenders_see_the_first_clips_and_some_only_one_at_a_time() -> None:
    alone = [turn for turn in PLAN.turns() if "lookup" in PLAN.order(turn)]
    assert {turn.cell.batch_size for turn in alone} == {1}
    assert {clip for turn in alone for clip in PLAN.clips_of(turn)} == set(range(6))
    large = [turn for turn in PLAN.turns() if turn.cell.batch_size == 32]
    assert sum("generate" in PLAN.order(turn) for turn in large) == 8, "four of each temperature, for an interval"


def test_a_run_that_is_cut_short_is_short_everywhere() -> None:
    turns = PLAN.turns()
    done = Counter(turn.cell for turn in turns[: len(turns) // 2])
    for cell in PLAN.cells:
        assert done[cell] == pytest.approx(PLAN.num_turns(cell) / 2, abs=1)


def test_clips_with_the_same_content_are_noticed() -> None:
    assert_distinct([question(1), question(2)])
    for questions in ([], [question(1), question(1)]):
        with pytest.raises(ValueError, match="distinct"):
            assert_distinct(questions)


def run(folder: Path, log: list[tuple[str, int]], *, seconds: float = 1e9) -> list[Measured]:
    contenders = {name: Scripted(name, log) for name in PLAN.contenders}
    journal = ResultJournal(folder / "turns.jsonl", {"clips": 20})
    questions = [question(index) for index in range(20)]
    return measure(PLAN, contenders, questions, journal, max_new_tokens=5, seconds=seconds)


def test_a_measurement_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    log: list[tuple[str, int]] = []
    whole = run(tmp_path, log)
    assert len(whole) == len(PLAN.turns())
    counted = sum(len(one.outcomes) for one in whole)
    warm_ups = sum(
        len({name for turn in PLAN.turns() if turn.cell == cell for name in PLAN.order(turn)}) for cell in PLAN.cells
    )
    assert len(log) == counted + warm_ups
    path = tmp_path / "turns.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-3]) + lines[-3][:40])
    log.clear()
    again = run(tmp_path, log)
    assert [one.as_dict() for one in again] == [one.as_dict() for one in whole]
    assert 3 <= len(log) <= 3 * 2 * len(PLAN.contenders)
    log.clear()
    assert run(tmp_path, log) == again
    assert not log


def test_no_time_no_turns(tmp_path: Path) -> None:
    assert run(tmp_path, [], seconds=0.0) == []


def test_seeds_belong_to_clips_whatever_the_batch(tmp_path: Path) -> None:
    seeds: dict[str, set[int]] = {}
    for one in run(tmp_path, []):
        for outcome in one.outcomes.values():
            for digest, token_ids in outcome.token_ids.items():
                seeds.setdefault(digest, set()).update(token_ids)
    assert all(len(of_clip) == 1 for of_clip in seeds.values())


def test_a_journal_is_about_one_measurement(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    ResultJournal(path, {"model": "a", "sizes": (1, 8)}).add({"value": 1})
    assert ResultJournal(path, {"model": "a", "sizes": [1, 8]}).results == [{"value": 1}]
    with pytest.raises(ConfigError, match="model a, now it is b"):
        ResultJournal(path, {"model": "b", "sizes": (1, 8)})


def test_turns_have_an_order() -> None:
    assert sorted([Turn(Cell(1.0, 1), 0), Turn(Cell(0.0, 8), 1), Turn(Cell(0.0, 8), 0)])[0] == Turn(Cell(0.0, 8), 0)
