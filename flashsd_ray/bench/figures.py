"""Pictures of measurements, all in one style; a file's name says whether it is a PNG or an SVG file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flashsd_ray.bench.intervals import Ratio

WIDTH, HEIGHT = 4.2, 3.4  # inches, of one panel


@dataclass(frozen=True, slots=True)
class Line:
    """A named series; with intervals where its values have any."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float | Ratio]


def panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, side by side."""
    figure = Figure(figsize=(WIDTH * max(1, len(titles)), HEIGHT), layout="constrained")
    axes = list(figure.subplots(1, max(1, len(titles)), squeeze=False)[0])
    for one, title in zip(axes, titles, strict=False):
        one.set_title(title)
    return figure, axes


def draw_lines(axes: Axes, lines: Iterable[Line]) -> None:
    """The series are drawn, each in a colour of its own."""
    for line in lines:
        values = [y.value if isinstance(y, Ratio) else y for y in line.ys]
        errors = [
            [value - y.low if isinstance(y, Ratio) else 0.0 for value, y in zip(values, line.ys, strict=True)],
            [y.high - value if isinstance(y, Ratio) else 0.0 for value, y in zip(values, line.ys, strict=True)],
        ]
        axes.errorbar(line.xs, values, yerr=errors, marker="o", markersize=4, capsize=2, label=line.name)


def draw_stacks(axes: Axes, stacks: Mapping[str, Mapping[str, float]]) -> None:
    """A bar for each name, of parts one upon the other."""
    parts = dict.fromkeys(part for stack in stacks.values() for part in stack)
    names, bottoms = list(stacks), [0.0] * len(stacks)
    for part in parts:
        heights = [max(0.0, stacks[name].get(part, 0.0)) for name in names]
        axes.bar(names, heights, bottom=bottoms, label=part, width=0.6)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.tick_params(axis="x", rotation=45)


def save(figure: Figure, path: Path) -> None:
    """The figure is a file; the same figure gives the same SVG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    is_svg = path.suffix == ".svg"
    with rc_context({"svg.hashsalt": "flashsd"}):
        figure.savefig(path, dpi=120, metadata={"Date": None} if is_svg else None)
