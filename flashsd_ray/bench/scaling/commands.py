"""``flashsd bench scaling``: options, tables and files."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.bench.arguments import add_model_options
from flashsd_ray.bench.report import Report
from flashsd_ray.config import Config

if TYPE_CHECKING:
    from flashsd_ray.bench.scaling.clusters import Point
    from flashsd_ray.bench.scaling.raw import Raw
    from flashsd_ray.bench.scaling.study import Measured, Plan

CLIPS = 32
LANES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NOTES = ("processor time that the costs explain", "cores busy with something else")
WITHIN = 0.15  # the largest error of a prediction that counts as right
# Every answer is decoded in full and every picture encoded, whoever asked before; every round is passed on, so that
# feeds can be counted.
ASSIGNMENTS = (
    "stores.latent_bytes=1",
    "scheduling.share_prefixes=false",
    "scheduling.stream_interval_s=0",
    "placement.num_encoders=1",
)


def add_measurements(measurements: Any) -> None:
    """The subparsers know the study."""
    text = "stage costs, and a simulation that says what limits 1 to 256 lanes; checked on 1 and 2"
    parser = measurements.add_parser("scaling", help=text, description=f"{text.capitalize()}.")
    add_model_options(parser)
    parser.add_argument("--users", type=int, metavar="N", default=8, help="of a lane, who always ask (default: 8)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", default=64)
    parser.add_argument("--draft-length", type=int, metavar="N", default=4, help="tokens drafted in a round")
    parser.add_argument("--cores", type=int, metavar="N", default=0, help="that all share here; 0: those there are")
    parser.add_argument("--repeats", type=int, metavar="N", default=3, help="of what is predicted and measured")
    parser.add_argument("--lanes", type=int, nargs="+", metavar="N", help="to simulate (default: 1 to 256)")
    parser.add_argument(
        "--measured", type=Path, metavar="FILE", help="an --output of before: nothing is measured again"
    )
    parser.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG file: throughput over lanes")
    parser.set_defaults(measure=report)


def report(arguments: argparse.Namespace) -> Report:
    """The tables are printed; it is sound when what was predicted for one and two lanes is what was measured.

    Raises:
        FlashSDError: the model cannot be loaded, or a fleet did not come up.
    """
    from flashsd_ray.bench.scaling.clusters import bounds, scale
    from flashsd_ray.bench.scaling.study import concluded
    from flashsd_ray.bench.serving.progress import counting

    raw = _kept(arguments.measured) if arguments.measured else _measured(arguments)
    measured = concluded(raw)
    _print_costs(measured)
    _print_checks(measured)
    lanes = arguments.lanes or (LANES[:4] if arguments.quick else LANES)
    with counting("simulating", 2 * len(lanes)) as count:
        points = scale(
            measured.costs, measured.workload, users_per_lane=raw.users_per_lane, lanes=lanes, on_point=count
        )
    _print_points(points)
    limits = bounds(measured.costs, measured.workload, users_per_lane=raw.users_per_lane)
    _print_bounds(limits)
    if arguments.figure:
        from flashsd_ray.bench.scaling.figure import draw

        draw(points, measured.checks, arguments.figure)
    details = {
        "checks": [check.as_dict() for check in measured.checks],
        "costs_s": measured.costs.as_dict(),
        "workload": measured.workload.as_dict(),
        "slowdown_of_busy_cores": measured.slowdown,
        "measured": raw.as_dict(),
        "lanes_that_one_keeps_busy": {name: None if math.isinf(n) else n for name, n in limits.items()},
    }
    is_right = all(abs(check.error) <= WITHIN for check in measured.checks)
    return Report([point.as_dict() for point in points], is_sound=is_right or arguments.quick, details=details)


def _kept(path: Path) -> Raw:
    """What an earlier run measured.

    Raises:
        ConfigError: the file cannot be read, or is none of this study.
    """
    from flashsd_ray.bench.scaling.raw import Raw
    from flashsd_ray.errors import ConfigError

    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return Raw.of(kept.get("measured", {}))


def _measured(arguments: argparse.Namespace) -> Raw:
    from flashsd_ray.bench.scaling.study import measure
    from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
    from flashsd_ray.bench.serving.fleets import ray_for, with_little_room
    from flashsd_ray.bench.serving.generator import load_generator
    from flashsd_ray.bench.serving.progress import counting
    from flashsd_ray.bench.serving.settings import config_of

    configs = {
        number: with_little_room(config_of(arguments, "colocated", (*ASSIGNMENTS, f"placement.num_lanes={number}")))
        for number in (1, 2)
    }
    plan = _plan(arguments)
    asks = detailed_asks(held_out_clips(4 if arguments.quick else CLIPS), max_new_tokens=plan.new_tokens)
    num_loads = len(plan.calibration) + len(configs) * plan.repeats
    with load_generator() as generator, ray_for(list(configs.values())), counting("loads", num_loads) as count:
        feature_bytes = _feature_bytes(configs[1])
        return asyncio.run(measure(configs, plan, asks, generator, feature_bytes, count))


def _plan(arguments: argparse.Namespace) -> Plan:
    from flashsd_ray.bench.scaling.live import Step
    from flashsd_ray.bench.scaling.study import Plan

    tokens, users = arguments.max_new_tokens, arguments.users
    # As much work in each, and never as many users as are predicted for.
    few = 2 if users != 2 else 3
    sizes = (
        (1, tokens // 4, 32),
        (1, tokens, 16),
        (few, tokens, 24),
        (users // 2, tokens // 2, 64),
        (2 * users, tokens, 64),
    )
    share = 8 if arguments.quick else 1
    steps = [
        Step(users=max(1, number), new_tokens=max(1, length), requests=max(4, requests // share))
        for number, length, requests in sizes
    ]
    return Plan(
        calibration=steps,
        users_per_lane=users,
        new_tokens=tokens,
        requests_per_lane=(2 if arguments.quick else 12) * users,
        repeats=1 if arguments.quick else arguments.repeats,
        draft_length=arguments.draft_length,
        idle_s=1.0 if arguments.quick else 5.0,
        num_cores=arguments.cores or len(os.sched_getaffinity(0)),
    )


def _feature_bytes(config: Config) -> int:
    """Of the pictures of one request, as Redis would keep them."""
    import numpy as np

    from flashsd_ray.bench.serving.clips import CLIP_PIXELS
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.types import Conversation, VisualInput

    num_frames = config.media.num_frames
    frames = np.zeros((num_frames, CLIP_PIXELS, CLIP_PIXELS, 3), np.uint8)
    visual = VisualInput(kind="video", frames=frames, timestamps_s=np.arange(num_frames, dtype=float))
    prompt = Engine.local(config).encoder.encode(Conversation.of("", [visual]))
    rows = sum(segment.num_tokens for segment in prompt.segments)
    return rows * prompt.embeddings.shape[1] * prompt.embeddings.element_size()


def _print_costs(measured: Measured) -> None:
    from flashsd_ray.bench.serving.tables import MarkdownTable

    table = MarkdownTable("cost", "ms")
    for name, value in measured.costs.as_dict().items():
        if name.endswith("_s"):
            table.row(name.removesuffix("_s").replace("_", " "), f"{value * 1000:.4f}")
    print(f"\nbusy cores are {measured.slowdown:.2f} times slower; tau {1 + sum(measured.workload.survival):.2f}\n")


def _print_checks(measured: Measured) -> None:
    from flashsd_ray.bench.serving.tables import MarkdownTable

    table = MarkdownTable(
        "lanes on this machine", "measured tokens/s", "of them", "predicted tokens/s", "error", *NOTES
    )
    for check in measured.checks:
        several = ", ".join(f"{one:.0f}" for one in check.repeats)
        predicted = f"{check.predicted_tokens_per_s:.0f} ({min(check.draws):.0f} to {max(check.draws):.0f})"
        shares = ", ".join(f"{part} {share:.0%}" for part, share in check.explained.items())
        speeds = (
            f"{check.measured_tokens_per_s:.0f}",
            several,
            predicted,
            f"{check.error:+.1%} ({check.errors[0]:+.1%} to {check.errors[1]:+.1%})",
        )
        table.row(check.num_lanes, *speeds, shares, f"{check.others_cores:.2f}")
    print()


def _print_points(points: list[Point]) -> None:
    from flashsd_ray.bench.serving.tables import MarkdownTable

    table = MarkdownTable("cluster", "lanes", "encoders", "edges", "tokens/s", "mean answer, s", "busiest part")
    for point in points:
        supply, found = point.supply, point.prediction
        limit = f"{found.limit} ({found.utilisation[found.limit]:.0%})"
        speeds = (f"{found.steady_tokens_per_s:.0f}", f"{found.answer_s:.2f}")
        table.row(point.scenario, supply.num_lanes, supply.num_encoders, supply.num_edges, *speeds, limit)
    print()


def _print_bounds(limits: dict[str, float]) -> None:
    from flashsd_ray.bench.serving.tables import MarkdownTable

    table = MarkdownTable("one of these", "keeps so many lanes busy")
    for name, number in limits.items():
        table.row(name, "not measured" if math.isinf(number) else f"{number:.1f}")
