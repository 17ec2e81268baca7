"""Pictures of series that a table cannot show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

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
