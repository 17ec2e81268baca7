"""``flashsd bench decode``: contenders are made, turns are run or read from disk, and all of it is put into words."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from flashsd_ray.bench.decode.contenders import Contender, EngineContender, WideContender
from flashsd_ray.bench.decode.divergence import Divergence, GapReader
from flashsd_ray.bench.decode.figures import draw
from flashsd_ray.bench.decode.generating import ONE_AT_A_TIME, GenerateContender
from flashsd_ray.bench.decode.measuring import Measured, measure
from flashsd_ray.bench.decode.plan import Plan, cells_of
from flashsd_ray.bench.decode.summary import FOREIGN, PLAIN, PLAIN_WIDE, Row, rows_of
from flashsd_ray.bench.decode.tables import table_of
from flashsd_ray.bench.journal import ResultJournal
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.workload import Question, assert_distinct, held_out_questions
from flashsd_ray.config import Config, ModelConfig, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.loading import load_configured
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import Conversation, EncodedPrompt

JOURNAL, TABLE = "turns.jsonl", "decode.md"
MOST_JUDGED = 200  # divergences of one contender whose gaps are looked up


def report(arguments: argparse.Namespace) -> Report:
    """The measurement, as far as its time allowed; tables and figures are in its folder.

    Raises:
        ConfigError: the folder holds another measurement.
        CheckpointError: a model cannot be loaded.
    """
    config = Config(model=ModelConfig(name=arguments.model, dtype=arguments.dtype, threads=arguments.threads))
    target = load_configured(config.model)
    questions = held_out_questions(arguments.clips, frame_count=arguments.frames)
    assert_distinct(questions)
    plan = _plan(arguments, target)
    journal = _journal(arguments, target)
    with counting("batches", len(plan.turns())) as count:
        measured = measure(
            plan,
            _contenders(arguments, config, target, questions),
            questions,
            journal,
            max_new_tokens=arguments.max_new_tokens,
            seconds=60.0 * arguments.minutes if arguments.minutes else math.inf,
            count=count,
        )
    rows = rows_of(measured)
    if target.decoder.dtype != torch.float32 and not arguments.no_gaps:
        rows = _with_gaps(rows, measured, questions, arguments.model)
    _write(rows, arguments.out, num_missing=len(plan.turns()) - len(measured))
    return Report(
        [row.as_dict() for row in rows],
        is_sound=target.decoder.dtype != torch.float32 or not _has_lost(rows),
        details={
            "model": arguments.model,
            "dtype": str(target.decoder.dtype).removeprefix("torch."),
            "turns_done": len(measured),
            "turns_planned": len(plan.turns()),
        },
    )


def _plan(arguments: argparse.Namespace, target: PretrainedTarget) -> Plan:
    plains = [PLAIN, PLAIN_WIDE] if target.decoder.attends_narrow else [PLAIN]
    names = [*plains, *(label_of(name) for name in arguments.drafters), *arguments.baselines]
    return Plan(
        cells=cells_of(arguments.temperatures, arguments.batch_sizes),
        num_clips=arguments.clips,
        contenders=tuple(dict.fromkeys(names)),
        num_baseline_clips=min(arguments.clips, arguments.baseline_clips),
        foreign=FOREIGN,
        alone=ONE_AT_A_TIME,
    )


def label_of(drafter: str) -> str:
    """What a drafter is called in tables: its name, or that of its folder."""
    return Path(drafter).name if "/" in drafter else drafter


def _journal(arguments: argparse.Namespace, target: PretrainedTarget) -> ResultJournal:
    path = arguments.out / JOURNAL
    if arguments.overwrite:
        path.unlink(missing_ok=True)
    identity = {
        "fingerprint": target.fingerprint,
        "dtype": str(target.decoder.dtype),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    asked = (
        *("model", "clips", "frames", "temperatures", "batch_sizes", "drafters", "baselines"),
        *("baseline_clips", "max_new_tokens", "draft_length"),
    )
    return ResultJournal(path, identity | {name: getattr(arguments, name) for name in asked})


def _contenders(
    arguments: argparse.Namespace, config: Config, target: PretrainedTarget, questions: Sequence[Question]
) -> dict[str, Contender]:
    encoder = LocalEncoder(target)
    prompts = {
        question.visual.digest: encoder.encode(Conversation.of(question.prompt, (question.visual,)))
        for question in questions
    }
    config = replace(config, scheduling=_scheduling(prompts, max(arguments.batch_sizes), arguments.max_new_tokens))
    plain = Engine.around(target, replace(config, speculation=SpeculationConfig(drafter="none")))
    alone = EngineContender(PLAIN, plain, prompts, 0)
    contenders: dict[str, Contender] = {PLAIN: alone, PLAIN_WIDE: WideContender(PLAIN_WIDE, alone)}
    for drafter in arguments.drafters:
        speculation = SpeculationConfig(drafter=drafter, draft_length=arguments.draft_length)
        engine = Engine.around(target, replace(config, speculation=speculation))
        contenders[label_of(drafter)] = EngineContender(label_of(drafter), engine, prompts, None)
    return contenders | {name: GenerateContender(name, target) for name in arguments.baselines}


def _scheduling(prompts: Mapping[str, EncodedPrompt], batch_size: int, max_new_tokens: int) -> SchedulingConfig:
    """Room for whole batches, which are prefilled in one round: nothing but decoding is left to time."""
    usual, longest = SchedulingConfig(), max(map(len, prompts.values()))
    rows = batch_size * (longest + max_new_tokens + 64)
    return replace(
        usual,
        max_running=max(usual.max_running, batch_size),
        max_waiting=max(usual.max_waiting, batch_size),
        prefill_rows=max(usual.prefill_rows, batch_size * longest),
        cache_rows=max(usual.cache_rows, 2 * rows),
        max_new_tokens=max(usual.max_new_tokens, max_new_tokens),
    )


def _with_gaps(
    rows: Sequence[Row], measured: Sequence[Measured], questions: Sequence[Question], model: str
) -> list[Row]:
    """Greedy rows whose answers part from plain decoding, with how sure the float32 model was there."""
    if not any(row.diverged and not row.cell.temperature for row in rows):
        return list(rows)
    reader = GapReader(load_target(model, dtype="float32"), Config())
    asked = {question.visual.digest: question for question in questions}
    plain = {
        (one.turn.cell, digest): token_ids
        for one in reversed(measured)
        for digest, token_ids in one.outcomes[PLAIN].token_ids.items()
    }

    def judged(row: Row) -> Row:
        if row.cell.temperature:
            return row
        found: list[Divergence] = []
        for one in row.diverged[:MOST_JUDGED]:
            question = asked[one.digest]
            conversation = Conversation.of(question.prompt, (question.visual,))
            found.append(reader.judged(one, conversation, plain[row.cell, one.digest]))
        return replace(row, diverged=(*found, *row.diverged[MOST_JUDGED:]))

    return [judged(row) for row in rows]


def _has_lost(rows: Sequence[Row]) -> bool:
    """Whether a drafter of ours changed a token."""
    return any(row.diverged for row in rows if row.contender not in FOREIGN)


def _write(rows: Sequence[Row], folder: Path, *, num_missing: int) -> None:
    table = table_of(rows)
    print(table, end="")
    if num_missing:
        print(f"\n{num_missing} batches are missing: the time was over. The same command goes on with them.")
    (folder / TABLE).write_text(table, encoding="utf-8")
    if rows:
        draw(rows, folder)
