"""Throughput over lanes, and the part that is the limit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from flashsd_ray.bench.scaling.clusters import Point
from flashsd_ray.bench.scaling.study import Check


def draw(points: Sequence[Point], checks: Sequence[Check], path: Path) -> None:
    """A PNG or SVG file: left what was checked, right what is predicted."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.2))
    places = range(len(checks))
    left.bar([place - 0.2 for place in places], [one.measured_tokens_per_s for one in checks], 0.4, label="measured")
    left.bar([place + 0.2 for place in places], [one.predicted_tokens_per_s for one in checks], 0.4, label="predicted")
    left.set_xticks(list(places), [f"{one.num_lanes} on this machine\n{one.error:+.0%}" for one in checks])
    left.set(ylabel="tokens a second", title="checked")
    left.legend()
    for scenario, group in groupby(points, key=lambda point: point.scenario):
        mine = list(group)
        lanes = [point.supply.num_lanes for point in mine]
        speeds = [point.prediction.steady_tokens_per_s for point in mine]
        right.loglog(lanes, speeds, marker="o", label=scenario)
        last = ""
        for point, speed in zip(mine, speeds, strict=True):
            if point.prediction.limit != last:
                last = point.prediction.limit
                right.annotate(last, (point.supply.num_lanes, speed), (4, -12), textcoords="offset points", fontsize=8)
    first = points[0]
    ideal = [first.prediction.steady_tokens_per_s * n / first.supply.num_lanes for n in lanes]
    right.loglog(lanes, ideal, linestyle=":", color="grey", label="one lane times so many")
    right.set(xlabel="lanes", ylabel="tokens a second", title="predicted; names: the busiest part from there on")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
