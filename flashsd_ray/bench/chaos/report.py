"""``chaos``: faults of a seeded schedule under load, and every answer compared with the undisturbed one."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import cast

from flashsd_ray.bench.chaos.cluster import served
from flashsd_ray.bench.chaos.faults import Felt
from flashsd_ray.bench.chaos.nodes import PINNED, served_on_nodes
from flashsd_ray.bench.chaos.redis import RedisProcess
from flashsd_ray.bench.chaos.run import Chaos, Fate, run
from flashsd_ray.bench.chaos.schedule import KINDS, possible, schedule
from flashsd_ray.bench.chaos.work import expected, works
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.application.run import free_port

# Losses are to be noticed within seconds: the measurement is about what follows from them.
SETTINGS = (
    "placement.num_lanes=2",
    "placement.num_encoders=2",
    "placement.lane_cpus=0.5",
    "placement.encoder_cpus=0.2",
    "placement.drafter_cpus=0.2",
    "placement.health_period_s=1",
    "placement.health_timeout_s=10",
    "placement.edge_timeout_s=20",
    "placement.drafter_timeout_s=2",
    "scheduling.cache_rows=8192",
    "model.rank_timeout_s=10",
)
QUICK_REQUESTS, QUICK_FAULTS = 24, 6
EVERY = 20  # requests between two lines of progress


def report(arguments: argparse.Namespace) -> Report:
    """The tables are printed; it is sound when every request had the right tokens or may come again.

    Raises:
        FlashSDError: the service did not come up, or the model cannot be loaded.
    """
    num_requests = arguments.requests or (QUICK_REQUESTS if arguments.quick else 200)
    num_faults = arguments.faults if arguments.faults is not None else QUICK_FAULTS if arguments.quick else 30
    kinds = possible(
        [kind for kind in KINDS if not arguments.only or f"{kind[0]}-{kind[1]}" in arguments.only],
        has_drafters=arguments.placement == "dedicated",
        has_ranks=arguments.ranks > 1,
        has_nodes=arguments.nodes,
    )
    if not kinds:
        raise ConfigError("none of these faults can happen with this --placement, --ranks and --nodes")
    faults = schedule(seed=arguments.seed, num_faults=num_faults, num_requests=num_requests, kinds=kinds)
    load = works(num_requests, faults)
    with RedisProcess() as redis:
        settings = (*SETTINGS, *(PINNED if arguments.nodes else ()), f"stores.url={redis.url}")
        whole = config_of(arguments, arguments.placement, settings)
        answers = expected(whole, load)
        config = _with_fixed_ports(replace(whole, model=replace(whole.model, tensor_parallel=arguments.ranks)))
        begin = served_on_nodes if arguments.nodes else served
        with begin(config, _say) as cluster, _progress(len(load), is_told=arguments.verbose) as count:
            work = run(
                config,
                cluster,
                redis,
                load,
                faults,
                answers,
                concurrency=arguments.concurrency,
                is_apart=arguments.apart,
                on_request=count,
                on_fault=_tell if arguments.verbose else lambda felt: None,
            )
            chaos = asyncio.run(work)
    _print(chaos)
    if arguments.figure:
        from flashsd_ray.bench.chaos.figure import draw

        draw(chaos, arguments.figure)
    details = {
        "seed": arguments.seed,
        "seconds": chaos.seconds,
        "verdicts": chaos.verdicts,
        "recovery": recovery(chaos.felt, chaos.fates),
        "faults": [one.as_dict() for one in chaos.felt],
        "leftovers": list(chaos.leftovers),
    }
    return Report([fate.as_dict() for fate in chaos.fates], is_sound=chaos.is_sound, details=details)


def _with_fixed_ports(config: Config) -> Config:
    """The gRPC edge comes back where its clients look for it."""
    port = free_port(config.serving.host, config.serving.grpc_port, "serving.grpc_port")
    return replace(config, serving=replace(config.serving, grpc_port=port))


def recovery(felt: Sequence[Felt], fates: Sequence[Fate]) -> list[dict[str, object]]:
    """For each kind of fault: how often, seconds until all was there again and until new requests were answered.

    And what the requests that were open when it happened came to.
    """
    by_kind: dict[str, list[Felt]] = defaultdict(list)
    for one in felt:
        by_kind[one.fault.kind].append(one)
    rows: list[dict[str, object]] = []
    for kind, several in sorted(by_kind.items()):
        whole = [one.recovery_s for one in several if one.recovery_s is not None]
        answered = [one.outage_s for one in several if one.outage_s is not None]
        hit = [fate for fate in fates if any(fate.start_s <= one.began_s <= fate.end_s for one in several)]
        rows.append(
            {
                "kind": kind,
                "count": len(several),
                "recovered": len(whole),
                "recovery_s_median": median(whole) if whole else None,
                "recovery_s_max": max(whole, default=None),
                "outage_s_median": median(answered) if answered else None,
                "outage_s_max": max(answered, default=None),
                "open": len(hit),
                "open_verdicts": dict(Counter(fate.verdict for fate in hit)),
                "open_s_max": max((fate.end_s - fate.start_s for fate in hit), default=None),
            }
        )
    return rows


@contextmanager
def _progress(total: int, *, is_told: bool) -> Iterator[Callable[[], None]]:
    """A bar, and in a log a line now and then."""
    ended = 0
    with counting("requests", total) as count:

        def counted() -> None:
            nonlocal ended
            ended += 1
            count()
            if is_told and ended % EVERY == 0:
                _say(f"{ended} requests have ended; {total} are asked at least")

        yield counted


def _print(chaos: Chaos) -> None:
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(chaos.verdicts.items()))
    print(f"{len(chaos.fates)} requests and {len(chaos.felt)} faults in {chaos.seconds:.0f} s: {told}\n")
    after = ("whole again after s (median, most)", "next answer after s (median, most)")
    table = MarkdownTable("fault", "times", *after, "requests open then", "the slowest of them took s")
    for row in recovery(chaos.felt, chaos.fates):
        table.row(
            row["kind"],
            row["count"] if row["count"] == row["recovered"] else f"{row['count']}, {row['recovered']} recovered from",
            _pair(row["recovery_s_median"], row["recovery_s_max"]),
            _pair(row["outage_s_median"], row["outage_s_max"]),
            ", ".join(f"{count} {verdict}" for verdict, count in cast("dict[str, int]", row["open_verdicts"]).items()),
            f"{row['open_s_max']:.1f}" if row["open_s_max"] is not None else "-",
        )
    for fate in chaos.fates:
        if not fate.is_sound:
            print(f"{fate.work.name} ({fate.work.way}): {fate.verdict}, {fate.code} {fate.detail}")
    for name in chaos.leftovers:
        print(f"{name} hung, and its process was never ended")


def _pair(middle: object, most: object) -> str:
    return f"{middle:.1f}, {most:.1f}" if isinstance(middle, float) and isinstance(most, float) else "-"


def _tell(felt: Felt) -> None:
    took = "never" if felt.recovery_s is None else f"{felt.recovery_s:.1f} s"
    print(f"{felt.began_s:6.1f} s  {felt.fault.kind:16} {felt.victim}: whole again after {took}", file=sys.stderr)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
