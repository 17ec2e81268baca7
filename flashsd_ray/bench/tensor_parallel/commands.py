"""``flashsd bench tensor-parallel``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.tables import markdown


def add_measurements(measurements: Any) -> None:
    """The subparsers know this measurement."""
    text = "a target split over ranks against the whole one: tokens, memory, time for each round"
    parser = measurements.add_parser("tensor-parallel", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--models", nargs="+", metavar="NAME", default=["demo"], help="hub ids, directories or 'demo'")
    parser.add_argument("--ranks", type=int, metavar="R", default=2)
    parser.add_argument("--dtype", default="float32", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--drafter", default="auto", help="auto: the one that was trained for the model, or lookup")
    parser.add_argument("--clips", type=int, metavar="N", default=100, help="distinct ones, held out (100)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", metavar="N", default=[1, 8])
    parser.add_argument("--max-new-tokens", type=int, metavar="N", default=64)
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the result; tables beside it")
    parser.set_defaults(measure=_measure)


def _measure(arguments: argparse.Namespace) -> Report:
    from flashsd_ray.bench.tensor_parallel.memory import measure_memory
    from flashsd_ray.bench.workload import held_out_questions
    from flashsd_ray.config import Config, ModelConfig, SpeculationConfig

    questions = held_out_questions(arguments.clips)
    compared: list[Any] = []
    loaded: list[Any] = []
    for name in arguments.models:
        model = ModelConfig(name=name, dtype=arguments.dtype, device=arguments.device)
        loaded += measure_memory(model, arguments.ranks)
        config = Config(model=model, speculation=SpeculationConfig(drafter=arguments.drafter))
        for row in _compared(config, arguments.ranks, questions, arguments):
            print(_line(row), flush=True)
            compared.append(row)
    tables = _tables(compared, loaded)
    print(f"\n{tables}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.with_suffix(".md").write_text(tables)
    # With fewer bits than float32 a sum in another order may end a tie another way.
    is_exact = all(row.num_identical == row.num_clips for row in compared if row.dtype == "float32")
    return Report([row.as_dict() for row in compared], is_exact, {"memory": [one.as_dict() for one in loaded]})


def _compared(config: Any, ranks: int, questions: Sequence[Any], arguments: argparse.Namespace) -> Any:
    from flashsd_ray.bench.tensor_parallel.rounds import Pair, compare_all
    from flashsd_ray.engine.local import Engine

    whole = Engine.local(config)
    split = Engine.local(replace(config, model=replace(config.model, tensor_parallel=ranks)))
    try:
        yield from compare_all(Pair(whole, split, questions, arguments.max_new_tokens), arguments.batch_sizes)
    finally:
        split.target.close()


def _line(row: Any) -> str:
    return (
        f"{_short(row.model)}, {row.drafter}, batch {row.batch_size}: {row.num_identical}/{row.num_clips} identical, "
        f"{row.whole_round_ms:.2f} ms a round whole, {row.split_round_ms:.2f} ms split"
    )


def _tables(compared: Sequence[Any], loaded: Sequence[Any]) -> str:
    speed = markdown(
        ("model", "dtype", "drafter", "batch", "same tokens", "ms a round, R=1", "ms a round, split", "speed [95 %]"),
        [
            (
                _short(row.model),
                row.dtype,
                row.drafter,
                row.batch_size,
                f"{row.num_identical}/{row.num_clips}",
                f"{row.whole_round_ms:.2f}",
                f"{row.split_round_ms:.2f}",
                row.ratio,
            )
            for row in compared
        ],
    )
    whole = {one.model: one.layer_bytes for one in loaded if one.ranks == 1}
    memory = markdown(
        ("model", "ranks", "rank", "layers", "of the whole", "vocabulary", "vision", "peak growth while loading"),
        [
            (
                _short(one.model),
                one.ranks,
                one.rank,
                _mib(one.layer_bytes),
                f"{100 * one.layer_bytes / whole[one.model]:.0f} %",
                _mib(one.vocabulary_bytes),
                _mib(one.other_bytes),
                _mib(one.growth_bytes),
            )
            for one in loaded
        ],
    )
    return f"{speed}\n{memory}"


def _short(model: str) -> str:
    return Path(model).name


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
