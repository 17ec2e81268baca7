"""Totals that parts of the pipeline keep, as families of metrics; whoever exports them gives them the same names.

Counters lose their ``_total`` here and get it back in every text form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from flashsd_ray.engine.meters import BATCH_BOUNDS, LaneMeters

if TYPE_CHECKING:
    from flashsd_ray.actors.encoder_host import EncoderStatus
    from flashsd_ray.actors.service import LaneStatus, RoleScale, ServiceStatus
    from flashsd_ray.stores.store import Store

Samples = Sequence[tuple[tuple[str, ...], float]]  # values of the labels, and of the metric

_LANE_TOTALS: dict[str, tuple[str, Callable[[LaneMeters], float]]] = {
    "rounds": ("Rounds: forwards of the target over every request whose turn it is.", lambda one: one.rounds),
    "verified_rows": ("Rows forwarded for blocks, anchors included.", lambda one: one.verified_rows),
    "draft_tokens": ("Tokens drafted.", lambda one: one.draft_tokens),
    "accepted_tokens": ("Drafted tokens that stand.", lambda one: one.accepted_tokens),
    "new_tokens": ("Tokens committed.", lambda one: one.new_tokens),
    "prompt_tokens": ("Prompt positions of requests that got a place.", lambda one: one.prompt_tokens),
    "cached_prompt_tokens": ("Prompt positions found in the KV cache.", lambda one: one.cached_prompt_tokens),
}
_LANE_STATES: dict[str, tuple[str, Callable[[LaneStatus], float]]] = {
    "waiting_requests": ("Requests without a place.", lambda one: one.num_waiting),
    "running_requests": ("Requests being prefilled or decoded.", lambda one: one.num_running),
    "cache_rows": ("Rows of the KV cache.", lambda one: one.total_rows),
    "cache_free_rows": ("Rows of the KV cache that no request holds.", lambda one: one.free_rows),
    "draining": ("1 while the lane takes no new requests.", lambda one: one.is_draining),
}
_ENCODER_TOTALS: dict[str, tuple[str, Callable[[EncoderStatus], float]]] = {
    "frames": ("Frames of requests.", lambda one: one.num_frames),
    "cached_frames": ("Frames that did not go through the vision tower.", lambda one: one.num_cached_frames),
    "busy_seconds": ("Time spent on encoding.", lambda one: one.busy_s),
}
_ENCODER_STATES: dict[str, tuple[str, Callable[[EncoderStatus], float]]] = {
    "waiting_requests": ("Requests whose turn has not begun.", lambda one: one.num_waiting),
    "waiting_frames": ("Frames of those requests.", lambda one: one.num_waiting_frames),
    "running_requests": ("Requests in the turn that is being encoded.", lambda one: one.num_running),
}
_SCALE_STATES: dict[str, tuple[str, Callable[[RoleScale], float]]] = {
    "desired": ("Parts of a kind that there should be.", lambda one: one.desired),
    "actual": ("Parts of a kind that take requests.", lambda one: one.actual),
    "starting": ("Parts of a kind that are being started.", lambda one: one.starting),
    "draining": ("Parts of a kind that finish what they have and go.", lambda one: one.draining),
}


def lane_families(lanes: Mapping[str, LaneMeters], statuses: Sequence[LaneStatus]) -> Iterator[Metric]:
    """What lanes have done and how they stand, labelled ``lane``."""
    for name, (text, total) in _LANE_TOTALS.items():
        yield counter(f"lane_{name}", text, ("lane",), [((key,), total(one)) for key, one in lanes.items()])
    positions = [
        ((key, str(position)), float(count))
        for key, one in lanes.items()
        for position, count in enumerate(one.accepted_per_position, start=1)
    ]
    text = "Blocks whose first drafts, up to this position, all stand."
    yield counter("lane_accepted_at_position", text, ("lane", "position"), positions)
    stages = [((key, stage), seconds) for key, one in lanes.items() for stage, seconds in one.stage_s.items()]
    text = "Time of rounds: decode is the whole of a round, verify and draft are its parts."
    yield counter("lane_stage_seconds", text, ("lane", "stage"), stages)
    ends = [((key, reason), float(count)) for key, one in lanes.items() for reason, count in one.answers.items()]
    yield counter("lane_answers", "Requests that ended, by reason.", ("lane", "reason"), ends)
    yield _batches(lanes)
    for name, (text, state) in _LANE_STATES.items():
        yield gauge(f"lane_{name}", text, ("lane",), [((one.lane_id,), state(one)) for one in statuses])


def encoder_families(encoders: Mapping[str, EncoderStatus]) -> Iterator[Metric]:
    """What encoders have done and how they stand, labelled ``encoder``."""
    for name, (text, total) in _ENCODER_TOTALS.items():
        yield counter(f"encoder_{name}", text, ("encoder",), [((key,), total(one)) for key, one in encoders.items()])
    for name, (text, state) in _ENCODER_STATES.items():
        yield gauge(f"encoder_{name}", text, ("encoder",), [((key,), state(one)) for key, one in encoders.items()])


def store_families(stores: Mapping[str, Store]) -> Iterator[Metric]:
    """What stores were asked and whether they are reached, labelled ``store``."""
    counts = {name: store.counts for name, store in stores.items()}
    calls = [
        ((name, result), float(count))
        for name, one in counts.items()
        for result, count in (("hit", one.hits), ("miss", one.misses), ("error", one.errors))
    ]
    yield counter("store_calls", "Values asked for, and calls that failed.", ("store", "result"), calls)
    reached = [((name,), float(not store.health())) for name, store in stores.items()]
    yield gauge("store_up", "1 while the store is reached.", ("store",), reached)


def service_families(status: ServiceStatus) -> Iterator[Metric]:
    """Whether requests are answered, and with everything that belongs to it."""
    yield gauge("ready", "1 while requests are answered.", (), [((), status.is_ready)])
    yield gauge("degraded", "Things that are lost while requests are still answered.", (), [((), len(status.degraded))])


def scale_families(scales: Sequence[RoleScale]) -> Iterator[Metric]:
    """How many parts of each kind there are and should be, and how that came about, labelled ``role``."""
    for name, (text, state) in _SCALE_STATES.items():
        yield gauge(f"replicas_{name}", text, ("role",), [((one.role,), state(one)) for one in scales])
    decisions = [
        ((one.role, direction), float(count))
        for one in scales
        for direction, count in (("up", one.ups), ("down", one.downs))
    ]
    yield counter("scale_decisions", "Decisions for more or fewer.", ("role", "direction"), decisions)
    text = "1 for the signal that the last decision went by."
    yield gauge("scale_reason", text, ("role", "reason"), [((one.role, one.reason), 1) for one in scales if one.reason])


def counter(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A family of totals."""
    family = CounterMetricFamily(f"flashsd_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> Metric:
    """A family of values that go up and down."""
    family = GaugeMetricFamily(f"flashsd_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, float(value))
    return family


def _batches(lanes: Mapping[str, LaneMeters]) -> Metric:
    text = "Requests whose blocks were judged together in a round."
    family = HistogramMetricFamily("flashsd_lane_round_requests", text, labels=("lane",))
    bounds = [*(f"{float(bound)}" for bound in BATCH_BOUNDS), "+Inf"]
    for key, one in lanes.items():
        # Every judged block has an anchor, so this is the number of blocks: the sum over rounds of their requests.
        num_blocks = one.verified_rows - one.draft_tokens
        family.add_metric((key,), list(zip(bounds, accumulate(one.batch_sizes), strict=True)), num_blocks)
    return family
