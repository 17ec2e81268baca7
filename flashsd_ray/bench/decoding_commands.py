"""Measurements of decoding in one process: against transformers, with and without drafts, and whether it is lossless."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from flashsd_ray.bench.report import Report
from flashsd_ray.config import Config, ModelConfig, SpeculationConfig


def add_measurements(measurements: Any) -> None:
    """The subparsers know these measurements."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", default="demo", help="hub id, directory or 'demo'")
    common.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    common.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    common.add_argument("--threads", type=int, default=0, help="0: as the engine decides")
    common.add_argument("--output", type=Path, help="JSON file for the result")
    plain = measurements.add_parser("transformers", parents=[common], help="our plain decoding against generate")
    plain.add_argument("--repeats", type=int, default=5)
    plain.add_argument("--max-new-tokens", type=int, default=128)
    plain.set_defaults(measure=_against_transformers)
    gain = measurements.add_parser("speculation", parents=[common], help="speculative against plain decoding")
    gain.add_argument("--drafters", nargs="+", default=["auto"])
    gain.add_argument("--clips", type=int, default=100)
    gain.add_argument("--draft-length", type=int, default=0, help="0: as the engine decides")
    gain.add_argument("--temperature", type=float, default=0.0)
    gain.add_argument("--max-new-tokens", type=int, default=128)
    gain.set_defaults(measure=_speculation)
    equality = measurements.add_parser("equality", parents=[common], help="drafters and compressors against generate")
    equality.add_argument("--clips", type=int, default=200)
    equality.add_argument("--max-new-tokens", type=int, default=96)
    equality.set_defaults(measure=_equality)


def _equality(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.equality import compare_all
    from flashsd_ray.bench.workload import held_out_questions
    from flashsd_ray.models.pretrained import load_target

    target = load_target(arguments.model, dtype="float32" if arguments.dtype == "auto" else arguments.dtype)
    target.limit_threads(arguments.threads)
    questions = held_out_questions(arguments.clips, detailed=False)
    print("| drafter | compressor | batch | identical to generate | tau |\n|---|---|---|---|---|")
    rows = []
    for row in compare_all(target, questions, max_new_tokens=arguments.max_new_tokens):
        print(
            f"| {row.drafter} | {row.compressor} | {row.batch_size} | {row.num_identical}/{row.num_clips} | {row.tau:.2f} |",
            flush=True,
        )
        rows.append(row.as_dict())
    return Report(rows)


def _against_transformers(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.against_transformers import compare
    from flashsd_ray.models.pretrained import load_target

    target = load_target(arguments.model, dtype=arguments.dtype)
    target.limit_threads(arguments.threads)
    print("| batch | prompts | generate tokens/s | ours tokens/s | ratio [95 %] |\n|---|---|---|---|---|")
    rows = []
    for batch_size in arguments.batch_sizes:
        for mixed in (False, True) if batch_size > 1 else (False,):
            result = compare(
                target,
                batch_size=batch_size,
                mixed=mixed,
                num_tokens=arguments.max_new_tokens,
                repeats=arguments.repeats,
            )
            print(
                f"| {batch_size} | {result.lengths} | {result.generate_tokens_per_s:.0f} "
                f"| {result.engine_tokens_per_s:.0f} | {result.ratio} |",
                flush=True,
            )
            rows.append(asdict(result))
    return Report(rows)


def _speculation(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.speculation import measure
    from flashsd_ray.bench.workload import held_out_questions
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.types import SamplingParams

    config = Config(model=ModelConfig(name=arguments.model, dtype=arguments.dtype, threads=arguments.threads))
    questions = held_out_questions(arguments.clips)
    sampling = SamplingParams(max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature)
    print("| drafter | batch | plain tokens/s | speculative tokens/s | speed-up [95 %] | tau | identical |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    plain = Engine.local(replace(config, speculation=SpeculationConfig(drafter="none")))
    for drafter in arguments.drafters:
        speculation = SpeculationConfig(drafter=drafter, draft_length=arguments.draft_length)
        engine = Engine.around(plain.target, replace(config, speculation=speculation))
        for batch_size in arguments.batch_sizes:
            gain = measure(plain, engine, questions, batch_size=batch_size, sampling=sampling)
            print(
                f"| {drafter} | {batch_size} | {gain.plain_tokens_per_s:.0f} | {gain.drafted_tokens_per_s:.0f} "
                f"| {gain.ratio} | {gain.drafted.tau:.2f} | {gain.num_identical}/{gain.num_clips} |",
                flush=True,
            )
            rows.append({"drafter": drafter, "dtype": engine.dtype, **gain.as_dict()})
    return Report(rows)
