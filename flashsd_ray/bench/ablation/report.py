"""``flashsd bench ablation``: every row is trained and examined, or read from its folder; then it is put into words."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import monotonic

from flashsd_ray.bench.ablation.evaluating import Examination, evaluated
from flashsd_ray.bench.ablation.figures import draw
from flashsd_ray.bench.ablation.library import Library, Source, knows_what_is_true
from flashsd_ray.bench.ablation.rows import ROWS, AblationRow, rows_named
from flashsd_ray.bench.ablation.summary import Run, pairs_of, results_of
from flashsd_ray.bench.ablation.tables import pair_table_of, table_of
from flashsd_ray.bench.ablation.training import trained
from flashsd_ray.bench.journal import ResultJournal
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.workload import assert_distinct, held_out_questions
from flashsd_ray.config import Config, MediaConfig, ModelConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.checkpoint import describe
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.events import Asked, Event, Learnt, LeftOut, Listener, Read
from flashsd_ray.training.drafter.state import is_finished
from flashsd_ray.training.drafter.trainer import TrainingConfig
from flashsd_ray.types import Conversation

SETTINGS, TABLE = "settings.jsonl", "ablation.md"
GIBIBYTE = 2**30


def report(arguments: argparse.Namespace) -> Report:
    """All rows that the time allowed; tables and figures are in the folder.

    Raises:
        ConfigError: a row is unknown, or the folder holds another ablation.
        FlashSDError: the target or the data cannot be read.
    """
    rows = _rows(arguments)
    target = load_target(arguments.model, dtype=arguments.dtype)
    target.limit_threads(arguments.threads)
    _check_settings(arguments, target)
    ends_s = monotonic() + (60.0 * arguments.total_minutes if arguments.total_minutes else math.inf)
    runs: list[Run] = []
    for frames in arguments.frames:
        runs += _Session(arguments, target, frames, ends_s).runs(rows)
        _write(runs, arguments.out)
    results = results_of(runs)
    return Report(
        [result.as_dict() for result in results],
        is_sound=arguments.dtype != "float32" or not any(result.decoded.diverged for result in results),
        details={"pairs": [pair.as_dict() for pair in pairs_of(results)], "model": arguments.model},
    )


def _rows(arguments: argparse.Namespace) -> tuple[AblationRow, ...]:
    rows = rows_named(arguments.rows) if arguments.rows else ROWS
    if knows_what_is_true(arguments.data):
        return rows
    left_out = [row.name for row in rows if row.tells_answers]
    if left_out:
        print(f"{arguments.data} does not say what is true; without {', '.join(left_out)}", flush=True)
    return tuple(row for row in rows if not row.tells_answers)


def _check_settings(arguments: argparse.Namespace, target: PretrainedTarget) -> None:
    """Rows of one table have one training: the folder was made with the same settings.

    Raises:
        ConfigError: it was not.
    """
    names = ("model", "data", "taps", "steps", "minutes", "readings", "anchors", "clips", "max_new_tokens")
    identity = {name: getattr(arguments, name) for name in names}
    ResultJournal(arguments.out / SETTINGS, identity | {"fingerprint": target.fingerprint})


def _write(runs: Iterable[Run], folder: Path) -> None:
    results = results_of(list(runs))
    if not results:
        return
    text = f"{table_of(results)}\n{pair_table_of(pairs_of(results))}"
    print(text, flush=True)
    (folder / TABLE).write_text(text, encoding="utf-8")
    draw(results, folder)


@dataclass(frozen=True, eq=False)
class _Session:
    """All rows for clips of one number of frames."""

    arguments: argparse.Namespace
    target: PretrainedTarget
    frames: int
    ends_s: float  # by the monotonic clock

    def runs(self, rows: tuple[AblationRow, ...]) -> Iterator[Run]:
        """Each row with each seed; none is begun when the time is over."""
        view, taps = view_of(self.target), self.arguments.taps
        configs = {row.name: row.config(view, taps) for row in rows if not row.is_plain}
        library = cache(lambda: self._library([configs[row.name] for row in rows if row.name in configs]))
        examination = cache(self._examination)
        for seed in self.arguments.seeds:
            for row in rows:
                if monotonic() >= self.ends_s:
                    return
                folder = self._folder(row.name, seed)
                drafter = None if row.is_plain else self._folder(row.drafter_of or row.name, seed)
                if drafter is not None and not row.drafter_of and not is_finished(drafter):
                    with _bar(f"{row.name}, seed {seed}, {self.frames} frames, %") as listener:
                        trained(row, configs[row.name], view, library, self._training(seed), drafter, listener)
                yield self._examined(row, seed, folder, drafter, examination)

    def _examined(
        self, row: AblationRow, seed: int, folder: Path, drafter: Path | None, examination: Callable[[], Examination]
    ) -> Run:
        with counting(f"{row.name} decodes", self.arguments.clips) as count:
            measured = evaluated(row, drafter, examination(), folder, self.ends_s - monotonic(), count)
        described = {} if drafter is None else describe(drafter)
        return Run(row=row, frames=self.frames, seed=seed, measured=measured, described=described)

    def _folder(self, name: str, seed: int) -> Path:
        folder: Path = self.arguments.out / f"frames-{self.frames}" / name / f"seed-{seed}"
        return folder

    def _training(self, seed: int) -> TrainingConfig:
        asked = self.arguments
        return TrainingConfig(
            steps=asked.steps if not asked.minutes else None,
            minutes=asked.minutes or None,
            num_readings=asked.readings,
            num_anchors=asked.anchors,
            seed=seed,
            evaluate_every_s=300.0,
        )

    @property
    def _config(self) -> Config:
        model = ModelConfig(name=self.arguments.model, dtype=self.arguments.dtype, threads=self.arguments.threads)
        return Config(model=model, media=MediaConfig(num_frames=self.frames))

    def _library(self, configs: list[DrafterConfig]) -> Library:
        source = Source(
            data=self.arguments.data,
            num_heldout=self.arguments.heldout,
            max_new_tokens=self.arguments.max_new_tokens,
            memory_bytes=int(self.arguments.memory_gib * GIBIBYTE),
            config=self._config,
        )
        folder = self.arguments.out / f"frames-{self.frames}" / "answers"
        return Library(self.target, source, folder, configs, _said)

    def _examination(self) -> Examination:
        questions = held_out_questions(self.arguments.clips, frame_count=self.frames)
        assert_distinct(questions)
        encoder = LocalEncoder(self.target)
        config = self._config
        return Examination(
            target=self.target,
            plain=Engine.around(self.target, replace(config, speculation=SpeculationConfig(drafter="none"))),
            questions=questions,
            prompts={
                one.visual.digest: encoder.encode(Conversation.of(one.prompt, (one.visual,))) for one in questions
            },
            config=config,
            max_new_tokens=self.arguments.max_new_tokens,
            temperatures=(0.0,),
        )


@contextmanager
def _bar(description: str) -> Iterator[Listener]:
    """A listener that moves a bar while a training tells how far it is."""
    with counting(description, 100) as count:
        shown = 0

        def listen(event: Event) -> None:
            nonlocal shown
            _said(event)
            if isinstance(event, Learnt):
                while shown < int(100 * event.progress):
                    shown += 1
                    count()

        yield listen


def _said(event: Event) -> None:
    """What takes minutes before the first row is said in words."""
    if isinstance(event, Asked) and event.done == event.total:
        print(f"{event.total} questions were asked, in {event.seconds:.0f} s", flush=True)
    if isinstance(event, LeftOut):
        print(f"left out: {event.origin}: {event.reason}", flush=True)
    if isinstance(event, Read) and event.done:
        print(f"{event.done} of {event.total} answers are read ({event.num_bytes / GIBIBYTE:.1f} GiB)", flush=True)
