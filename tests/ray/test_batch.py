"""A corpus on Ray Data: every row once, whatever dies, and the same rows however often it is begun again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from flashsd_ray.batch import caption_dataset
from flashsd_ray.batch.begun import corpus_id, settings_of
from flashsd_ray.batch.inputs import open_input
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.outputs import Writer
from flashsd_ray.batch.redis_claims import open_claims
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.batch.run import Run
from flashsd_ray.batch.tallies import Progress
from flashsd_ray.bench.batch.drivers import TITLES, Driver, children_of, title_of
from flashsd_ray.bench.batch.kills import essence
from flashsd_ray.cli.batch import job_of
from flashsd_ray.cli.main import build_parser
from flashsd_ray.config import BatchConfig, Config, ModelConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.media import load_visual
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.redis_server import RedisServer, needs_redis

pytestmark = pytest.mark.timeout(600)

PROMPTS = ("Describe the video in detail.", "What moves?")
SAMPLING = SamplingParams(max_new_tokens=12)


def job(**settings: Any) -> Job:
    batch = BatchConfig(**({"rows_per_unit": 2, "rows_per_parcel": 1} | settings))
    return Job(config=Config(batch=batch, model=ModelConfig(dtype="float32")), prompts=PROMPTS, sampling=SAMPLING)


def run(corpus: Path, output: Path, **options: Any) -> Run:
    return Run(job=options.pop("job", job()), source=open_input([str(corpus)]), writer=Writer(str(output)), **options)


def rows(output: Path) -> list[Outcome]:
    return list(Writer(str(output)).outcomes())


def essences(outcomes: Sequence[Outcome]) -> list[object]:
    return [essence(outcome) for outcome in outcomes]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, clips: list[Path]) -> Path:
    """Four clips, one of them twice, and two files that are damaged."""
    place = tmp_path_factory.mktemp("corpus")
    for number, clip in enumerate([*clips[:4], clips[0]]):
        (place / f"{number}.mp4").symlink_to(clip)
    (place / "5.mp4").write_bytes(b"")
    (place / "6.mp4").write_bytes(clips[0].read_bytes()[:100])
    return place


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    output = tmp_path_factory.mktemp("undisturbed")
    told: list[Progress] = []
    summary = run(corpus, output, listener=told.append)()
    assert summary.stopped == ""
    assert told[-1].num_rows == summary.progress.num_rows == 7
    assert told[-1].errors == {"MediaError": 2}
    assert [one.num_rows for one in told] == sorted(one.num_rows for one in told)
    return rows(output)


def test_every_row_has_the_answers_of_the_plain_engine(corpus: Path, undisturbed: list[Outcome]):
    assert [one.key for one in undisturbed] == [
        *((f"{number}.mp4", 0, prompt) for number in range(5) for prompt in (0, 1)),
        ("5.mp4", 0, 0),
        ("6.mp4", 0, 0),
    ]
    engine = Engine.local(job().config)
    for outcome in undisturbed[:4]:
        visual = load_visual(outcome.source, job().config.media)
        request = CaptionRequest(request_id="a", prompt=outcome.prompt, visuals=(visual,), sampling=SAMPLING)
        answer = engine.caption(request)
        assert (outcome.caption, outcome.num_tokens) == (answer.text, len(answer.token_ids))
    assert [bool(one.error) for one in undisturbed] == [False] * 10 + [True] * 2
    assert {one.error for one in undisturbed[10:]} == {"MediaError"}
    # The same clip twice has the same answers, which were decoded once.
    assert [one.caption for one in undisturbed[:2]] == [one.caption for one in undisturbed[8:10]]
    twins = (undisturbed[0], undisturbed[8]), (undisturbed[1], undisturbed[9])
    assert all(first.is_copy != second.is_copy for first, second in twins)


def test_what_was_done_is_not_done_again_and_failed_rows_are_done_in_place(
    corpus: Path, undisturbed: list[Outcome], clips: list[Path], tmp_path: Path
):
    videos, output = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(corpus, videos)
    assert "--max-errors" in run(videos, output, max_errors=0)().stopped
    before = written(output)
    assert before
    assert not run(videos, output)().stopped
    assert before.items() <= written(output).items()
    assert [essence(replace(one, source="")) for one in rows(output)] == [
        essence(replace(one, source="", error_message=one.error_message.replace(str(corpus), str(videos))))
        for one in undisturbed
    ]

    before = written(output)
    shutil.copy(clips[1], videos / "6.mp4")
    summary = run(videos, output, retries_failed=True)()
    assert (summary.progress.num_rows, summary.progress.errors) == (2, {"MediaError": 1})
    again = rows(output)
    assert [one.key for one in again[:11]] == [one.key for one in undisturbed[:11]]
    assert [(one.key, one.caption) for one in again[11:]] == [
        (("6.mp4", 0, number), undisturbed[2 + number].caption) for number in (0, 1)
    ]
    assert sum(written(output)[name] == time for name, time in before.items()) == 2


def written(output: Path) -> dict[str, int]:
    """When each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "parquet").iterdir()}


