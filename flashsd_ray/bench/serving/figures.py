"""Pictures of series that a table cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from flashsd_ray.bench.serving.autoscaling import Run
from flashsd_ray.bench.serving.memory import Reading

MIB = 2**20
Row = Mapping[str, Any]


def draw_loads(rows: Sequence[Row], path: Path) -> None:
    """Time to first text and to the end over the rate of requests, for each placement and edge, is a PNG or SVG file."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, name, title in zip(
        figure.subplots(1, 2), ("first_s", "whole_s"), ("to the first text", "to the end"), strict=True
    ):
        for key in sorted({(row["placement"], row["edge"]) for row in rows}):
            mine = [row for row in rows if (row["placement"], row["edge"]) == key and row["rate_per_s"] and row[name]]
            rates = [row["rate_per_s"] for row in mine]
            (line,) = axes.plot(rates, [row[name]["p50"] for row in mine], marker="o", label=", ".join(key))
            axes.plot(rates, [row[name]["p99"] for row in mine], marker="o", linestyle=":", color=line.get_color())
        axes.set(
            xlabel="requests a second (Poisson)", ylabel="seconds (line: p50, dots: p99)", title=title, ylim=(0, None)
        )
    figure.axes[0].legend()
    _save(figure, path)


def draw_memory(series: Mapping[str, Sequence[Reading]], path: Path, *, x_label: str) -> None:
    """Resident memory over time, a line for each series, is a PNG or SVG file."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, readings in series.items():
        axes.plot([one.at for one in readings], [one.total_bytes / MIB for one in readings], label=name)
    axes.set(xlabel=x_label, ylabel="resident memory of the server, MiB", ylim=(0, None))
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


# Of Okabe and Ito: told apart by everybody.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def draw_scaling(run: Run, path: Path) -> None:
    """Load, lanes and nodes, and the time of answers, one above the other over the same time, are a PNG or SVG file."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    load, parts, times = figure.subplots(3, 1, sharex=True)
    seconds = [one.at_s for one in run.moments]
    load.step(seconds, [one.open_requests for one in run.moments], where="post", color=BLUE)
    load.set(ylabel="open requests", ylim=(0, None))
    series = {
        "lanes wanted": ([one.replicas.get("lane desired", 0) for one in run.moments], ORANGE, ":"),
        "lanes that answer": ([one.lanes for one in run.moments], BLUE, "-"),
        "nodes for lanes": ([one.nodes.get("lane", 0) for one in run.moments], GREEN, "--"),
        "nodes for encoders": ([one.nodes.get("encoder", 0) for one in run.moments], PURPLE, "-."),
    }
    for name, (values, color, style) in series.items():
        parts.step(seconds, values, where="post", color=color, linestyle=style, label=name)
    parts.set(ylabel="number", ylim=(0, run.most + 0.5), yticks=range(run.most + 1))
    parts.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), fontsize=8, frameon=False)
    ends = [one.end_s for one in run.answers]
    times.plot(ends, [one.end_s - one.start_s for one in run.answers], ".", color=BLUE)
    times.set(xlabel="seconds", ylabel="seconds of an answer", ylim=(0, None))
    for axes in (load, parts, times):
        for _, start_s in run.phases:
            axes.axvline(start_s, color="0.8", zorder=0)
    for name, start_s in run.phases:
        load.annotate(f" {name}", (start_s, 1.0), xycoords=("data", "axes fraction"), va="top", fontsize=8)
    _save(figure, path)
