"""The command line of a corpus: what goes together, what an output was begun with, what people read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.batch.begun import begin, corpus_id, settings_of
from flashsd_ray.batch.estimate import sample
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.rows import Clip, Outcome
from flashsd_ray.batch.run import merged
from flashsd_ray.batch.segments import SegmentRule
from flashsd_ray.batch.tallies import Tally
from flashsd_ray.cli.batch import check, job_of
from flashsd_ray.cli.batch_progress import duration, line
from flashsd_ray.cli.main import build_parser, main
from flashsd_ray.cli.parsing import UsageError
from flashsd_ray.errors import ConfigError
from flashsd_ray.types import SamplingParams


def parsed(*words: str):
    return build_parser().parse_args(["batch", "videos", "--output", "out", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "a", "--prompts-file", "b"), "exclude each other"),
        (("--retry-failed", "--ledger", "redis://x"), "one driver"),
        (("--ledger", "http://x"), "redis://"),
        (("--lanes", "3", "--max-lanes", "2"), "--max-lanes"),
        (("--cost-per-hour", "2"), "--dry-run"),
    ],
)
def test_options_that_exclude_each_other_are_refused(words: tuple[str, ...], message: str):
    with pytest.raises(UsageError, match=message):
        check(parsed(*words))


def test_typing_errors_are_answered_with_what_would_be_right(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for words, hint in {
        ("--promt", "x"): "--prompt",
        ("--segment", "windows:3"): "window:SECONDS",
        ("--format", "csv"): "parquet",
        ("--model", "dmo"): "demo",
        ("--set", "batch.rows_per_unti=3"): "rows_per_unit",
    }.items():
        assert main(["batch", str(tmp_path), "--output", str(tmp_path / "out"), *words]) == 2
        assert hint in capsys.readouterr().err
    assert main(["batch", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_prompts_come_from_a_file_a_line_each(tmp_path: Path):
    (tmp_path / "prompts").write_text("one\n\n two \n")
    assert job_of(parsed("--prompts-file", str(tmp_path / "prompts"))).prompts == ("one", "two")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError, match="no prompt"):
        job_of(parsed("--prompts-file", str(tmp_path / "empty")))


def test_options_win_over_settings():
    config = job_of(parsed("--set", "batch.max_lanes=2", "--max-lanes", "5", "--workers", "3", "--lanes", "4")).config
    assert (config.batch.max_lanes, config.batch.decode_workers, config.placement.num_lanes) == (5, 3, 4)


def test_an_output_goes_on_with_the_settings_that_it_was_begun_with(tmp_path: Path):
    job = Job()
    settings = settings_of(job, "input", ("parquet",))
    begin(str(tmp_path), settings)
    begin(str(tmp_path), settings)
    others = {
        "sampling": replace(job, sampling=SamplingParams(seed=1)),
        "prompts": replace(job, prompts=("other",)),
        "segments": replace(job, segments=SegmentRule.parse("window:3")),
        "frames": replace(job, num_frames=3),
    }
    for name, other in others.items():
        with pytest.raises(ConfigError, match=name):
            begin(str(tmp_path), settings_of(other, "input", ("parquet",)))
    begin(str(tmp_path), settings_of(others["frames"], "input", ("parquet",)), force=True)


def test_who_drafts_may_change_because_nothing_else_does():
    job = Job()
    other = replace(job, config=replace(job.config, speculation=replace(job.config.speculation, drafter="none")))
    first, second = (settings_of(one, "input", ("parquet",)) for one in (job, other))
    assert corpus_id("out", first) == corpus_id("out/", second)
    assert corpus_id("out", first) != corpus_id("elsewhere", first)


def test_every_row_of_a_sample_is_as_likely():
    class Rows:
        def clips(self):
            yield from (Clip(row_id=str(number), source="") for number in range(40))

    drawn = [clip.row_id for seed in range(400) for clip in sample(Rows(), 4, seed).clips]
    counts = [drawn.count(str(number)) for number in range(40)]
    assert sample(Rows(), 4).num_rows == 40
    assert 15 < min(counts) <= max(counts) < 75


def test_rows_that_are_done_again_take_the_place_of_those_before():
    before = [
        Outcome(row_id="a", caption="A"),
        Outcome(row_id="b", error="MediaError"),
        Outcome(row_id="c", caption="C"),
    ]
    after = [Outcome(row_id="b", caption="B"), Outcome(row_id="b", prompt_index=1, caption="B2")]
    assert [one.caption for one in merged(before, after, frozenset("b"))] == ["A", "B", "B2", "C"]


def test_progress_tells_rate_and_time_left():
    times = iter([0.0, 100.0, 100.0])
    tally = Tally(num_before=10, total_rows=60, clock=lambda: next(times))
    tally.take_unit(25, [Outcome(row_id="a", error="MediaError"), Outcome(row_id="b", num_tokens=7)])
    assert line(tally.progress()) == "35 of 60 rows, 900 rows/h, 1 errors, 1.7 min left"


def test_times_are_for_people():
    assert [duration(one) for one in (3, 600, 7200, 400_000)] == ["3 s", "10.0 min", "2.0 h", "4.6 d"]


def test_how_long_lanes_waited_is_what_they_told_last():
    tally = Tally()
    for busy_s, idle_s in ((8.0, 1.0), (9.0, 1.0), (5.0, 0.5)):  # parcels come in any order
        tally.take_notes({"lane": "one", "busy_s": busy_s, "idle_s": idle_s})
    assert tally.waiting_share == pytest.approx(0.1)
    assert Tally().waiting_share is None
