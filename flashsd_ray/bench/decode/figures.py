"""What the decode bench looks like: speed-up by batch size, survival by slot, where the time of a round goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from flashsd_ray.bench.decode.summary import PLAIN, PLAINS, Row
from flashsd_ray.bench.figures import Line, draw_lines, draw_stacks, panels, save

FLOOR = 0.98  # of plain decoding, at any batch size


def draw(rows: Sequence[Row], folder: Path, suffix: str = ".svg") -> list[Path]:
    """The figures are files in the folder; returns which."""
    temperatures = sorted({row.cell.temperature for row in rows})
    titles = [f"temperature {temperature:g}" for temperature in temperatures]
    drawn = []
    for name, draw_panel in (("speedup", _speedup), ("survival", _survival), ("round", _rounds)):
        figure, axes = panels(titles)
        for one, temperature in zip(axes, temperatures, strict=True):
            draw_panel(one, [row for row in rows if row.cell.temperature == temperature])
        drawn.append(folder / f"{name}{suffix}")
        save(figure, drawn[-1])
    return drawn


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.contender for row in rows if row.contender not in PLAINS))


def _speedup(axes: Axes, rows: Sequence[Row]) -> None:
    for name in _names(rows):
        mine = [row for row in rows if row.contender == name and PLAIN in row.against]
        sizes = [row.cell.batch_size for row in mine]
        draw_lines(axes, [Line(name, sizes, [row.against[PLAIN] for row in mine])])
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.axhline(FLOOR, color="black", linewidth=0.8, linestyle=":")
    sizes = sorted({row.cell.batch_size for row in rows})
    axes.set_xscale("log", base=2)
    axes.set(xlabel="batch size", ylabel="tokens per second, times plain", ylim=(0, None))
    axes.set_xticks(sizes, [str(size) for size in sizes])


def _survival(axes: Axes, rows: Sequence[Row]) -> None:
    smallest = min((row.cell.batch_size for row in rows), default=1)
    for row in rows:
        if row.cell.batch_size == smallest and row.survival:
            draw_lines(axes, [Line(row.contender, range(1, len(row.survival) + 1), row.survival)])
    axes.set(xlabel=f"slot (batch {smallest})", ylabel="share of rounds in which it stands", ylim=(0, 1))


def _rounds(axes: Axes, rows: Sequence[Row]) -> None:
    timed = [row for row in rows if row.round_ms.get("verify")]
    draw_stacks(axes, {f"{row.contender} {row.cell.batch_size}": row.round_ms for row in timed})
    axes.set(xlabel="contender and batch size", ylabel="ms of a round")
