"""The page that Prometheus reads says what the parts counted, under names that follow the rules."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import UnavailableError
from flashsd_ray.telemetry.metrics import EdgeMeters, page, render
from tests.fake_service import EchoService
from tests.unit.telemetry.parts import ENCODER, STATUS, LostStore, edge_meters, lane_meters


class Page:
    """A page as Prometheus would read it."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.values.get((f"flashsd_{name}", *sorted(labels.items())))


def whole_page() -> str:
    return render(
        edge_meters().registry,
        {"lane-0": lane_meters()},
        STATUS,
        encoders={"encoder-0": ENCODER},
        stores={"latents": LostStore()},
    )


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("lane_rounds_total", {"lane": "lane-0"}, 3),
        ("lane_verified_rows_total", {"lane": "lane-0"}, 74 * 5),
        ("lane_draft_tokens_total", {"lane": "lane-0"}, 74 * 4),
        ("lane_accepted_tokens_total", {"lane": "lane-0"}, 74 * 2),
        ("lane_new_tokens_total", {"lane": "lane-0"}, 74 * 3),
        ("lane_prompt_tokens_total", {"lane": "lane-0"}, 30),
        ("lane_cached_prompt_tokens_total", {"lane": "lane-0"}, 10),
        ("lane_accepted_at_position_total", {"lane": "lane-0", "position": "1"}, 74),
        ("lane_accepted_at_position_total", {"lane": "lane-0", "position": "2"}, 74),
        ("lane_accepted_at_position_total", {"lane": "lane-0", "position": "3"}, None),
        ("lane_stage_seconds_total", {"lane": "lane-0", "stage": "verify"}, 0.75),
        ("lane_stage_seconds_total", {"lane": "lane-0", "stage": "decode"}, 3.0),
        ("lane_answers_total", {"lane": "lane-0", "reason": "expired"}, 1),
        ("replicas_desired", {"role": "lane"}, 3),
        ("replicas_actual", {"role": "lane"}, 2),
        ("replicas_starting", {"role": "lane"}, 1),
        ("replicas_draining", {"role": "lane"}, 1),
        ("scale_decisions_total", {"role": "lane", "direction": "up"}, 4),
        ("scale_decisions_total", {"role": "lane", "direction": "down"}, 2),
        ("scale_reason", {"role": "lane", "reason": "requests"}, 1),
        ("lane_round_requests_bucket", {"lane": "lane-0", "le": "1.0"}, 1),
        ("lane_round_requests_bucket", {"lane": "lane-0", "le": "2.0"}, 1),
        ("lane_round_requests_bucket", {"lane": "lane-0", "le": "4.0"}, 2),
        ("lane_round_requests_bucket", {"lane": "lane-0", "le": "64.0"}, 2),
        ("lane_round_requests_bucket", {"lane": "lane-0", "le": "+Inf"}, 3),
        ("lane_round_requests_count", {"lane": "lane-0"}, 3),
        ("lane_round_requests_sum", {"lane": "lane-0"}, 74),
        ("lane_waiting_requests", {"lane": "lane-0"}, 2),
        ("lane_running_requests", {"lane": "lane-0"}, 3),
        ("lane_cache_rows", {"lane": "lane-0"}, 1024),
        ("lane_cache_free_rows", {"lane": "lane-0"}, 1000),
        ("lane_draining", {"lane": "lane-0"}, 0),
        ("encoder_frames_total", {"encoder": "encoder-0"}, 100),
        ("encoder_cached_frames_total", {"encoder": "encoder-0"}, 40),
        ("encoder_busy_seconds_total", {"encoder": "encoder-0"}, 1.5),
        ("encoder_waiting_requests", {"encoder": "encoder-0"}, 1),
        ("encoder_waiting_frames", {"encoder": "encoder-0"}, 8),
        ("encoder_running_requests", {"encoder": "encoder-0"}, 2),
        ("store_up", {"store": "latents"}, 0),
        ("store_calls_total", {"store": "latents", "result": "hit"}, 5),
        ("store_calls_total", {"store": "latents", "result": "miss"}, 2),
        ("store_calls_total", {"store": "latents", "result": "error"}, 1),
        ("ready", {}, 1),
        ("degraded", {}, 1),
        ("requests_total", {"edge": "http", "outcome": "stop"}, 1),
        ("open_requests", {"edge": "http"}, 0),
        ("time_to_first_token_seconds_sum", {"edge": "http"}, 0.5),
        ("time_per_output_token_seconds_sum", {"edge": "http"}, 0.5),
        ("request_seconds_sum", {"edge": "http"}, 2.0),
        ("request_prompt_tokens_total", {"edge": "http"}, 9),
        ("request_cached_tokens_total", {"edge": "http"}, 4),
        ("request_new_tokens_total", {"edge": "http"}, 4),
        ("request_decoded_tokens_total", {"edge": "http"}, 3),
        ("request_rounds_total", {"edge": "http"}, 1),
        ("request_draft_tokens_total", {"edge": "http"}, 4),
        ("request_accepted_tokens_total", {"edge": "http"}, 2),
        ("request_accepted_at_position_total", {"edge": "http", "position": "2"}, 1),
        ("request_accepted_at_position_total", {"edge": "http", "position": "3"}, 0),
        ("request_stage_seconds_total", {"edge": "http", "stage": "prefill"}, 0.25),
        ("request_tau_sum", {"edge": "http"}, 3),
        ("prefetches_total", {"edge": "grpc", "outcome": "cached"}, 1),
    ],
)
def test_the_page_says(name: str, labels: dict[str, str], value: float | None) -> None:
    assert Page(whole_page()).value(name, **labels) == value


