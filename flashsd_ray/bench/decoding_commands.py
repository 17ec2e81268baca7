"""Measurements of decoding in one process: with drafts and without, ours and transformers', and whether it is lossless."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flashsd_ray.bench.report import Report

BASELINES = ("generate", "prompt-lookup", "assisted")


def add_measurements(measurements: Any) -> None:
    """The subparsers know these measurements."""
    _add_decode(measurements)
    _add_ablation(measurements)
    plain = _added(measurements, "transformers", "our plain decoding against generate, whole answers")
    plain.add_argument("--batch-sizes", type=int, nargs="+", metavar="N", default=[1, 8])
    plain.add_argument("--repeats", type=int, metavar="N", default=5)
    plain.add_argument("--max-new-tokens", type=int, metavar="N", default=128)
    plain.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the result")
    plain.set_defaults(measure=_against_transformers)
    equality = _added(measurements, "equality", "every drafter and compressor against generate, token for token")
    equality.add_argument("--clips", type=int, metavar="N", default=200)
    equality.add_argument("--max-new-tokens", type=int, metavar="N", default=96)
    equality.add_argument("--drafters", nargs="+", metavar="NAME", default=[], help="default: all, and none")
    equality.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the result")
    equality.set_defaults(measure=_equality)


def _added(measurements: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = measurements.add_parser(name, help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--model", default="demo", help="hub id, directory or 'demo'")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--threads", type=int, metavar="N", default=0, help="0: as the engine decides")
    return parser


def _add_decode(measurements: Any) -> None:
    decode = _added(measurements, "decode", "decoding with drafts and without, ours and transformers', in turn")
    decode.add_argument("--drafters", nargs="+", metavar="NAME", default=["auto"], help="names or directories")
    decode.add_argument("--baselines", nargs="*", choices=BASELINES, default=list(BASELINES), help="of transformers")
    decode.add_argument("--batch-sizes", type=int, nargs="+", metavar="N", default=[1, 4, 8, 16, 32])
    decode.add_argument("--temperatures", type=float, nargs="+", metavar="T", default=[0.0, 1.0])
    decode.add_argument("--clips", type=int, metavar="N", default=100, help="distinct ones, held out (100)")
    decode.add_argument(
        "--baseline-clips", type=int, metavar="N", default=24, help="that transformers answers too (24)"
    )
    decode.add_argument("--frames", type=int, metavar="N", default=8, help="of a clip (8)")
    decode.add_argument("--max-new-tokens", type=int, metavar="N", default=128)
    decode.add_argument("--draft-length", type=int, metavar="K", default=0, help="0: as the engine decides")
    decode.add_argument(
        "--minutes", type=float, metavar="M", default=11.0, help="no batch begins later; 0: no limit (11)"
    )
    decode.add_argument(
        "--no-gaps", action="store_true", help="do not look up how sure the model was where answers part"
    )
    decode.add_argument("--overwrite", action="store_true", help="begin anew; without it a stopped run goes on")
    _add_folder(decode, "decode", _decode)


def _add_ablation(measurements: Any) -> None:
    ablation = _added(
        measurements, "ablation", "what each part of the method brings: drafters that differ in one thing"
    )
    ablation.add_argument("--rows", nargs="+", metavar="ROW", default=[], help="such as A4 B3 B4-hide (default: all)")
    ablation.add_argument("--data", metavar="SOURCE", default="town:1500", help="as for train drafter (town:1500)")
    ablation.add_argument(
        "--heldout", type=int, metavar="N", default=60, help="answers that trainings are judged by (60)"
    )
    ablation.add_argument("--steps", type=int, metavar="N", default=1500, help="of each training (1500)")
    ablation.add_argument("--minutes", type=float, metavar="M", default=0.0, help="of each training, instead of steps")
    ablation.add_argument("--readings", type=int, metavar="N", default=8, help="answers in one step (8)")
    ablation.add_argument("--anchors", type=int, metavar="N", default=16, help="places in each of them (16)")
    ablation.add_argument("--taps", type=int, nargs="+", metavar="L", help="layers, where a row has several (spread)")
    ablation.add_argument("--seeds", type=int, nargs="+", metavar="N", default=[0])
    ablation.add_argument(
        "--frames", type=int, nargs="+", metavar="N", default=[8], help="of a clip; several for a sweep"
    )
    ablation.add_argument("--clips", type=int, metavar="N", default=100, help="held out, decoded with each row (100)")
    ablation.add_argument("--max-new-tokens", type=int, metavar="N", default=128)
    ablation.add_argument("--memory-gib", type=float, metavar="N", default=6.0, help="for what the target thought (6)")
    ablation.add_argument(
        "--total-minutes", type=float, metavar="M", default=0.0, help="no row begins later; 0: no limit"
    )
    _add_folder(ablation, "ablation", _ablation)


def _add_folder(parser: argparse.ArgumentParser, name: str, measure: Any) -> None:
    """Everything goes into one folder, which has the result under the name that all results have."""
    folder = Path("build") / "bench" / name
    parser.add_argument("--out", type=Path, metavar="DIR", default=folder, help=f"folder for all of it ({folder})")

    def measured(arguments: argparse.Namespace) -> Report:
        arguments.output = arguments.out / f"{name}.json"
        report: Report = measure(arguments)
        return report

    parser.set_defaults(measure=measured)


def _ablation(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.ablation.report import report

    return report(arguments)


def _decode(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.decode.report import report

    return report(arguments)


def _equality(arguments: argparse.Namespace) -> Report:
    import torch

    from flashsd_ray.bench.decode.divergence import GapReader
    from flashsd_ray.bench.equality import compare_all
    from flashsd_ray.bench.workload import assert_distinct, held_out_questions
    from flashsd_ray.config import Config
    from flashsd_ray.models.pretrained import load_target

    target = load_target(arguments.model, dtype="float32" if arguments.dtype == "auto" else arguments.dtype)
    target.limit_threads(arguments.threads)
    questions = held_out_questions(arguments.clips, detailed=False)
    assert_distinct(questions)
    is_exact = target.decoder.dtype == torch.float32
    gaps = None if is_exact else GapReader(load_target(arguments.model, dtype="float32"), Config())
    print("| drafter | compressor | batch | identical to generate | tau | largest gap |\n|---|---|---|---|---|---|")
    rows = []
    compared = compare_all(
        target, questions, max_new_tokens=arguments.max_new_tokens, drafters=arguments.drafters, gaps=gaps
    )
    for row in compared:
        gap = "" if row.largest_gap is None else f"{row.largest_gap:.3f}"
        identical = f"{row.num_identical}/{row.num_clips}"
        print(
            f"| {row.drafter} | {row.compressor} | {row.batch_size} | {identical} | {row.tau:.2f} | {gap} |", flush=True
        )
        rows.append(row.as_dict())
    is_sound = not is_exact or all(row["num_identical"] == row["num_clips"] for row in rows)
    return Report(rows, is_sound=is_sound)


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
