"""``two-nodes``: encoder and edges on one node, the lane on another, its drafter apart from it; TLS between all of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.asks import EDGES, Ask, Edge
from flashsd_ray.bench.serving.certificates import Certificates, certificates
from flashsd_ray.bench.serving.clips import held_out_clips, mixed_asks
from flashsd_ray.bench.serving.clusters import (
    hosts_of_parts,
    joined,
    scratch,
    two_node_cluster,
)
from flashsd_ray.bench.serving.expected import difference, expected_answers
from flashsd_ray.bench.serving.generator import load_generator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.bench.serving.networks import Place, two_places
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Caption

FIRST = {"CPU": 2.0, "flashsd_edge": 1.0, "flashsd_encoder": 1.0, "flashsd_drafter": 1.0}
SECOND = {"CPU": 2.0, "flashsd_lane": 1.0}
PINNED = (
    "placement.lane_resources=flashsd_lane:1",
    "placement.encoder_resources=flashsd_encoder:1",
    "placement.drafter_resources=flashsd_drafter:1",
    "placement.edge_resources=flashsd_edge:0.01",
    "placement.strategy=SPREAD",
)
CONCURRENCY = 4
SHOWN = 5  # mismatches; all of them are saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one edge of one placement answered."""

    placement: str
    edge: Edge
    num_networks: int
    lane: str  # address of its node
    encoder: str
    drafter: str  # empty where it lives with its target
    stands_apart: bool  # lane and encoder, and lane and drafter, are on different nodes
    num_requests: int
    wrong: Sequence[str]


def report(arguments: argparse.Namespace) -> Report:
    """The table is printed; it is sound when every answer is right and every part stands where it belongs.

    Raises:
        FlashSDError: the model cannot be loaded, or the cluster or the server did not come up.
    """
    asks = mixed_asks(held_out_clips(arguments.clips or (2 if arguments.quick else 8)))
    expected = expected_answers(config_of(arguments, "local"), asks)
    table = MarkdownTable("placement", "edge", "networks", "lane", "encoder", "drafter", "answers", "wrong")
    found: list[Found] = []
    # One certificate for all of it: Ray reads it once in the life of a process, of this one too.
    with two_places() as places, scratch() as directory:
        made = certificates(directory, sorted({place.address for place in places}))
        for placement in arguments.placements:
            config = _config(arguments, placement, places[0], made)
            for one in _measured(config, places, made, asks, expected):
                found.append(one)
                where = (str(one.num_networks), one.lane, one.encoder, one.drafter or "-")
                table.row(one.placement, one.edge, *where, str(one.num_requests), str(len(one.wrong)))
    for line in [line for one in found for line in one.wrong][:SHOWN]:
        print(line)
    return Report([asdict(one) for one in found], is_sound=all(one.stands_apart and not one.wrong for one in found))


def _config(arguments: argparse.Namespace, placement: str, here: Place, made: Certificates) -> Config:
    config = config_of(arguments, placement, (*PINNED, f"serving.host={here.address}"))
    serving = replace(
        config.serving,
        tls_certificate=str(made.certificate),
        tls_key=str(made.key),
    )
    return replace(config, serving=serving)


def _measured(
    config: Config,
    places: tuple[Place, Place],
    made: Certificates,
    asks: tuple[Ask, ...],
    expected: Mapping[str, Caption],
) -> list[Found]:
    with (
        load_generator() as generator,
        two_node_cluster(places, (FIRST, SECOND), made.for_ray) as cluster,
        joined(cluster, num_nodes=2),
        server(config, address=cluster) as running,
    ):
        hosts = hosts_of_parts()
        lane, *drafters = next(one for name, one in hosts.items() if name.startswith("lane"))
        encoder = next(one for name, one in hosts.items() if name.startswith("encoder"))[0]
        others = {encoder.node_id, *(drafter.node_id for drafter in drafters)}
        found = []
        for edge in EDGES:
            address, authority = running.address(edge), str(made.authority)
            load = Load(edge=edge, address=address, asks=asks, authority=authority, concurrency=CONCURRENCY)
            with counting(f"{config.placement.kind}, {edge}", len(asks)) as count:
                outcomes = generator.run(load, count)
            problems = ((one.name, difference(one, expected[one.name])) for one in outcomes)
            found.append(
                Found(
                    placement=config.placement.kind,
                    edge=edge,
                    num_networks=len(set(places)),
                    lane=lane.address,
                    encoder=encoder.address,
                    drafter=drafters[0].address if drafters else "",
                    stands_apart=lane.node_id not in others,
                    num_requests=len(outcomes),
                    wrong=[f"{edge}, {name}: {problem}" for name, problem in problems if problem],
                )
            )
        return found