def test_names_follow_the_rules() -> None:
    families = Page(whole_page()).families
    assert len(families) > 35
    for name, family in families.items():
        assert name.startswith("flashsd_")
        assert family.documentation.endswith(".")
        assert not name.endswith(("_s", "_ms", "_created"))
        assert all(sample.name.endswith("_total") for sample in family.samples if family.type == "counter")
        assert family.samples, f"{name} has no sample on a page of everything"


def test_every_total_of_a_lane_is_on_the_page() -> None:
    # A total that is added to the lane must not be forgotten here: each changes the page.
    def shown(meters: LaneMeters) -> str:
        return render(EdgeMeters().registry, {"lane-0": meters})

    for name in LaneMeters.__slots__:
        meters = LaneMeters()
        value = getattr(meters, name)
        if isinstance(value, int):
            setattr(meters, name, 7)
        elif isinstance(value, dict):
            value["something"] = 7
        else:
            value[:] = [7] * max(1, len(value))
        assert shown(meters) != shown(LaneMeters()), f"{name} is not shown"


async def test_a_page_of_a_service() -> None:
    service = EchoService()
    service.lane_meters = lane_meters()
    service.degraded = ("a lane is missing", "a store is lost")
    read = Page(await page(service, edge_meters()))
    assert read.value("lane_rounds_total", lane="lane-0") == 3
    assert read.value("lane_cache_rows", lane="lane-0") == 1024
    assert read.value("degraded") == 2
    assert read.value("requests_total", edge="http", outcome="stop") == 1


class Lost(EchoService):
    async def meters(self) -> Mapping[str, LaneMeters]:  # type: ignore[override]
        raise UnavailableError("the fleet is gone")


async def test_a_lost_service_leaves_the_rest_of_the_page() -> None:
    read = Page(await page(Lost(), edge_meters(), stores={"latents": LostStore()}))
    assert read.value("requests_total", edge="http", outcome="stop") == 1
    assert read.value("store_up", store="latents") == 0
    assert read.value("ready") == 1
    assert read.value("lane_rounds_total", lane="lane-0") is None
    assert "flashsd_lane_rounds" not in read.families


async def test_two_edges_of_a_process_share_a_page() -> None:
    meters = edge_meters()
    meters.began("grpc")
    read = Page(await page(EchoService(), meters))
    assert (read.value("open_requests", edge="http"), read.value("open_requests", edge="grpc")) == (0, 1)
