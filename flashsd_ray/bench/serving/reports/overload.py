"""``overload``: several times the sustainable load through each edge, with small limits."""

from __future__ import annotations

import argparse

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.asks import EDGES
from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
from flashsd_ray.bench.serving.expected import expected_answers
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.bench.serving.overload import Overload, Sizes, measure
from flashsd_ray.bench.serving.percentiles import in_ms
from flashsd_ray.bench.serving.server import server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable

MAX_NEW_TOKENS = 32
MAX_RUNNING = 8
LIMITS = (
    f"scheduling.max_running={MAX_RUNNING}",
    "scheduling.max_waiting=8",
    "serving.max_open_requests=24",
    "serving.request_timeout_s=30",
)
SHOWN = 5  # faults; all of them are saved


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when nothing was lost or wrong and the server is as before.

    Raises:
        FlashSDError: the model cannot be loaded, or the server did not come up.
    """
    config = config_of(arguments, arguments.placement, LIMITS)
    clips = held_out_clips(arguments.clips or (4 if arguments.quick else 32))
    asks = detailed_asks(clips, max_new_tokens=MAX_NEW_TOKENS)
    expected = expected_answers(config, asks)
    sizes = Sizes(
        seconds=arguments.seconds or (4.0 if arguments.quick else 60.0),
        factor=arguments.factor,
        concurrency=2 if arguments.quick else MAX_RUNNING,
        num_calm=4 if arguments.quick else 32,
    )
    print("whole answers in ms, p50 / p90 / p99")
    columns = ("sent/s", "sustainable/s", "answered", "refused", "faults", "before", "during", "after", "memory")
    table = MarkdownTable("placement", "edge", *columns)
    found: list[Overload] = []
    with load_generator() as generator, server(config) as running:
        for edge in EDGES:
            one = measure(generator, running, asks, expected, sizes, placement=config.placement.kind, edge=edge)
            found.append(one)
            table.row(one.placement, one.edge, *_cells(one))
    for line in [fault for one in found for fault in one.faults][:SHOWN]:
        print(line)
    if arguments.figure:
        from flashsd_ray.bench.serving.figures import draw_memory

        draw_memory({one.edge: one.memory for one in found}, arguments.figure, x_label="seconds of overload")
    return Report([one.as_dict() for one in found], is_sound=all(one.is_sound for one in found))


def _cells(one: Overload) -> tuple[str, ...]:
    refusals = ", ".join(f"{code}: {count}" for code, count in one.during.codes.items() if code != "OK")
    return (
        f"{one.sent_per_s:.1f}",
        f"{one.sustainable_per_s:.1f}",
        f"{one.during.num_answered}/{one.during.num_requests}",
        refusals or "none",
        str(len(one.faults)),
        in_ms(one.before.whole_s),
        in_ms(one.during.whole_s),
        in_ms(one.after.whole_s),
        "-" if one.memory_growth is None else f"{one.memory_growth:+.1%}",
    )