class Killer:
    """Kills workers of this test's Ray, chosen by what they run, at most so many."""

    def __init__(self, kind: str, number: int) -> None:
        self.killed: list[int] = []
        self._kind, self._number = kind, number
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _kill(self) -> None:
        while len(self.killed) < self._number and not self._is_over.wait(0.01):
            found = [pid for pid in children_of(os.getpid()) if title_of(pid).startswith(TITLES[self._kind])]
            for pid in [pid for pid in found if pid not in self.killed][:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)


def test_rows_survive_their_workers(corpus: Path, undisturbed: list[Outcome], tmp_path: Path):
    with Killer("reader", 1) as readers, Killer("lane", 1) as lanes:
        summary = run(corpus, tmp_path)()
    assert (len(readers.killed), len(lanes.killed)) == (1, 1)
    assert essences(rows(tmp_path)) == essences(undisturbed)
    assert not summary.stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned(Job):
    """A job under which one row kills every lane that takes it."""

    def questions(self, kind: str, own: tuple[str, ...]) -> tuple[str, ...]:
        if "poison" in own:
            os.kill(os.getpid(), signal.SIGKILL)
        return own or PROMPTS


def test_a_row_that_kills_its_worker_becomes_an_error_row(corpus: Path, undisturbed: list[Outcome], tmp_path: Path):
    manifest = tmp_path / "rows.jsonl"
    lines = [{"id": str(number), "path": str(corpus / f"{number}.mp4")} for number in range(3)]
    lines[1]["prompt"] = "poison"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = job(max_attempts=1)
    poisoned = Poisoned(config=plain.config, prompts=plain.prompts, sampling=plain.sampling)
    summary = run(manifest, tmp_path / "out", job=poisoned)()
    first, second, died, *rest = rows(tmp_path / "out")
    assert (died.row_id, died.error, died.caption) == ("1", "WorkerDied", "")
    assert [one.caption for one in (first, second)] == [one.caption for one in undisturbed[:2]]
    assert [one.caption for one in rest] == [one.caption for one in undisturbed[4:6]]
    assert summary.num_repeated_passes == 2  # the one that was lost, and each row by itself, twice


def test_a_dataset_is_captioned_beside_its_own_columns(corpus: Path, undisturbed: list[Outcome]):
    paths = [{"path": str(corpus / f"{number}.mp4"), "label": number} for number in (0, 1, 5)]
    captioned = caption_dataset(ray.data.from_items(paths), job=job())
    found = sorted(captioned.take_all(), key=lambda row: (row["label"], row["prompt_index"]))
    assert [(row["label"], row["prompt_index"]) for row in found] == [(0, 0), (0, 1), (1, 0), (1, 1), (5, 0)]
    assert [row["caption"] for row in found[:4]] == [one.caption for one in undisturbed[:4]]
    assert (found[4]["error"], found[4]["caption"]) == ("MediaError", "")


@needs_redis
def test_a_driver_takes_over_what_another_one_left_when_it_was_killed(corpus: Path, tmp_path: Path):
    manifest = tmp_path / "rows.jsonl"
    lines = [{"id": f"{number:02}", "path": str(corpus / f"{number % 4}.mp4")} for number in range(24)]
    manifest.write_text("".join(json.dumps(line | {"prompt": f"What moves? {line['id']}"}) + "\n" for line in lines))
    output = tmp_path / "out"
    words = [str(manifest), "--output", str(output), "--max-new-tokens", "4", "--dtype", "float32", "--no-report"]
    sizes = ("batch.rows_per_unit=2", "batch.rows_per_parcel=1", "batch.decode_workers=1", "scheduling.max_running=2")
    for size in (*sizes, "batch.lease_s=3"):
        words += ["--set", size]
    arguments = build_parser().parse_args(["batch", *words])
    theirs = job_of(arguments)
    source = open_input([str(manifest)])
    with RedisServer() as redis:
        driver = Driver.start([*words, "--ledger", redis.url], tmp_path / "log")
        try:
            while not (done := sorted(Writer(str(output)).finished())):
                assert driver.wait(0.05) is None, driver.log.read_text()
            driver.kill()
        finally:
            driver.end()
        done = sorted(Writer(str(output)).finished())
        before = written(output)
        corpus_name = corpus_id(str(output), settings_of(theirs, source.fingerprint(), ("parquet",)))
        claims = open_claims(theirs.config.stores, redis.url, corpus_name, 3.0)
        run(manifest, output, job=theirs, claims=claims)()
    assert 0 < len(done) < 12
    assert [one.row_id for one in rows(output)] == [f"{number:02}" for number in range(24)]
    assert not any(one.error for one in rows(output))
    assert before.items() <= written(output).items()
