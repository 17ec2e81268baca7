"""``serving``: throughput and latency through both edges, closed and open loops."""

from __future__ import annotations

import argparse

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.asks import EDGES
from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.bench.serving.percentiles import in_ms
from flashsd_ray.bench.serving.server import server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.bench.serving.throughput import Plan, Point, measure


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when every request was answered.

    Raises:
        FlashSDError: a server did not come up or cannot be reached.
    """
    configs = [config_of(arguments, placement) for placement in arguments.placements]
    plan = _plan(arguments)
    num_requests = sum(plan.sizes)
    # A server that has seen a clip knows its features: each edge gets clips of its own.
    clips = held_out_clips(arguments.repeat or len(EDGES) * num_requests)
    asks = detailed_asks(clips, max_new_tokens=arguments.max_new_tokens)
    print(f"{len(clips)} clips; times in ms, p50 / p90 / p99")
    columns = ("answered", "tokens/s", "requests/s", "first text", "per token", "gap between pieces", "whole answer")
    table = MarkdownTable("placement", "edge", "load", *columns)
    points: list[Point] = []
    with load_generator() as generator:
        for config in configs:
            with server(config) as running:
                for number, edge in enumerate(EDGES):
                    mine = asks if arguments.repeat else asks[number * num_requests :][:num_requests]
                    placement = config.placement.kind
                    for point in measure(generator, running, plan, mine, placement=placement, edge=edge):
                        points.append(point)
                        table.row(point.placement, point.edge, point.load, *_cells(point))
    rows = [point.as_dict() for point in points]
    if arguments.figure:
        from flashsd_ray.bench.serving.figures import draw_loads

        draw_loads(rows, arguments.figure)
    return Report(rows, is_sound=all(point.summary.num_answered == point.summary.num_requests for point in points))


def _plan(arguments: argparse.Namespace) -> Plan:
    is_quick = arguments.quick
    return Plan(
        concurrencies=arguments.concurrencies or ([1, 4] if is_quick else [1, 4, 16, 64]),
        num_requests=arguments.requests or (3 if is_quick else 24),
        shares=arguments.shares[-1:] if is_quick else arguments.shares,
        num_arrivals=arguments.arrivals or (4 if is_quick else 32),
        num_warm=2 if is_quick else 8,
    )


def _cells(point: Point) -> tuple[str, ...]:
    summary = point.summary
    return (
        f"{summary.num_answered}/{summary.num_requests}",
        f"{summary.tokens_per_s:.0f}",
        f"{summary.requests_per_s:.2f}",
        in_ms(summary.first_s),
        in_ms(summary.per_token_s),
        in_ms(summary.gap_s),
        in_ms(summary.whole_s),
    )
