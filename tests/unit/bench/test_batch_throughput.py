"""The figures of captioning a corpus: how long actors waited, and ratios against both settings of the plain pipeline."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("ray")

from flashsd_ray.batch.rows import Outcome
from flashsd_ray.bench.batch.plain import PlainRun, Settings, idle_share
from flashsd_ray.bench.batch.throughput import OurRun, Turn, _report, check_tuning
from flashsd_ray.errors import ConfigError

ARGUMENTS = argparse.Namespace(prompts=1, max_new_tokens=8, lanes=2)
USUAL, BEST = Settings("sdpa", 16, 2), Settings("eager", 16, 2)


def test_time_between_batches_is_counted_for_each_actor_by_itself() -> None:
    assert idle_share([("a", 0.0, 4.0), ("a", 5.0, 10.0), ("b", 2.0, 12.0)]) == pytest.approx(1 / 20)
    assert idle_share([("a", 1.0, 1.0)]) == 0.0


def test_ratios_are_of_totals_over_all_turns() -> None:
    ours = OurRun((Outcome(row_id="a", source="a", prompt="p", caption="cat ", num_tokens=6, tau=3.0),), 2.0, 0.05)
    usual = PlainRun({"a p": "cat"}, 6, 6.0, 0.0)
    best = PlainRun({"a p": "dog"}, 6, 3.0, 0.1)
    turns = [Turn(ours, usual, best), Turn(ours, usual, best)]
    report = _report(turns, 10, ARGUMENTS, {USUAL: 1.5, BEST: 1.0}, (USUAL, BEST))
    [row] = report.rows
    assert report.is_sound
    assert row["ratio_usual"]["value"] == pytest.approx(3.0)
    assert row["ratio_best"]["value"] == pytest.approx(1.5)
    assert row["clips_per_s"] == pytest.approx(5.0)
    assert (row["same_captions"], row["waiting_share"], row["plain_best"]["waiting_share"]) == (1.0, 0.05, 0.1)
    assert report.details["tried"][0]["attention"] == "sdpa"


def test_a_failed_row_is_not_sound() -> None:
    ours = OurRun((Outcome(row_id="a", source="a", prompt="p", error="MediaError"),), 2.0, 0.0)
    plain = PlainRun({}, 0, 2.0, 0.0)
    assert not _report([Turn(ours, plain, plain)], 1, ARGUMENTS, {USUAL: 1.0}, (USUAL, USUAL)).is_sound


def test_settings_of_the_plain_pipeline_are_found_with_full_batches() -> None:
    check_tuning(64, 192, num_actors=2)
    for num_clips, num_all in ((63, 192), (64, 40)):
        with pytest.raises(ConfigError, match="must be 64 or more"):
            check_tuning(num_clips, num_all, num_actors=2)
