"""``autoscaling``: lanes and nodes follow a load that rises and falls, on a cluster of pretended machines."""

from __future__ import annotations

import argparse

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.autoscaling import Moment, Phase, Run, as_rows, measure
from flashsd_ray.bench.serving.clips import detailed_asks, held_out_clips
from flashsd_ray.bench.serving.clusters import autoscaling_cluster, joined, nodes_by_resource
from flashsd_ray.bench.serving.expected import expected_answers
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.bench.serving.percentiles import Percentiles, in_ms
from flashsd_ray.bench.serving.server import server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.config import Config

MAX_NEW_TOKENS = 64
HEAD = {"CPU": 2.0, "flashsd_edge": 1.0}
LANE_NODE = {"CPU": 1.0, "flashsd_lane": 1.0}
ENCODER_NODE = {"CPU": 1.0, "flashsd_encoder": 1.0}
MAX_ENCODERS = 2
TARGET = 2  # requests of a lane
SHOWN = 5  # faults; all of them are saved


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when lanes and nodes came and went and no answer was missing or wrong.

    Raises:
        FlashSDError: the model cannot be loaded, the cluster did not come up, or it did not follow the load.
    """
    most = arguments.lanes or (2 if arguments.quick else 3)
    config = _config(arguments, most)
    asks = detailed_asks(held_out_clips(4 if arguments.quick else 16), max_new_tokens=MAX_NEW_TOKENS)
    expected = expected_answers(config, asks)
    workers = {"lane": (LANE_NODE, most), "encoder": (ENCODER_NODE, MAX_ENCODERS)}
    with (
        load_generator() as generator,
        autoscaling_cluster(HEAD, workers, idle_s=arguments.idle) as address,
        joined(address),
        server(config, address=address) as running,
    ):
        run = measure(
            generator,
            running,
            asks,
            expected,
            _phases(config, most),
            nodes_by_resource,
            bounds=(config.autoscaling.min_lanes, most),
            patience_s=arguments.patience,
            says=print,
        )
    _print(run)
    if arguments.figure:
        from flashsd_ray.bench.serving.figures import draw_scaling

        draw_scaling(run, arguments.figure)
    details = {"moments": as_rows(run.moments), "answers": [[one.start_s, one.end_s] for one in run.answers]}
    return Report([run.as_dict()], is_sound=run.is_sound, details=details)


def _config(arguments: argparse.Namespace, most: int) -> Config:
    assignments = (
        "placement.lane_resources=flashsd_lane:1",
        "placement.encoder_cpus=1",
        "placement.encoder_resources=flashsd_encoder:1",
        "placement.edge_resources=flashsd_edge:0.01",
        "autoscaling.min_lanes=1",
        f"autoscaling.max_lanes={most}",
        "autoscaling.min_encoders=1",
        f"autoscaling.max_encoders={MAX_ENCODERS}",
        f"autoscaling.target_requests_per_lane={TARGET}",
        "autoscaling.upscale_delay_s=1",
        "autoscaling.smoothing_s=1",
        "autoscaling.downscale_delay_s=5",
        "scheduling.max_running=8",
    )
    return config_of(arguments, "colocated", assignments)


def _phases(config: Config, most: int) -> tuple[Phase, ...]:
    fewest = config.autoscaling.min_lanes
    full_s: list[float] = []

    def has_been_full(moment: Moment) -> bool:
        """All lanes have been there for a while."""
        if moment.lanes == most:
            full_s.append(moment.at_s)
        return bool(full_s) and moment.at_s - full_s[0] >= config.autoscaling.downscale_delay_s

    calm_s: list[float] = []

    def has_been_calm(moment: Moment) -> bool:
        calm_s.append(moment.at_s)
        return moment.at_s - calm_s[0] >= config.autoscaling.downscale_delay_s

    return (
        Phase(name="calm", concurrency=1, ends=has_been_calm),
        Phase(name="busy", concurrency=TARGET * most + 2, ends=has_been_full),
        Phase(name="calm again", concurrency=1, ends=lambda moment: moment.lanes == fewest and _is_settled(moment)),
        Phase(name="quiet", concurrency=0, ends=lambda moment: moment.nodes.get("lane", 0) <= fewest),
    )


def _is_settled(moment: Moment) -> bool:
    return not moment.replicas.get("lane draining", 0) and moment.replicas.get("lane desired") == moment.lanes


def _print(run: Run) -> None:
    print("whole answers in ms, p50 / p90 / p99")
    table = MarkdownTable("phase", "from s", "answers", "faults", "lanes", "nodes", "answer")
    ends = [start_s for _, start_s in run.phases[1:]] + [run.moments[-1].at_s + 1.0]
    for (name, start_s), end_s in zip(run.phases, ends, strict=True):
        moments = [one for one in run.moments if start_s <= one.at_s < end_s] or [run.moments[-1]]
        answers = [one for one in run.answers if one.phase == name]
        table.row(
            name,
            f"{start_s:.0f}",
            str(len(answers)),
            str(sum(bool(one.fault) for one in answers)),
            f"{moments[0].lanes} to {moments[-1].lanes}",
            f"{moments[0].num_nodes} to {moments[-1].num_nodes}",
            in_ms(Percentiles.of(one.end_s - one.start_s for one in answers)),
        )
    for fault in run.faults[:SHOWN]:
        print(fault)
