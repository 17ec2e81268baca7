"""``cancel``: how soon rows of the KV cache are free after a client has gone."""

from __future__ import annotations

import argparse
import asyncio

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.asks import EDGES, Ask
from flashsd_ray.bench.serving.cancel import Release, measure
from flashsd_ray.bench.serving.clips import held_out_clips
from flashsd_ray.bench.serving.percentiles import Percentiles, in_ms
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.types import SamplingParams

LONGEST_S = 1.0
ENDLESS = SamplingParams(max_new_tokens=1024, ignore_eos=True)


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when rows were free within a second each time.

    Raises:
        FlashSDError: a server did not come up or cannot be reached, or rows were not given back.
    """
    num_trials = arguments.trials or (3 if arguments.quick else 20)
    clips = held_out_clips(len(EDGES) * (num_trials + 1))
    asks = [
        Ask(name=f"clip {index}", prompt=clip.prompt("detail", index), picture=clip.content, sampling=ENDLESS)
        for index, clip in enumerate(clips)
    ]
    print("from leaving to free rows in ms, p50 / p90 / p99")
    table = MarkdownTable("placement", "edge", "trials", "to free rows", "slowest")
    found: list[Release] = []
    for placement in arguments.placements:
        with server(config_of(arguments, placement)) as running:
            for number, edge in enumerate(EDGES):
                mine = asks[number :: len(EDGES)]
                with counting(f"{placement}, {edge}", len(mine)) as count:
                    one = asyncio.run(measure(running, mine, placement=placement, edge=edge, on_trial=count))
                found.append(one)
                times = in_ms(Percentiles.of(one.seconds))
                table.row(placement, edge, len(one.seconds), times, f"{one.slowest_s * 1000:.0f}")
    return Report([one.as_dict() for one in found], is_sound=all(one.slowest_s < LONGEST_S for one in found))
