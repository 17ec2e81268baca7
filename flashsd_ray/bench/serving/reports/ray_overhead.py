"""``ray-overhead``: a lane of Ray against an engine in this process; dedicated drafters against colocated ones."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
from flashsd_ray.bench.serving.expected import request_of
from flashsd_ray.bench.serving.fleets import ray_for, service_of, with_little_room
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.ray_overhead import Gain, Overhead, gain, overhead
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.config import Config
from flashsd_ray.engine.local import Engine
from flashsd_ray.types import CaptionRequest


def report(arguments: argparse.Namespace) -> Report:
    """The tables are printed; it is sound when all answers are identical.

    Raises:
        FlashSDError: the model cannot be loaded, or a fleet did not come up.
    """
    colocated, dedicated = (
        with_little_room(config_of(arguments, placement)) for placement in ("colocated", "dedicated")
    )
    rows: list[dict[str, object]] = []
    identical: list[bool] = []
    if arguments.only != "dedicated":
        found = _overhead(arguments, colocated)
        print("batch 1, ms per token after the first")
        table = MarkdownTable("seen by", "in this process", "Ray's lane", "Ray / this process [95 %]", "identical")
        answers = f"{found.num_identical}/{found.num_answers}"
        for name, cost in (("the lane", found.decode), ("the edge", found.edge)):
            table.row(name, f"{cost.engine_s * 1000:.2f}", f"{cost.ray_s * 1000:.2f}", cost.ratio, answers)
        rows.append(found.as_dict())
        identical.append(found.num_identical == found.num_answers)
        print()
    if arguments.only != "overhead":
        won = _gain(arguments, colocated, dedicated)
        table = MarkdownTable("at a time", "colocated", "dedicated", "dedicated is faster [95 %]", "identical")
        table.row(
            won.concurrency,
            f"{won.colocated_tokens_per_s:.0f} tokens/s",
            f"{won.dedicated_tokens_per_s:.0f} tokens/s",
            won.faster,
            f"{won.num_identical}/{won.num_answers}",
        )
        rows.append(won.as_dict())
        identical.append(won.num_identical == won.num_answers)
    return Report(rows, is_sound=all(identical))


def _overhead(arguments: argparse.Namespace, config: Config) -> Overhead:
    requests = _requests(arguments, config, arguments.requests or (4 if arguments.quick else 40))
    engine = Engine.local(config)

    async def run() -> Overhead:
        async with service_of(config) as service:
            with counting("Ray and this process in turn", len(requests)) as count:
                return await overhead(engine, service, requests, count)

    with ray_for([config]):
        return asyncio.run(run())


def _gain(arguments: argparse.Namespace, colocated: Config, dedicated: Config) -> Gain:
    size = arguments.requests_per_turn or (4 if arguments.quick else 32)
    num_turns = arguments.turns or (2 if arguments.quick else 6)
    requests = _requests(arguments, colocated, size * (num_turns + 1))
    turns = [requests[start : start + size] for start in range(0, len(requests), size)]

    async def run() -> Gain:
        async with service_of(colocated) as one, service_of(dedicated) as other:
            with counting("colocated and dedicated in turn", len(turns)) as count:
                return await gain(one, other, turns, concurrency=arguments.concurrency, on_turn=count)

    with ray_for([colocated, dedicated]):
        return asyncio.run(run())


def _requests(arguments: argparse.Namespace, config: Config, count: int) -> Sequence[CaptionRequest]:
    asks = detailed_asks(held_out_clips(count), max_new_tokens=arguments.max_new_tokens)
    return [request_of(ask, config, draft_length=None) for ask in asks]
