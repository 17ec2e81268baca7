"""``live``: the first text after a question about live video, and memory over an hour of it."""

from __future__ import annotations

import argparse
import asyncio

from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.live import Hour, Latency, compare, play_hour
from flashsd_ray.bench.serving.memory import Reading, Watch, growth
from flashsd_ray.bench.serving.percentiles import Percentiles, in_ms
from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.bench.serving.server import Server, server
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.bench.serving.tables import MarkdownTable

PROMPT = "Describe the video in detail."
MAX_NEW_TOKENS = 48
MIB = 2**20
FLAT = 0.05  # largest growth that is noise
# Caches that fill within the first minutes: then whatever still grows is a leak. Frames come far faster than filmed.
SMALL_CACHES = ("stores.latent_bytes=8388608", "scheduling.cache_rows=4096", "sessions.max_frames_per_second=1000000")


def report(arguments: argparse.Namespace) -> Report:
    """The tables are printed; it is sound when no frame was refused and memory is flat.

    Raises:
        FlashSDError: the server did not come up or cannot be reached.
    """
    rows: list[dict[str, object]] = []
    details: dict[str, object] = {}
    is_sound = True
    if arguments.only != "hour":
        with server(config_of(arguments, arguments.placement)) as running:
            rows.append({"placement": arguments.placement, **_latency(arguments, running).as_dict()})
        print()
    if arguments.only != "latency":
        with server(config_of(arguments, arguments.placement, SMALL_CACHES)) as running:
            hour = _hour(arguments, running)
        grown = growth(hour.readings)
        is_sound = not hour.num_refused and (grown or 0.0) <= FLAT
        print(f"memory: {'too few readings' if grown is None else f'{grown:+.1%} from the second quarter to the last'}")
        rows.append({"placement": arguments.placement, **hour.as_dict(), "memory_growth": grown})
        details["memory"] = [reading.as_dict() for reading in hour.readings]
        if arguments.figure:
            from flashsd_ray.bench.serving.figures import draw_memory

            draw_memory({arguments.placement: hour.readings}, arguments.figure, x_label="seconds of video")
    return Report(rows, is_sound=is_sound, details=details)


def _latency(arguments: argparse.Namespace, running: Server) -> Latency:
    num_clips = arguments.clips or (2 if arguments.quick else 20)
    with counting("live and whole in turn", num_clips + 1) as count:
        found = asyncio.run(
            compare(
                running.grpc_address,
                num_clips=num_clips,
                num_frames=arguments.frames,
                prompt=PROMPT,
                max_new_tokens=MAX_NEW_TOKENS,
                on_pair=count,
            )
        )
    print(f"{num_clips} clips; ms to the first text, p50 / p90 / p99")
    table = MarkdownTable("frames", "live", "whole", "sooner [95 %]")
    table.row(found.num_frames, in_ms(Percentiles.of(found.live_s)), in_ms(Percentiles.of(found.whole_s)), found.ratio)
    return found


def _hour(arguments: argparse.Namespace, running: Server) -> Hour:
    num_frames = arguments.hour_frames or (40 if arguments.quick else 3600)
    period_s = min(arguments.period, num_frames / 8)
    with counting("frames of an hour", num_frames) as count:
        hour = asyncio.run(
            play_hour(
                running.grpc_address,
                Watch(running.pid),
                num_frames=num_frames,
                period_s=period_s,
                prompt=PROMPT,
                max_new_tokens=MAX_NEW_TOKENS,
                on_frame=count,
            )
        )
    names = sorted({name for reading in hour.readings for name in reading.parts})
    print(f"{hour.num_frames} frames, {hour.num_captions} captions in {hour.seconds:.0f} s; resident memory in MiB")
    table = MarkdownTable("seconds of video", *names, "all")
    for reading in hour.readings[:: max(1, len(hour.readings) // 12)]:
        table.row(f"{reading.at:.0f}", *_mib(reading, names), f"{reading.total_bytes / MIB:.0f}")
    return hour


def _mib(reading: Reading, names: list[str]) -> list[str]:
    return [f"{reading.parts.get(name, 0) / MIB:.0f}" for name in names]
