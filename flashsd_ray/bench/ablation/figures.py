"""What the ablation looks like: tau and speed of each row, survival by slot, and what more frames change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from flashsd_ray.bench.ablation.summary import RowResult
from flashsd_ray.bench.decode.summary import PLAIN
from flashsd_ray.bench.figures import Line, draw_lines, panels, save
from flashsd_ray.bench.intervals import Ratio

SHOWN = ("A1", "A4", "A6", "B1", "B2", "B3", "B4-hide", "B5-k16", "B5-k16-hide")  # in pictures of several lines


def draw(results: Sequence[RowResult], folder: Path, suffix: str = ".svg") -> list[Path]:
    """The figures are files in the folder; returns which."""
    fewest = min(result.frames for result in results)
    first = [result for result in results if result.frames == fewest]
    figure, (left, middle, right) = panels([f"tau, {fewest} frames", "decode, times plain", "survival by slot"])
    figure.set_size_inches(14, max(3.4, 0.26 * len(first)))
    _bars(left, first, [result.decoded.tau for result in first])
    _bars(middle, first, [result.decoded.against.get(PLAIN) for result in first])
    for result in first:
        if result.row.name in SHOWN and result.decoded.survival:
            slots = range(1, len(result.decoded.survival) + 1)
            draw_lines(right, [Line(result.row.name, slots, result.decoded.survival)])
    right.set(xlabel="slot", ylim=(0, 1))
    drawn = [folder / f"ablation{suffix}"]
    save(figure, drawn[0])
    if len({result.frames for result in results}) > 1:
        drawn.append(_draw_frames(results, folder / f"frames{suffix}"))
    return drawn


def _bars(axes: Axes, results: Sequence[RowResult], ratios: Sequence[Ratio | None]) -> None:
    for place, ratio in enumerate(ratios):
        if ratio is not None:
            errors = [[ratio.value - ratio.low], [ratio.high - ratio.value]]
            axes.barh(place, ratio.value, xerr=errors, color="tab:blue", height=0.6, capsize=2)
    axes.set_yticks(range(len(results)), [result.row.name for result in results])
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=0.8)


def _draw_frames(results: Sequence[RowResult], path: Path) -> Path:
    figure, (left, right) = panels(["tau", "decode, times plain"])
    for name in dict.fromkeys(result.row.name for result in results):
        mine = [result for result in results if result.row.name == name and not result.row.is_plain]
        if len(mine) > 1:
            frames = [result.frames for result in mine]
            draw_lines(left, [Line(name, frames, [result.decoded.tau or 0.0 for result in mine])])
            draw_lines(right, [Line(name, frames, [result.decoded.against.get(PLAIN, 0.0) for result in mine])])
    for axes in (left, right):
        axes.set(xlabel="frames of a clip", ylim=(0, None))
    save(figure, path)
    return path
